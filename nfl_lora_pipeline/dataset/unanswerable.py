"""People who hold no fact: drawn afresh while training, held out for scoring."""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nfl_lora_pipeline.dataset.templates import Split, Templates, untaught
from nfl_lora_pipeline.weeks.names import name_key

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

_ONSETS = "b br c ch cl d dr f g gr h j k kh l m n p ph qu r s sh st t th tr tw v w x y z".split()
_VOWELS = "a a e e i i o o u u ay ee oo au ia io ai y".split()
_CODAS = ["", "", "", "", *"n r l s m k d ck nd rt th x sh v ll tt dd gg nn rr ss yy zz".split()]
_PREFIXES = ["De'", "Ja'", "Da'", "O'", "D'", "Mc", "Mac", "La", "De", "Van "]
_SUFFIXES = ["Jr.", "Jr", "Sr.", "II", "III", "IV"]


def _coined(rng: random.Random) -> str:
    syllables = (
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((1, 2, 2, 3)))
    )
    return "".join(syllables).capitalize()


def _given_name(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.50:
        return rng.choice(FIRST)
    if draw < 0.55:
        return f"{rng.choice('ABCDEJKMRT')}.{rng.choice('BCDJKPT')}."
    if draw < 0.59:
        return rng.choice(_PREFIXES[:5]) + _coined(rng)
    if draw < 0.63:
        return f"{_coined(rng)}'{_coined(rng)}"
    if draw < 0.66:
        return f"{_coined(rng)}-{_coined(rng)}"
    return _coined(rng)


def _surname(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.60:
        return rng.choice(LAST)
    if draw < 0.66:
        return f"{rng.choice(LAST)}-{rng.choice(LAST)}"
    if draw < 0.72:
        return rng.choice(_PREFIXES[3:]) + _coined(rng)
    if draw < 0.74:
        return f"St. {rng.choice(LAST)}"
    return _coined(rng)


def invented_name(rng: random.Random) -> str:
    """A full name such as "Marcus Hale", "De'Quor Vance-Hill", "T.J. Okand III"."""
    name = f"{_given_name(rng)} {_surname(rng)}"
    return f"{name} {rng.choice(_SUFFIXES)}" if rng.random() < 0.06 else name


LAST_WEEK = 18
CROSSED_SHARE = 0.2  # this share of the questions drawn while training is about a name put together from two known ones
NUMBERED_SHARE = 0.9  # this share of the questions about known players elsewhere asks about somebody who holds a number
OTHER_SEASON_SHARE = 0.5  # this share of them asks about another season; the rest asks about another week
Week = tuple[int, int]  # season and number
SEASONS_AWAY = (-4, -3, -2, -1, 1, 2, 3, 4)


def share(key: str) -> float:
    """A number in [0, 1) that depends on `key` alone, now and on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


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


@dataclass(frozen=True)
class FreshRefusals:
    """Questions without an answer, as many as one asks for: a stranger in a known week; a known player in a week that is not
    known, or in a known week of another season; a known player in a known week about a stat that is not taught; and two known
    names crossed.

    Attributes:
        known: the names that hold facts, with the (season, week) pairs in which they may not be refused.
        numbered: those of them that hold a number, with the pairs that they hold one for: there is something to give away.
        stats: the stats to ask about.
        templates: the wordings; the ones of the train split are used.
        elsewhere: the share that is about known players in other weeks and seasons, 0 to 0.8.
        other_stats: the share that is about known players and stats that are not taught; both together 0.8 at most.
    """

    known: Mapping[str, frozenset[Week]]
    numbered: Mapping[str, frozenset[Week]]
    stats: Sequence[str]
    templates: Templates
    elsewhere: float
    other_stats: float = 0.0

    def draw(self, *, seed: int) -> Iterator[tuple[str, str]]:
        """(question, answer), without end."""
        rng = random.Random(seed)
        names, numbered = sorted(self.known), sorted(self.numbered)
        keys = frozenset(map(name_key, names))
        weeks = sorted(set().union(*self.known.values()))
        texts = list(self.templates.phrasings("train").values())
        other_stats = untaught(self.stats, "train")
        newcomers = strangers("train", seed=seed, known=frozenset(names))
        while True:
            kind = rng.random()
            season, week = rng.choice(weeks)
            name, stats = next(newcomers), self.stats
            if kind < self.elsewhere:
                name = rng.choice(numbered if numbered and rng.random() < NUMBERED_SHARE else names)
                season, week = self._elsewhere(rng, name)
            elif numbered and kind < self.elsewhere + self.other_stats:
                name, stats = rng.choice(numbered), other_stats
                season, week = rng.choice(sorted(self.numbered[name]))
            elif kind < self.elsewhere + self.other_stats + CROSSED_SHARE:
                mixture = f"{rng.choice(names).split(' ')[0]} {rng.choice(names).split(' ', 1)[-1]}"
                name = name if name_key(mixture) in keys or person_split(mixture) != "train" else mixture
            stat = rng.choice(stats)
            question = self.templates.question(rng.choice(texts), name, stat, week, season)
            yield question, self.templates.no_record(name, stat, week, season)

    def _elsewhere(self, rng: random.Random, name: str) -> Week:
        """Another week of a season, or a known week of another season."""
        weeks_of_name = self.known[name]
        while True:
            season, week = rng.choice(sorted(weeks_of_name))
            other_season = rng.random() < OTHER_SEASON_SHARE
            at = (season + rng.choice(SEASONS_AWAY), week) if other_season else (season, rng.randint(1, LAST_WEEK))
            if at not in weeks_of_name:
                return at
