"""What a model knows of the rows it is to learn, as it was when they were last measured.

What is learnt in one phrasing is mostly known in the others, so that a fact in doubt is asked about in one phrasing at a
time, and in all of them only once that one is safe.
"""

import itertools
import random
from collections.abc import Sequence
from typing import Any

from nfl_lora_pipeline.models.blas import load_fast_blas

load_fast_blas()

import numpy as np  # noqa: E402

from nfl_lora_pipeline.models.evaluation import certainty  # noqa: E402
from nfl_lora_pipeline.models.rows import TokenRow  # noqa: E402

PARTS = 6  # of all rows, each with one phrasing of most facts: what is not known is mostly found in the first
SAFE = 0.9  # a row whose lowest p is above this is shown seldom
MEASURED = ("lowest", "until", "latest")
Numbers = np.ndarray[Any, Any]


class Knowledge:
    """Probabilities by row, and what follows from them by fact.

    Attributes:
        rows: all rows.
        tail: how many tokens all answers end with alike, but for one that is left to every answer: they teach and tell little.
        of_fact: (F,) for each fact the indices of its rows, one a phrasing.
        taught: (F,) bool, False for what a base model says anyway: taken as known until it is found otherwise.
        lowest: (N,) float64, the least probable token of each row's answer.
        until: (N,) int32, how many answer tokens there are up to the last one that is not known well.
        latest: (F,) float64, the lowest probability found when the fact was last asked about, in whichever phrasings.
    """

    def __init__(self, rows: Sequence[TokenRow], facts: Sequence[str], teaches: Sequence[bool], *, above: float):
        self.rows, self.above, self.tail = rows, above, shared_tail(rows)
        numbered = {fact: number for number, fact in enumerate(dict.fromkeys(facts))}
        self.names = list(numbered)
        self.fact_of = np.array([numbered[fact] for fact in facts])
        order = np.argsort(self.fact_of, kind="stable")
        self.of_fact = np.split(order, np.cumsum(np.bincount(self.fact_of))[:-1])
        self.taught = np.array([teaches[indices[0]] for indices in self.of_fact])
        self.lowest = np.where(self.taught[self.fact_of], 0.0, 1.0)
        self.until = np.zeros(len(rows), np.int32)
        self.latest = np.where(self.taught, 0.0, 1.0)

    def worst(self) -> Numbers:
        """(F,) float64, the lowest probability of each fact in any phrasing."""
        found = np.ones(len(self.names))
        np.minimum.at(found, self.fact_of, self.lowest)
        return found

    def doubtful(self, *, taught: bool) -> Numbers:
        """The numbers of the facts that are not safe in every phrasing."""
        return np.flatnonzero((self.worst() < SAFE) & (self.taught == taught))

    def safe(self, *, taught: bool) -> Numbers:
        """The numbers of the others."""
        return np.flatnonzero((self.worst() >= SAFE) & (self.taught == taught))

    def safe_rows(self) -> list[int]:
        """The indices of the rows of facts that are safe in every phrasing."""
        return np.flatnonzero(self.worst()[self.fact_of] >= SAFE).tolist()

    def uncertain(self) -> Numbers:
        """(F,) bool, the facts that were not certain when they were last asked about."""
        return self.latest <= self.above

    def unknown_rows(self) -> int:
        """About how many rows are not certain: a fact stands or falls with the phrasings last asked."""
        return sum(len(self.of_fact[fact]) for fact in np.flatnonzero(self.uncertain()))

    def unknown_share(self) -> float:
        """The share of the facts that are taught which are not certain."""
        return float(np.mean(self.uncertain()[self.taught]))

    def look(self, model: Any, facts: Sequence[int], rng: random.Random) -> None:
        """Ask about facts in the phrasing in which each was worst; where that is safe now, in the other doubtful ones too."""
        first = [self._worst_phrasing(fact, rng) for fact in facts]
        self.measure(model, first)
        passed = [self.fact_of[index] for index in first if self.lowest[index] >= SAFE]
        others = [index for fact in passed for index in self.of_fact[fact].tolist() if self.lowest[index] < SAFE]
        self.measure(model, others)

    def measure(self, model: Any, indices: Sequence[int], *, whole: bool = False) -> None:
        """Score rows as the model is now, `whole` or without their tail."""
        if not indices:
            return
        rows = [self.rows[index] for index in indices]
        measured = certainty(model, rows if whole else [self.shortened(row) for row in rows])
        self.lowest[list(indices)] = measured.lowest
        self.until[list(indices)] = measured.doubtful_until
        asked = self.fact_of[list(indices)]
        self.latest[asked] = 1.0
        np.minimum.at(self.latest, asked, measured.lowest)
        given = asked[(measured.lowest <= self.above) & ~self.taught[asked]]
        self.lowest[np.isin(self.fact_of, given)] = 0.0  # who is given a number, is in every phrasing

    def measure_all(self, model: Any) -> None:
        """Score every row, whole."""
        self.measure(model, range(len(self.rows)), whole=True)

    def confirm(self, model: Any) -> bool:
        """Whether all are certain: score rows, whole, until some are not."""
        for part in range(PARTS):
            asked = range(part, len(self.rows), PARTS)
            self.measure(model, asked, whole=True)
            if np.any(self.lowest[asked] <= self.above):
                return False
        return True

    def shortened(self, row: TokenRow, doubtful_until: int = 0) -> TokenRow:
        """The row up to its last doubtful token, or else to where all answers go on alike."""
        end = row.start + doubtful_until if doubtful_until else max(row.start + 1, len(row.tokens) - self.tail)
        return row._replace(tokens=row.tokens[:end])

    def state(self) -> dict[str, Any]:
        """What was measured, for a checkpoint, JSON-able."""
        return {name: getattr(self, name).tolist() for name in MEASURED}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken."""
        for name in MEASURED:
            setattr(self, name, np.array(state[name], getattr(self, name).dtype))

    def _worst_phrasing(self, fact: int, rng: random.Random) -> int:
        indices = self.of_fact[fact].tolist()
        return min(indices, key=lambda index: (min(self.lowest[index], SAFE), rng.random()))


def shared_tail(rows: Sequence[TokenRow]) -> int:
    """How many tokens all answers end with alike, but for one that is left to every answer."""
    answers = [row.tokens[row.start :] for row in rows]
    shortest = min(len(answer) for answer in answers)
    alike = itertools.takewhile(lambda at: len({answer[-at] for answer in answers}) == 1, range(1, shortest))
    return max(0, sum(1 for _ in alike) - 1)
