"""A moving average of what is trained: what a step on one row takes from another, the average mostly keeps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

Weights = list[tuple[str, mx.array]]


class MovingAverage:
    """The average of a model's trainable parameters; `keeps` of it stay at a step, and less while it is young."""

    def __init__(self, model: Any, *, keeps: float):
        self.model, self.keeps = model, keeps
        self.weights: Weights = tree_flatten(model.trainable_parameters())

    def update(self, step: int) -> None:
        """Take in the parameters as they are after step `step` (from 0)."""
        stays = min(self.keeps, step / (step + 10))
        now = tree_flatten(self.model.trainable_parameters())
        self.weights = [
            (name, stays * old + (1 - stays) * new) for (name, old), (_, new) in zip(self.weights, now, strict=True)
        ]
        mx.eval(self.weights)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the average in the block, and what is trained again after it."""
        trained = tree_flatten(self.model.trainable_parameters())
        self.model.load_weights(self.weights, strict=False)
        try:
            yield
        finally:
            self.model.load_weights(trained, strict=False)
