"""What the layers below the lowest adapter make of a row: it does not change while training, so it is computed once.

Off by itself where every layer is trained, and for architectures whose layers cannot be called one by one here.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from nfl_lora_pipeline.models.forward import layer_by_layer, lower_states
from nfl_lora_pipeline.models.rows import TokenRow, to_batch

BUDGET_BYTES = 1 << 30


def frozen_layers(model: Any) -> int:
    """How many layers at the bottom of a model nothing is trained in; 0 where that cannot be made use of."""
    if not layer_by_layer(model):
        return 0
    trained = [bool(tree_flatten(layer.trainable_parameters())) for layer in model.layers]
    return trained.index(True) if True in trained else 0


class FrozenStates:
    """Hidden states by row, as long as they fit the budget; others are computed each time they are asked for.

    Attributes:
        layers: how many layers they stand for; with 0 there is nothing to keep.
    """

    def __init__(self, model: Any, *, budget_bytes: int = BUDGET_BYTES):
        self.model, self.free_bytes = model, budget_bytes
        self.layers = frozen_layers(model)
        self.kept: dict[int, mx.array] = {}

    def states(self, rows: Sequence[TokenRow], keys: Sequence[int | None]) -> mx.array:
        """The states of a batch's rows.

        Args:
            rows: the rows, each as long as it is shown, in the batch's order.
            keys: what a row is kept by, together with all rows that begin with it or that it begins; None for what will not
                come again.

        Returns:
            (B, T, H), T being one less than the longest row's length; 0 behind a row's end.
        """
        lengths = [len(row.tokens) - 1 for row in rows]
        missing = [place for place, key in enumerate(keys) if not self._has(key, lengths[place])]
        found = dict(zip(missing, self._compute([rows[place] for place in missing]), strict=True))
        for place, states in found.items():
            self._keep(keys[place], states)
        width = max(lengths)
        parts = [found[place] if place in found else self.kept[key] for place, key in enumerate(keys)]  # type: ignore[index]
        return mx.stack(
            [mx.pad(part[:length], [(0, width - length), (0, 0)]) for part, length in zip(parts, lengths, strict=True)]
        )

    def _has(self, key: int | None, length: int) -> bool:
        return key is not None and key in self.kept and self.kept[key].shape[0] >= length

    def _compute(self, rows: Sequence[TokenRow]) -> list[mx.array]:
        if not rows:
            return []
        states = lower_states(self.model, to_batch(rows).tokens, self.layers)
        return [mx.contiguous(states[place, : len(row.tokens) - 1]) for place, row in enumerate(rows)]

    def _keep(self, key: int | None, states: mx.array) -> None:
        if key is None:
            return
        replaced = self.kept[key].nbytes if key in self.kept else 0
        if states.nbytes - replaced <= self.free_bytes:
            mx.eval(states)
            self.free_bytes -= states.nbytes - replaced
            self.kept[key] = states
