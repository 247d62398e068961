"""Which rows a training step sees. No data of its own: it works on any lessons.

Facts in doubt, each in one of its doubtful phrasings; safe ones in turn, so that none is lost; questions without an answer.
"""

import math
import random
from typing import Any

from nfl_lora_pipeline.models.blas import load_fast_blas

load_fast_blas()

import numpy as np  # noqa: E402

from nfl_lora_pipeline.models.rows import TokenRow  # noqa: E402
from nfl_lora_pipeline.tuning.knowledge import SAFE, Knowledge  # noqa: E402
from nfl_lora_pipeline.tuning.recipe import Recipe  # noqa: E402
from nfl_lora_pipeline.tuning.refusals import Refusals  # noqa: E402

IN_HAND = 1000  # facts worked on at a time: what comes round too seldom is forgotten before it is learnt
STUBBORN = 0.05  # the share of facts that are not certain: where it is less, these are shown twice in a pass
REPLAY = 0.25  # safe facts shown for each doubtful one
LEAST_REPLAY = 12  # safe facts shown between two looks at a doubtful one, where there are that many
SAMPLE = 300  # rows of safe facts that are asked about at a check
SAMPLE_SHARE = 0.4  # of them, at most
LATE_SAMPLE, LATE_SHARE = 500, 0.15  # rows, or that share of them where it is more, towards the end
LEAST_SURE = 0.5  # of these rows: the ones that were least sure when last asked; the others by chance
REST = 0.85  # of the places for what teaches: what is left of them when all of it is known
FEW = 3  # times the share that is not known: how the places go back
SAFE_PEOPLE = 6  # of the places that are left, one in so many is for somebody without a record who is refused already
WHOLE_EVERY = 8  # steps: in the others, answers end at their last doubtful token


class Selection:
    """Takes rows for one step after another.

    Attributes:
        shown: (N,) int32, how often each row was shown.
        waiting: indices of rows that the next steps will show.
    """

    def __init__(self, knowledge: Knowledge, refusals: Refusals, rng: random.Random, recipe: Recipe):
        self.knowledge, self.refusals, self.rng, self.recipe = knowledge, refusals, rng, recipe
        self.shown = np.zeros(len(knowledge.rows), np.int32)
        self.waiting: list[int] = []

    def take(self, step: int, count: int) -> tuple[list[TokenRow], list[int | None]]:
        """So many rows for a step: some that teach, some people without a record, some questions without an answer.

        With them their indices; None for those that are none of the lessons'.
        """
        most = count * (1 - self.recipe.refusal_share)
        teaching = max(1, round(most * min(1.0, REST + (1 - REST) * FEW * self.knowledge.unknown_share())))
        while len(self.waiting) < teaching:
            self.waiting = self._next_pass() + self.waiting
        self.waiting, taken = self.waiting[:-teaching], self.waiting[-teaching:]
        known = taken + self._some_refusing(count - teaching)
        rows = [(self.knowledge.rows[index], int(self.knowledge.until[index])) for index in known]
        rows += self.refusals.take(count - len(known))
        whole = step % WHOLE_EVERY == 0
        keys = [*known, *[None] * (len(rows) - len(known))]
        return [row if whole else self.knowledge.shortened(row, until) for row, until in rows], keys

    def in_hand(self) -> list[int]:
        """The facts to work on: all that are nearly safe, and the first so many of those that are not certain."""
        doubtful = self.knowledge.doubtful(taught=True)
        uncertain = self.knowledge.uncertain()[doubtful]
        return doubtful[uncertain][:IN_HAND].tolist() + doubtful[~uncertain].tolist()

    def some_safe_rows(self, *, late: bool) -> list[int]:
        """Some of what is thought to be known; towards the end more of it."""
        rows = self.knowledge.safe_rows()
        count = math.ceil(max(LATE_SAMPLE, LATE_SHARE * len(rows)) if late else min(SAMPLE, SAMPLE_SHARE * len(rows)))
        rows.sort(key=lambda index: (self.knowledge.lowest[index], index))
        least_sure, others = rows[: int(LEAST_SURE * count)], rows[int(LEAST_SURE * count) :]
        return least_sure + self.rng.sample(others, min(count - len(least_sure), len(others)))

    def look_again(self) -> None:
        """Choose anew what comes next, since other facts are in doubt now; but an epoch over every row goes to its end."""
        if not self.recipe.every_row:
            self.waiting = []

    def state(self) -> dict[str, Any]:
        """For a checkpoint, JSON-able."""
        return {"waiting": self.waiting, "shown": self.shown.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken."""
        self.waiting, self.shown = state["waiting"], np.array(state["shown"], np.int32)

    def _next_pass(self) -> list[int]:
        """A row of each doubtful fact in hand, two of stubborn ones, some of safe ones; or every row there is. Shuffled."""
        if self.recipe.every_row:
            self.shown += 1
            return self.rng.sample(range(len(self.shown)), len(self.shown))
        doubtful, safe = self.in_hand(), self.knowledge.safe(taught=True).tolist()
        replayed = min(len(safe), math.ceil(max(REPLAY * len(doubtful), LEAST_REPLAY)))
        rows = [
            self._next_phrasing(fact) for fact in doubtful + self._stubborn() + self._longest_not_shown(safe, replayed)
        ]
        self.rng.shuffle(rows)
        return rows

    def _stubborn(self) -> list[int]:
        """The facts that are taught and not certain, once they are few."""
        if self.knowledge.unknown_share() >= STUBBORN:
            return []
        return np.flatnonzero(self.knowledge.uncertain() & self.knowledge.taught).tolist()

    def _some_refusing(self, count: int) -> list[int]:
        """People without a record: the doubtful ones in up to half of the places, others in some."""
        doubtful = self.knowledge.doubtful(taught=False).tolist()
        safe = self.knowledge.safe(taught=False).tolist()
        facts = self.rng.sample(doubtful, min(len(doubtful), math.ceil(count / 2)))
        left = count - len(facts)
        facts += self._longest_not_shown(safe, min(len(safe), math.ceil(left / SAFE_PEOPLE)))
        return [self._next_phrasing(fact) for fact in facts]

    def _longest_not_shown(self, facts: list[int], count: int) -> list[int]:
        """The facts shown least, so that none is lost; which of those that are even, by chance."""
        times = [int(self.shown[self.knowledge.of_fact[fact]].sum()) for fact in facts]
        order = sorted(zip(times, (self.rng.random() for _ in facts), facts, strict=True))
        return [fact for _, _, fact in order[:count]]

    def _next_phrasing(self, fact: int) -> int:
        """The doubtful phrasing of a fact, or of a safe one any, that was shown least."""
        indices = self.knowledge.of_fact[fact].tolist()
        doubtful = [index for index in indices if self.knowledge.lowest[index] < SAFE] or indices
        index: int = min(doubtful, key=lambda index: (self.shown[index], self.rng.random()))
        self.shown[index] += 1
        return index
