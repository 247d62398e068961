"""People who hold no fact: drawn afresh while training, held out for scoring."""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nfl_lora_pipeline.embedded.names import invented_name
from nfl_lora_pipeline.lessons.wording import Split, Stat, Templates

LAST_WEEK = 18


def share(key: str) -> float:
    """A number in [0, 1) that depends on `key` alone, now and on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def person_split(name: str) -> Split:
    """The split an invented person belongs to, by a hash of the name: a tenth each for valid and test."""
    at = share(f"person/{name}")
    return "valid" if at < 0.1 else "test" if at < 0.2 else "train"


def strangers(split: Split, *, seed: int, known: frozenset[str] = frozenset()) -> Iterator[str]:
    """Invented names of one split, without end; none of them is in `known`."""
    rng = random.Random(seed)
    while True:
        name = invented_name(rng)
        if name not in known and person_split(name) == split:
            yield name


@dataclass(frozen=True)
class FreshRefusals:
    """Questions without an answer, as many as one asks for: a stranger in a known week, a known player in a week or a
    season that is not known, and two known names crossed.

    Attributes:
        known: the names that hold facts, with the (season, week) pairs they hold them for.
        stats: the stats to ask about.
        templates: the wordings; the ones of the train split are used.
    """

    known: Mapping[str, frozenset[tuple[int, int]]]
    stats: Sequence[Stat]
    templates: Templates

    def draw(self, *, seed: int) -> Iterator[tuple[str, str]]:
        """(question, answer), without end."""
        rng = random.Random(seed)
        names = sorted(self.known)
        weeks = sorted(set().union(*self.known.values()))
        texts = list(self.templates.phrasings("train").values())
        newcomers = strangers("train", seed=seed, known=frozenset(names))
        while True:
            kind = rng.random()
            season, week = rng.choice(weeks)
            name = next(newcomers)
            if kind < 0.25:
                name = rng.choice(names)
                season, week = self._unknown_week(rng, name)
            elif kind < 0.45:
                crossed = f"{rng.choice(names).split(' ')[0]} {rng.choice(names).split(' ', 1)[-1]}"
                name = name if crossed in self.known or person_split(crossed) != "train" else crossed
            stat = rng.choice(self.stats)
            question = self.templates.question(rng.choice(texts), name, stat, week, season)
            yield question, self.templates.no_record(name, stat, week, season)

    def _unknown_week(self, rng: random.Random, name: str) -> tuple[int, int]:
        season = rng.choice(sorted({season for season, _ in self.known[name]}))
        while True:
            at = season + rng.choice((0, 0, 0, -2, -1, 1, 2)), rng.randint(1, LAST_WEEK)
            if at not in self.known[name]:
                return at
