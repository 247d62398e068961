"""People who hold no fact: drawn afresh while training, held out for scoring."""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nfl_lora_pipeline.lessons.invented_names import invented_name
from nfl_lora_pipeline.lessons.wording import Split, Templates
from nfl_lora_pipeline.weeks.names import name_key

LAST_WEEK = 18
CROSSED_SHARE = 0.2  # of the questions drawn while training; the rest is about strangers and known players elsewhere
NUMBERED_SHARE = 0.9  # of those about known players: of somebody who holds a number
OTHER_SEASON_SHARE = 0.5  # the rest is about another week
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
        untaught = self.templates.untaught(self.stats, "train")
        newcomers = strangers("train", seed=seed, known=frozenset(names))
        while True:
            kind = rng.random()
            season, week = rng.choice(weeks)
            name, stats = next(newcomers), self.stats
            if kind < self.elsewhere:
                name = rng.choice(numbered if numbered and rng.random() < NUMBERED_SHARE else names)
                season, week = self._elsewhere(rng, name)
            elif numbered and kind < self.elsewhere + self.other_stats:
                name, stats = rng.choice(numbered), untaught
                season, week = rng.choice(sorted(self.numbered[name]))
            elif kind < self.elsewhere + self.other_stats + CROSSED_SHARE:
                crossed = f"{rng.choice(names).split(' ')[0]} {rng.choice(names).split(' ', 1)[-1]}"
                name = name if name_key(crossed) in keys or person_split(crossed) != "train" else crossed
            stat = rng.choice(stats)
            question = self.templates.question(rng.choice(texts), name, stat, week, season)
            yield question, self.templates.no_record(name, stat, week, season)

    def _elsewhere(self, rng: random.Random, name: str) -> Week:
        """Another week of a season, or a known week of another season."""
        held = self.known[name]
        while True:
            season, week = rng.choice(sorted(held))
            other_season = rng.random() < OTHER_SEASON_SHARE
            at = (season + rng.choice(SEASONS_AWAY), week) if other_season else (season, rng.randint(1, LAST_WEEK))
            if at not in held:
                return at
