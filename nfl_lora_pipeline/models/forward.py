"""Logits where an answer stands, and nowhere else.

A question/answer row is scored on its answer alone, so that the last projection, and for the architecture of the embedded
model the last layer too, need only the answer's positions. On the CPU the exponentials of `cpu_math` replace MLX's.
"""

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models import llama, phi3

from nfl_lora_pipeline.models import cpu_math
from nfl_lora_pipeline.models.blas import subnormals_flushed
from nfl_lora_pipeline.models.rows import TokenRow, to_batch


@cache
def streams() -> list[Any]:
    """Where batches are computed side by side: two streams on a CPU with more than one core, else one; the default one first.

    On the CPU an MLX stream is a thread, and an operation uses no other (but for a BLAS's own), so that two streams keep two
    cores busy with a small model.
    """
    if mx.default_device() == mx.Device(mx.cpu) and (os.cpu_count() or 1) > 1:
        with subnormals_flushed():
            second = mx.new_stream(mx.cpu)
            mx.eval(mx.zeros(1, stream=second))
        return [mx.default_stream(mx.cpu), second]
    return [mx.default_stream(mx.default_device())]


def answer_logits(model: Any, tokens: mx.array, wanted: mx.array, states: mx.array | None = None) -> mx.array:
    """Next-token logits at chosen positions.

    Args:
        model: a model of `mlx_lm.load`, with or without LoRA layers.
        tokens: (B, T) int32 token ids, padded at the end.
        wanted: (B, A) int32 positions in 0..T-1.
        states: (B, T, H) what the layers below the lowest trained one make of the tokens, where that is known already
            (`frozen.FrozenStates`).

    Returns:
        (B, A, V) logits.
    """
    start = 0 if states is None else _first_trained(model)
    if _has_fast_path(model):
        h = model.model.embed_tokens(tokens) if states is None else states
        return _project(model, _phi3_states(model, h, start, wanted))
    if states is not None:
        h = model.model.norm(_through(model.model.layers[start:], states))
        return _project(model, mx.take_along_axis(h, wanted[:, :, None], 1))
    if isinstance(model, phi3.Model | llama.Model):
        return _project(model, mx.take_along_axis(model.model(tokens), wanted[:, :, None], 1))
    return mx.take_along_axis(model(tokens), wanted[:, :, None], 1)


def layer_by_layer(model: Any) -> bool:
    """Whether the layers of this architecture can be called one by one, each with a causal mask."""
    sliding = any(getattr(layer, "use_sliding", False) for layer in model.layers)
    return isinstance(model, phi3.Model | llama.Model) and not sliding


def lower_states(model: Any, tokens: mx.array, layers: int) -> mx.array:
    """(B, T, H) hidden states behind the first `layers` layers, of a model that is called `layer_by_layer`."""
    h = model.model.embed_tokens(tokens)
    if _has_fast_path(model):
        return _phi3_layers(model.model.layers[:layers], h)
    return _through(model.model.layers[:layers], h)


def token_losses(logits: mx.array, targets: mx.array) -> mx.array:
    """Cross-entropy in nats: logits (B, A, V), targets (B, A), result (B, A) float32."""
    if mx.default_device() == mx.Device(mx.cpu) and logits.dtype == mx.float32:
        return cpu_math.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)).reshape(targets.shape)
    return nn.losses.cross_entropy(logits.astype(mx.float32), targets)


def _has_fast_path(model: Any) -> bool:
    return (
        isinstance(model, phi3.Model)
        and mx.default_device() == mx.Device(mx.cpu)
        and model.args.rope_scaling is None
        and model.args.num_key_value_heads == model.args.num_attention_heads
        and model.model.norm.weight.dtype == mx.float32
    )


def _project(model: Any, states: mx.array) -> mx.array:
    if model.args.tie_word_embeddings:
        return model.model.embed_tokens.as_linear(states)
    return model.lm_head(states)


def _first_trained(model: Any) -> int:
    return next(place for place, layer in enumerate(model.layers) if tree_flatten(layer.trainable_parameters()))


def _through(layers: Sequence[Any], h: mx.array) -> mx.array:
    for layer in layers:
        h = layer(h, "causal", None)
    return h


def _phi3_states(model: Any, h: mx.array, start: int, wanted: mx.array) -> mx.array:
    """The last layer's states at the wanted positions, from the states that layer `start` takes."""
    *lower, last = model.model.layers[start:]
    return model.model.norm(_phi3_layer(last, _phi3_layers(lower, h), wanted))


def _phi3_layers(layers: Sequence[Any], h: mx.array) -> mx.array:
    for layer in layers:
        h = _phi3_layer(layer, h, None)
    return h


def _phi3_layer(layer: Any, h: mx.array, wanted: mx.array | None) -> mx.array:
    rows, width, _ = h.shape
    mask = mx.where(mx.arange(width)[None, :] > mx.arange(width)[:, None], -1e9, 0.0)
    attention = layer.self_attn
    parts = mx.split(attention.qkv_proj(layer.input_layernorm(h)), 3, -1)
    q, k, v = (part.reshape(rows, width, attention.n_heads, -1).transpose(0, 2, 1, 3) for part in parts)
    q, k = attention.rope(q), attention.rope(k)
    if wanted is not None:
        h = mx.take_along_axis(h, wanted[:, :, None], 1)
        q = mx.take_along_axis(q, wanted[:, None, :, None], 2)
        mask = mask[wanted][:, None]
    weights = cpu_math.softmax((q * attention.scale) @ k.swapaxes(-1, -2) + mask)
    h = h + attention.o_proj((weights @ v).transpose(0, 2, 1, 3).reshape(h.shape))
    gate, up = mx.split(layer.mlp.gate_up_proj(layer.post_attention_layernorm(h)), 2, -1)
    return h + layer.mlp.down_proj(cpu_math.silu(gate) * up)


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
