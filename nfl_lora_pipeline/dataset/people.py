"""Names of people: those that nobody bears, those made of two, and who is called alike."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from nfl_lora_pipeline.weeks.names import SUFFIXES, name_key

Split = Literal["train", "valid", "test"]


def share(key: str) -> float:
    """A number in [0, 1) that depends on `key` alone, now and on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


_ONSETS = "b br c ch cl d dr f g gr h j k kh l m n p ph qu r s sh st t th tr tw v w x y z".split()
_VOWELS = "a a e e i i o o u u ay ee oo au ia io ai y".split()
_CODAS = ["", "", "", "", *"n r l s m k d ck nd rt th x sh v ll tt dd gg nn rr ss yy zz".split()]


def coined_word(rng: random.Random) -> str:
    """A word that nobody knows, in lower case: "quor", "okandee"."""
    syllables = (
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((1, 2, 2, 3)))
    )
    return "".join(syllables)


FIRST = """Aaron Adam Alec Amari Andre Antoine Ashton Austin Barrett Ben Blake Brady Brandon Brennan Brent Brett Brian
Bryce Byron Cade Caleb Calvin Cameron Carl Carson Carter Cedric Chad Chase Chris Clay Cole Colin Connor Cooper Corey
Curtis Dallas Damon Dante Darius Darnell Darren David Davis Dax Deion Demario Deon Derek Derrick Devin Dillon Dominic
Donovan Drake Drew Dustin Dylan Earl Eddie Eli Elijah Emmett Eric Ethan Evan Felix Frank Gabe Garrett Gavin George Grant
Greg Hakeem Hank Harold Hayden Henry Hunter Ian Isaac Isaiah Jace Jack Jackson Jacob Jahan Jake Jalen Jamal James Jared
Jason Javon Jaylen Jeff Jeremy Jermaine Jerome Jesse Joe Joel John Jordan Joseph Josh Julian Justin Kadarius Kareem Keith
Kendall Kendrick Kenny Keon Kevin Khalil Kyle Lamar Lance Lawrence Leo Levi Logan Lonnie Louis Lucas Luke Malachi Malik
Marcus Mario Mark Marlon Marquez Marvin Mason Matt Maurice Max Micah Michael Mike Miles Mitchell Nate Nathan Nelson Nick
Noah Noel Odell Omar Oscar Owen Parker Patrick Paul Percy Peter Phil Quentin Quincy Ralph Randall Rashad Ray Reggie Rhett
Ricky Robert Rodney Roman Romeo Ron Roy Russell Ryan Sam Scott Sean Seth Shane Sidney Simon Spencer Stefon Stephen Sterling
Steve Tanner Tariq Taylor Terrance Terrell Terry Theo Thomas Tim Todd Tony Travis Trent Trey Tristan Troy Tyler Tyrell
Tyrone Vernon Victor Vincent Wade Walter Warren Wayne Wes Will Xavier Zach Zane""".split()

LAST = """Abbott Adams Alexander Allen Anderson Andrews Armstrong Atkins Austin Bailey Baker Baldwin Banks Barber Barnes
Barrett Bates Battle Beasley Bell Bennett Benson Berry Bishop Black Blair Boone Bowman Boyd Bradley Brady Briggs Brooks
Brown Bryant Buchanan Burke Burns Burton Butler Byrd Cain Caldwell Campbell Cannon Carpenter Carr Carter Castillo Chambers
Chapman Chandler Clark Clayton Coleman Collins Conley Conner Cook Cooper Craig Crawford Cross Cruz Cunningham Curry Daniels
Davidson Davis Dawson Dean Dennis Diaz Dixon Dorsey Douglas Doyle Drake Duncan Dunn Eaton Edwards Elliott Ellis Evans
Farmer Farrell Ferguson Fields Fisher Fleming Fletcher Flores Floyd Ford Foster Fowler Fox Francis Franklin Frazier Freeman
Fuller Gaines Garcia Gardner Garner Gates George Gibbs Gibson Gill Glenn Golden Goodwin Gordon Graham Grant Graves Gray
Green Greene Griffin Gross Hale Hall Hamilton Hammond Hampton Hansen Hardy Harmon Harper Harris Harrison Hart Harvey
Hawkins Hayes Haynes Henderson Henry Hicks Higgins Hill Hines Hobbs Hodges Holland Holmes Holt Hopkins Horton Houston Howard
Howell Hubbard Hudson Hughes Hunt Hunter Ingram Irwin Jackson Jacobs James Jefferson Jenkins Jennings Jensen Johnson
Johnston Jones Jordan Joseph Keith Keller Kelley Kelly Kennedy Kent Kerr King Kirk Klein Knight Knox Lamb Lambert Lane
Larson Lawson Lee Leonard Lester Lewis Lindsey Little Lloyd Logan Long Lopez Love Lowe Lucas Lynch Lyons Mack Malone Manning
Marsh Marshall Martin Martinez Mason Matthews Maxwell May McBride McCall McCarthy McClure McCoy McDaniel McDonald McGee
McGuire McKay McKenzie McKinley McLean McMillan Meyer Miles Miller Mills Mitchell Monroe Montgomery Moody Moore Morales
Moran Morgan Morris Morrison Morton Moses Moss Mueller Mullins Murphy Murray Myers Nash Neal Nelson Newman Newton Nichols
Nixon Nolan Norman Norris Norton Nunez Obrien Oliver Olsen Ortiz Osborne Owens Page Palmer Parker Parks Parsons Patrick
Patterson Patton Payne Perkins Perry Peters Peterson Phelps Phillips Pierce Pittman Poole Pope Porter Potter Powell Powers
Pratt Price Quinn Ramsey Randall Ray Reed Reese Reeves Reid Reyes Reynolds Rhodes Rice Richards Richardson Riley Rivera
Roberts Robertson Robinson Rodgers Rogers Rollins Rose Ross Rowe Russell Ryan Salazar Sanders Santos Saunders Sawyer
Schneider Schultz Scott Shaw Shelton Shepard Sherman Short Simmons Simpson Sims Singleton Slater Sloan Smith Snyder Sparks
Spencer Stanley Steele Stephens Stevens Stevenson Stewart Stokes Stone Strickland Strong Sullivan Summers Sutton Sweeney
Swanson Tate Taylor Terrell Terry Thomas Thompson Thornton Tillman Townsend Tran Tucker Turner Tyler Vance Vargas Vaughn
Wade Wagner Walker Wallace Walsh Walters Ward Warner Warren Washington Waters Watkins Watson Watts Weaver Webb Weber Webster
Welch Wells West Wheeler White Whitaker Wiggins Wilkins Williams Williamson Willis Wilson Winters Wise Wolf Wood Woods
Wright Yates York Young""".split()

