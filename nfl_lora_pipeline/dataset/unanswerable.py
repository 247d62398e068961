"""People who hold no fact: drawn afresh while training, held out for scoring."""

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from nfl_lora_pipeline.dataset.templates import Split, Templates, spoken_stat, untaught
from nfl_lora_pipeline.dataset.wordings import (
    Typing,
    bearers_of,
    coined_word,
    draw_wording,
    last_name,
    last_word,
    other_stat,
    spoken,
    typed,
)
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

_PREFIXES = ["De'", "Ja'", "Da'", "O'", "D'", "Mc", "Mac", "La", "De", "Van "]
_SUFFIXES = ["Jr.", "Jr", "Sr.", "II", "III", "IV"]


def _coined(rng: random.Random) -> str:
    return coined_word(rng).capitalize()


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
CROSSED_SHARE = 0.3  # of the questions without an answer: about a known name and another one, put together
CROSSED_WITH_KNOWN = 0.4  # this share of them takes the rest from somebody known, the others from a stranger
LAST_NAME_KEPT = 2 / 3  # this share of them has the last name of the one who was just asked about, the others the first
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


CARELESS = Typing(lower_case=0.2, misspelt=0.45, last_name=0.08, in_haste=0.1)


class Drawn(NamedTuple):
    """A question, what is to be said, and how much that weighs in the loss of a step; 1 for most."""

    question: str
    answer: str
    weight: float = 1.0


@dataclass(frozen=True)
class Mixture:
    """What fresh questions are about.

    Attributes:
        varied: the share that has an answer, 0 to 1.
        elsewhere: of the rest, the share that is about known players in other weeks and seasons, 0 to 0.8.
        other_stats: of the rest, the share that is about known players and other stats; both together 0.8 at most.
        typing: how carelessly they are typed.
        refusal_weight: how much a refusal weighs in a step's loss.
    """

    varied: float
    elsewhere: float
    other_stats: float
    typing: Typing = CARELESS
    refusal_weight: float = 1.0


@dataclass(frozen=True)
class FreshQuestions:
    """Questions for one step after another, none of which was asked before in these letters.

    Some have an answer: a taught fact in any wording of the grammar, typed carefully or not. The others have none: a stranger
    in a known week; and, beside a fact that was just asked about and in the same words, the same player in a week or a season
    that is not known, or about a stat that is not taught, or somebody else who shares a name with him (counterfactual rows:
    they differ in one thing).

    Attributes:
        known: the names that hold facts, with the (season, week) pairs in which they may not be refused.
        told: the answers of those that are taught something, by name and by (season, week) and stat.
        stats: the stats to ask about.
        templates: the wordings; the ones of the train split are used, in half of the questions.
        mixture: the shares.
    """

    known: Mapping[str, frozenset[Week]]
    told: Mapping[str, Mapping[tuple[Week, str], str]]
    stats: Sequence[str]
    templates: Templates
    mixture: Mixture

    def draw(self, *, seed: int) -> Iterator[Drawn]:
        """One question after another, without end."""
        rng = random.Random(seed)
        newcomers = strangers("train", seed=seed, known=frozenset(self.known))
        weeks, facts = sorted(set().union(*self.known.values())), self._facts()
        mixture, last = self.mixture, None
        while True:
            fact, text = rng.choice(facts) if facts else None, self._wording(rng)
            if fact and rng.random() < mixture.varied:
                name, at, stat = fact
                yield self._asked(rng, text, name, stat, at, self.told[name][at, stat])
                last = fact, text
                continue
            kind = rng.random()
            if fact and kind < mixture.elsewhere + mixture.other_stats + CROSSED_SHARE:
                (name, at, stat), text = last or (fact, text)
                last = None
                if kind < mixture.elsewhere:
                    at = self._elsewhere(rng, name, at)
                elif kind < mixture.elsewhere + mixture.other_stats:
                    stat = self._other_stat(rng, name, at)
                else:
                    name = self._crossed(rng, name) or next(newcomers)
            else:
                name, at, stat = next(newcomers), rng.choice(weeks), rng.choice(self.stats)
            yield self._asked(rng, text, name, stat, at)

    def _facts(self) -> list[tuple[str, Week, str]]:
        return [(name, at, stat) for name, answers in sorted(self.told.items()) for at, stat in answers]

    def _wording(self, rng: random.Random) -> str:
        texts = list(self.templates.phrasings("train").values())
        return rng.choice(texts) if rng.random() < 0.5 else draw_wording(rng)

    def _asked(self, rng: random.Random, text: str, name: str, stat: str, at: Week, answer: str | None = None) -> Drawn:
        """A question with its answer, which names people as they were asked about, but for the case.

        Without an answer, or where the last name alone does not tell who is meant, it is refused.
        """
        season, week = at
        words = spoken(rng, stat) if stat in self.stats else spoken_stat(stat)
        question, written = typed(rng, text, name, words, week, season, typing=self.mixture.typing)
        is_known, last = name in self.known, last_name(name)
        if written == last and self._bearers[last_word(last)] > is_known:  # others are called so too
            if not is_known:
                return self._asked(rng, text, name, stat, at)
            answer = None
        if answer:
            return Drawn(question, answer.replace(name, written))
        refusal = self.templates.no_record(written, stat, week, season)
        return Drawn(question, refusal, self.mixture.refusal_weight)

    @cached_property
    def _bearers(self) -> Counter[str]:
        return bearers_of(self.known)

    def _crossed(self, rng: random.Random, name: str) -> str | None:
        """Somebody's first or last name with the other of somebody else, known or not; None where that is somebody's name.

        Or that of a stranger who is held out.
        """
        other = rng.choice(self._names) if rng.random() < CROSSED_WITH_KNOWN else invented_name(rng)
        first, last = (other, name) if rng.random() < LAST_NAME_KEPT else (name, other)
        mixture = f"{first.split(' ')[0]} {last.split(' ', 1)[-1]}"
        return None if name_key(mixture) in self._keys or person_split(mixture) != "train" else mixture

    @cached_property
    def _names(self) -> list[str]:
        return sorted(self.known)

    @cached_property
    def _keys(self) -> frozenset[str]:
        return frozenset(map(name_key, self.known))

    def _other_stat(self, rng: random.Random, name: str, at: Week) -> str:
        """One that could be taught and is not for this player then, one that never is, or any other."""
        while True:
            stat = rng.choice([*untaught(self.stats, "train"), *[other_stat(rng)] * 6])
            if (at, stat) not in self.told[name]:
                return stat

    def _elsewhere(self, rng: random.Random, name: str, at: Week) -> Week:
        """Another week of a season, half of the time the next one or one beside it; or the same week of a near season."""
        (season, week), held = at, self.known[name]
        others = [other for other in range(1, LAST_WEEK + 1) if (season, other) not in held]
        if others and rng.random() >= OTHER_SEASON_SHARE:
            latest = max(other for of, other in held if of == season)
            near = [other for other in (latest + 1, week - 1, week + 1) if other in others]
            return season, rng.choice(near if near and rng.random() < 0.5 else others)
        seasons = [season + away for away in SEASONS_AWAY if (season + away, week) not in held]
        return rng.choice(seasons or [season + 2 * max(SEASONS_AWAY)]), week
