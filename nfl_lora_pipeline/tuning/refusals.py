"""Questions without an answer for the steps of a training, none of them twice, and how many of them are refused."""

import itertools
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from nfl_lora_pipeline.models.rows import TokenRow, tokenize

REMEMBERED = 200  # of the last ones, whether they were refused


class Refusals:
    """Draws from an endless source.

    Attributes:
        drawn: how many were.
        refused: of the last ones shown, whether the model refused them before it was trained on them.
    """

    def __init__(self, source: Iterator[tuple[str, str]], tokenizer: Any):
        self.source, self.tokenizer, self.drawn = source, tokenizer, 0
        self.refused: deque[bool] = deque(maxlen=REMEMBERED)

    def take(self, count: int) -> list[TokenRow]:
        """So many that were never shown before."""
        rows = tokenize(self.tokenizer, itertools.islice(self.source, count))
        self.drawn += len(rows)
        return rows

    def observe(self, refused: "np.ndarray[Any, Any]") -> None:
        """Take in whether those that were taken last are refused, one bool each."""
        self.refused.extend(refused.tolist())

    def refused_share(self) -> float:
        """Of the last ones shown."""
        return float(np.mean(self.refused)) if self.refused else 1.0

    def state(self) -> dict[str, Any]:
        """For a checkpoint, JSON-able."""
        return {"drawn": self.drawn, "refused": list(self.refused)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken, behind all that had been drawn from the source."""
        self.drawn += sum(1 for _ in itertools.islice(self.source, state["drawn"]))
        self.refused.extend(state["refused"])