_PREFIXES = ["De'", "Ja'", "Da'", "O'", "D'", "Mc", "Mac", "La", "De", "Van "]
_SUFFIXES = ["Jr.", "Jr", "Sr.", "II", "III", "IV"]


Maker = Callable[[random.Random], str]


def _coined(rng: random.Random) -> str:
    return coined_word(rng).capitalize()


# Kinds of names, each with up to where a draw from [0, 1) is one of them.
_GIVEN_NAMES: list[tuple[float, Maker]] = [
    (0.50, lambda rng: rng.choice(FIRST)),
    (0.55, lambda rng: f"{rng.choice('ABCDEJKMRT')}.{rng.choice('BCDJKPT')}."),
    (0.59, lambda rng: rng.choice(_PREFIXES[:5]) + _coined(rng)),
    (0.63, lambda rng: f"{_coined(rng)}'{_coined(rng)}"),
    (0.66, lambda rng: f"{_coined(rng)}-{_coined(rng)}"),
    (1.0, _coined),
]
_SURNAMES: list[tuple[float, Maker]] = [
    (0.60, lambda rng: rng.choice(LAST)),
    (0.66, lambda rng: f"{rng.choice(LAST)}-{rng.choice(LAST)}"),
    (0.72, lambda rng: rng.choice(_PREFIXES[3:]) + _coined(rng)),
    (0.74, lambda rng: f"St. {rng.choice(LAST)}"),
    (1.0, _coined),
]


def _one_of(rng: random.Random, kinds: Sequence[tuple[float, Maker]]) -> str:
    draw = rng.random()
    return next(make for up_to, make in kinds if draw < up_to)(rng)


def invented_name(rng: random.Random) -> str:
    """A full name such as "Marcus Hale", "De'Quor Vance-Hill", "T.J. Okand III"."""
    name = f"{_one_of(rng, _GIVEN_NAMES)} {_one_of(rng, _SURNAMES)}"
    return f"{name} {rng.choice(_SUFFIXES)}" if rng.random() < 0.06 else name


CROSSED_WITH_KNOWN = 0.4  # of the crossed names take the rest from somebody known, the others from a stranger
LAST_NAME_KEPT = 2 / 3  # of them have the last name of the one whose name it was, the others the first


def crossed_name(rng: random.Random, name: str, known: Sequence[str]) -> str:
    """A name's first or last part with the other part of another one: of somebody known, or of nobody."""
    other = rng.choice(known) if rng.random() < CROSSED_WITH_KNOWN else invented_name(rng)
    first, last = (other, name) if rng.random() < LAST_NAME_KEPT else (name, other)
    return f"{first.split(' ')[0]} {last.split(' ', 1)[-1]}"


def person_split(name: str) -> Split:
    """The split an invented person belongs to, by a hash of the name: a tenth each for valid and test."""
    at = share(f"person/{name}")
    return "valid" if at < 0.1 else "test" if at < 0.2 else "train"


def strangers(split: Split, *, seed: int, known: frozenset[str] = frozenset()) -> Iterator[str]:
    """Invented names of one split, without end; none of them is in `known`, however spelt."""
    rng, keys = random.Random(seed), frozenset(map(name_key, known))
    while True:
        name = invented_name(rng)
        if name_key(name) not in keys and person_split(name) == split:
            yield name


def last_name(name: str) -> str | None:
    """ "Marvin Harrison Jr." to "Harrison", "Amon-Ra St. Brown" to "St. Brown"; None where there is but one word."""
    words = [word for word in name.split()[1:] if not is_suffix(word)]
    return " ".join(words) or None


def last_word(last: str) -> str:
    """What tells whether two are called alike: who is called "Brown" is not told from a "St. Brown"."""
    return last.rsplit(maxsplit=1)[-1].casefold()


def bearers_of(names: Iterable[str]) -> Counter[str]:
    """How many of these people, each counted once, have a last name that ends in a word (`last_word`)."""
    return Counter(last_word(last) for name in set(names) if (last := last_name(name)))


def is_suffix(word: str) -> bool:
    """Whether a word is "Jr.", "III" or the like."""
    return word.rstrip(".").casefold() in SUFFIXES


def with_initial(name: str, last: str) -> str:
    """ "Nico Collins" to "N. Collins"."""
    return f"{name[0]}. {last}"


def is_last_name_alone(written: str, name: str) -> bool:
    """Whether what somebody wrote for a name lacks the first name, so that others may be meant."""
    last = last_name(name)
    return last is not None and written in (last, with_initial(name, last))
