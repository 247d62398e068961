"""Questions without an answer for the steps of a training: those that were given a number, then ones never asked."""

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

from nfl_lora_pipeline.models.blas import load_fast_blas

load_fast_blas()

import numpy as np  # noqa: E402

from nfl_lora_pipeline.models.evaluation import certainty  # noqa: E402
from nfl_lora_pipeline.models.rows import TokenRow, tokenize  # noqa: E402

PROBES = 3  # asked at a check, for each step from one check to the next
AGAIN = 16  # steps: how often one that was given a number is shown
HARD_SHARE = 0.75  # of the places, for these at most


class Refusals:
    """Draws from an endless source.

    Most of what is drawn is refused anyway and teaches nothing; to ask costs a third of a training step, so that it pays to
    ask first and to train on those that failed. Asked is what `shorten` leaves of a row.
    """

    def __init__(
        self,
        source: Iterator[tuple[str, str]],
        tokenizer: Any,
        rng: random.Random,
        *,
        shorten: Callable[[TokenRow], TokenRow],
    ):
        self.source, self.tokenizer, self.rng, self.shorten = source, tokenizer, rng, shorten
        self.drawn = 0
        self.hard: list[tuple[TokenRow, int]] = []

    def probe(self, model: Any, steps: int) -> float:
        """Ask about some never asked before, enough for so many steps; the share that is refused."""
        rows = self._draw(PROBES * steps)
        asked = certainty(model, [self.shorten(row) for row in rows])
        found = zip(rows, asked.doubtful_until.tolist(), asked.greedy, strict=True)
        self.hard = max(1, round(steps / AGAIN)) * [(row, until) for row, until, right in found if not right]
        self.rng.shuffle(self.hard)
        return float(np.mean(asked.greedy)) if rows else 1.0

    def take(self, count: int) -> list[tuple[TokenRow, int]]:
        """So many rows to train on, each with how many answer tokens there are up to its last doubtful one; 0 if not asked."""
        hard = min(len(self.hard), round(HARD_SHARE * count))
        taken, self.hard = self.hard[:hard], self.hard[hard:]
        return taken + [(row, 0) for row in self._draw(count - hard)]

    def state(self) -> dict[str, Any]:
        """For a checkpoint, JSON-able."""
        return {"drawn": self.drawn, "hard": [[row.tokens, row.start, until] for row, until in self.hard]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken, behind all that had been drawn from the source."""
        self.drawn += sum(1 for _ in itertools.islice(self.source, state["drawn"]))
        self.hard = [(TokenRow(tokens, start), until) for tokens, start, until in state["hard"]]

    def _draw(self, count: int) -> list[TokenRow]:
        rows = tokenize(self.tokenizer, itertools.islice(self.source, count))
        self.drawn += len(rows)
        return rows
