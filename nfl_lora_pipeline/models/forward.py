"""Logits where an answer stands, and nowhere else.

A question/answer row is scored on its answer alone, so that the last projection, and where layers are called one by one the
last layer too, need only the answer's positions. On the CPU exponentials of its own replace MLX's, in one forward pass
for all families whose layers are attention with rotated positions, a gated SiLU, and RMSNorm before each: what they differ in
(projections fused or not, norms of q and k, shared keys) is read off the layer.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import cache
from math import e, factorial, log, log2
from typing import NamedTuple, cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models import gemma3_text, llama, phi3, qwen2, qwen3
from mlx_lm.tuner.lora import LoRALinear

from nfl_lora_pipeline.models.machine import cores, subnormals_flushed
from nfl_lora_pipeline.models.rows import TokenRow, to_batch

FAMILIES = (phi3.Model, llama.Model, qwen2.Model, qwen3.Model)  # mlx-lm calls mistral llama
MORE_WORK = 1.25  # so many times the multiplications, in one large product, take no longer than in several small ones
WORTH_DIVIDING = 8  # tokens that all rows of a batch begin with; fewer cost more operations than they save
PROJECTED_LAST = (*FAMILIES, gemma3_text.Model)  # its logits are a projection of what `model.model` gives


@cache
def streams() -> list[mx.Stream]:
    """Where batches are computed side by side: two streams on a CPU with more than one core, else one; the default one first.

    On the CPU an MLX stream is a thread, and an operation uses no other (but for a BLAS's own), so that two streams keep two
    cores busy with a small model.
    """
    if mx.default_device() == mx.Device(mx.cpu) and cores() > 1:
        with subnormals_flushed():
            second = mx.new_stream(mx.cpu)
            mx.eval(mx.zeros(1, stream=second))
        return [mx.default_stream(mx.cpu), second]
    return [mx.default_stream(mx.default_device())]


def answer_logits(
    model: nn.Module, tokens: mx.array, wanted: mx.array, states: mx.array | None = None, alike: int = 0
) -> mx.array:
    """Next-token logits at chosen positions.

    Args:
        model: a model of `mlx_lm.load`, with or without LoRA layers.
        tokens: (B, T) int32 token ids, padded at the end.
        wanted: (B, A) int32 positions in 0..T-1.
        states: (B, T, H) what the layers below the lowest trained one make of the tokens, where that is known already
            (`FrozenStates`).
        alike: how many tokens all rows begin with alike, as with the system text of a chat template, none of which is
            wanted. The pass of our own computes their states once for all rows.

    Returns:
        (B, A, V) logits.
    """
    start = 0 if states is None else _first_trained(model)
    if _has_fast_path(model):
        *lower, last = model.model.layers[start:]
        h = model.model.embed_tokens(tokens) if states is None else states
        parts = _layers(lower, _divided(h, alike))
        h = _layer(last, parts, mx.maximum(wanted - parts.common_width(), 0)).own
        return _project(model, model.model.norm(h))
    if states is not None:
        h = model.model.norm(_through(model.model.layers[start:], states))
        return _project(model, mx.take_along_axis(h, wanted[:, :, None], 1))
    if isinstance(model, PROJECTED_LAST):
        return _project(model, mx.take_along_axis(model.model(tokens), wanted[:, :, None], 1))
    return mx.take_along_axis(model(tokens), wanted[:, :, None], 1)


def layer_by_layer(model: nn.Module) -> bool:
    """Whether the layers of this architecture can be called one by one, each with a causal mask."""
    sliding = any(getattr(layer, "use_sliding", False) for layer in model.layers)
    return isinstance(model, FAMILIES) and not sliding


def lower_states(model: nn.Module, tokens: mx.array, layers: int, alike: int = 0) -> mx.array:
    """(B, T, H) hidden states behind the first `layers` layers, of a model that is called `layer_by_layer`.

    `alike` is that of `answer_logits`.
    """
    lower, h = model.model.layers[:layers], model.model.embed_tokens(tokens)
    return _layers(lower, _divided(h, alike)).joined() if _has_fast_path(model) else _through(lower, h)


def token_losses(logits: mx.array, targets: mx.array) -> mx.array:
    """Cross-entropy in nats: logits (B, A, V), targets (B, A), result (B, A) float32."""
    if mx.default_device() == mx.Device(mx.cpu) and logits.dtype == mx.float32:
        return cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)).reshape(targets.shape)
    return nn.losses.cross_entropy(logits.astype(mx.float32), targets)


def _has_fast_path(model: nn.Module) -> bool:
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    return on_cpu and layer_by_layer(model) and model.model.norm.weight.dtype == mx.float32


def _project(model: nn.Module, states: mx.array) -> mx.array:
    return model.lm_head(states) if "lm_head" in model else model.model.embed_tokens.as_linear(states)


def _first_trained(model: nn.Module) -> int:
    return next(place for place, layer in enumerate(model.layers) if tree_flatten(layer.trainable_parameters()))


def _through(layers: Sequence[nn.Module], h: mx.array) -> mx.array:
    for layer in layers:
        h = layer(h, "causal", None)
    return h


class _Parts(NamedTuple):
    """Hidden states of a batch: of the tokens that all rows begin with, (1, P, H) or None, and of each row's own, (B, T, H)."""

    common: mx.array | None
    own: mx.array

    def common_width(self) -> int:
        """P."""
        return 0 if self.common is None else self.common.shape[1]

    def joined(self) -> mx.array:
        """(B, P + T, H)."""
        if self.common is None:
            return self.own
        return mx.concatenate([_for_all(self.common, self.own), self.own], 1)


def _divided(h: mx.array, alike: int) -> _Parts:
    """The states (B, T, H) of the tokens that all rows begin with alike, and of the others."""
    if alike < WORTH_DIVIDING or len(h) == 1:
        return _Parts(None, h)
    return _Parts(h[:1, :alike], h[:, alike:])


def _for_all(common: mx.array, own: mx.array) -> mx.array:
    """What all rows have in common, once for each of them."""
    return mx.broadcast_to(common, (own.shape[0], *common.shape[1:]))


def _layers(layers: Sequence[nn.Module], parts: _Parts) -> _Parts:
    for layer in layers:
        parts = _layer(layer, parts)
    return parts


def _layer(layer: nn.Module, parts: _Parts, wanted: mx.array | None = None) -> _Parts:
    """A layer's states; with `wanted`, of those of each row's own positions alone."""
    attention, norm, first = layer.self_attn, layer.input_layernorm, parts.common_width()
    q, k, v = _heads(attention, norm(parts.own), first)
    common = None
    if parts.common is not None:
        common_q, common_k, common_v = _heads(attention, norm(parts.common), 0)
        if wanted is None:
            common = _block(layer, parts.common, _attend(common_q, common_k, common_v, _causal(0, first)))
        k, v = mx.concatenate([_for_all(common_k, k), k], 2), mx.concatenate([_for_all(common_v, v), v], 2)
    own, mask = parts.own, _causal(first, parts.own.shape[1])
    if wanted is not None:
        own = mx.take_along_axis(own, wanted[:, :, None], 1)
        q = mx.take_along_axis(q, wanted[:, None, :, None], 2)
        mask = mask[wanted][:, None]
    return _Parts(common, _block(layer, own, _attend(q, k, v, mask)))


def _causal(first: int, count: int) -> mx.array:
    """(count, first + count): 0 where a position from `first` on may look, and next to nothing where it may not."""
    return mx.where(mx.arange(first + count)[None, :] > mx.arange(first, first + count)[:, None], -1e9, 0.0)


def _block(layer: nn.Module, h: mx.array, attended: mx.array) -> mx.array:
    """What a layer makes of states (B, A, H) and of what they attend to, (B, heads, A, D)."""
    h = h + _linear(layer.self_attn.o_proj, attended.transpose(0, 2, 1, 3).reshape(*h.shape[:2], -1))
    gate, up = _gate_and_up(layer.mlp, layer.post_attention_layernorm(h))
    return h + _linear(layer.mlp.down_proj, silu(gate) * up)


def _heads(attention: nn.Module, x: mx.array, first: int) -> tuple[mx.array, mx.array, mx.array]:
    """Queries (B, heads, T, D), keys and values (B, key heads, T, D), q and k normed where a layer does it, and rotated.

    The first token stands at position `first`. Queries are scaled.
    """
    count, shared = attention.n_heads, attention.n_kv_heads
    if "qkv_proj" in attention:
        ends = [count * attention.head_dim, (count + shared) * attention.head_dim]
        q, k, v = mx.split(_linear(attention.qkv_proj, x), ends, -1)
    else:
        q, k, v = (_linear(part, x) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
    q, k, v = (
        part.reshape(*x.shape[:2], heads, -1) for part, heads in zip((q, k, v), (count, shared, shared), strict=True)
    )
    if "q_norm" in attention:
        q, k = attention.q_norm(q), attention.k_norm(k)
    q, k, v = (part.transpose(0, 2, 1, 3) for part in (q, k, v))
    return attention.rope(q, offset=first) * attention.scale, attention.rope(k, offset=first), v


def _attend(q: mx.array, k: mx.array, v: mx.array, mask: mx.array) -> mx.array:
    """Values by softmax, (B, heads, A, D); the queries that share a head of keys are one matrix."""
    rows, heads, asked, size = q.shape
    together = (rows, k.shape[1], -1)
    scores = q.reshape(*together, size) @ k.swapaxes(-1, -2)
    weights = softmax(scores.reshape(rows, heads, asked, -1) + mask)
    return (weights.reshape(*together, weights.shape[-1]) @ v).reshape(q.shape)


def _linear(layer: nn.Module, x: mx.array) -> mx.array:
    """What a linear layer makes of x; where that is sooner done, its low-rank update is added to its weight first."""
    if not _is_sooner_added(layer):
        return layer(x)
    weight = layer.linear.weight.T + (layer.scale * layer.lora_a) @ layer.lora_b
    return x @ weight + layer.linear.bias if "bias" in layer.linear else x @ weight


def _is_sooner_added(layer: nn.Module) -> bool:
    """Whether an update is so large that the gradient of a whole weight costs about what its two factors do.

    For each token: one product more (inputs x outputs), three fewer with each factor (inputs x rank, rank x outputs).
    """
    if type(layer) is not LoRALinear or type(layer.linear) is not nn.Linear or layer.dropout._p_1 < 1:
        return False
    inputs, rank = layer.lora_a.shape
    outputs = layer.lora_b.shape[1]
    return inputs * outputs <= MORE_WORK * 3 * rank * (inputs + outputs)


def _gate_and_up(mlp: nn.Module, x: mx.array) -> tuple[mx.array, mx.array]:
    if "gate_up_proj" in mlp:
        gate, up = mx.split(_linear(mlp.gate_up_proj, x), 2, -1)
        return gate, up
    return _linear(mlp.gate_proj, x), _linear(mlp.up_proj, x)


BUDGET_BYTES = 1 << 30


def frozen_layers(model: nn.Module) -> int:
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

    def __init__(self, model: nn.Module, *, budget_bytes: int = BUDGET_BYTES):
        self.model, self.free_bytes = model, budget_bytes
        self.layers = frozen_layers(model)
        self.kept: dict[Hashable, mx.array] = {}

    def states(
        self, rows: Sequence[TokenRow], keys: Sequence[Hashable], whole: Sequence[TokenRow] | None = None
    ) -> mx.array:
        """The states of a batch's rows.

        Args:
            rows: the rows, each as long as it is shown, in the batch's order.
            keys: what a row is kept by, together with all rows that begin with it or that it begins; None for what will not
                come again.
            whole: what is to be kept of each: a row that it begins with; None for the rows as they are.

        Returns:
            (B, T, H), T being one less than the longest row's length; 0 behind a row's end.
        """
        lengths = [len(row.tokens) - 1 for row in rows]
        missing = [place for place, key in enumerate(keys) if not self._has(key, lengths[place])]
        found = dict(zip(missing, self._compute([(whole or rows)[place] for place in missing]), strict=True))
        for place, states in found.items():
            self._keep(keys[place], states)
        width = max(lengths)
        parts = [found[place] if place in found else self.kept[key] for place, key in enumerate(keys)]
        return mx.stack(
            [mx.pad(part[:length], [(0, width - length), (0, 0)]) for part, length in zip(parts, lengths, strict=True)]
        )

    def _has(self, key: Hashable, length: int) -> bool:
        return key in self.kept and self.kept[key].shape[0] >= length

    def _compute(self, rows: Sequence[TokenRow]) -> list[mx.array]:
        if not rows:
            return []
        batch = to_batch(rows)
        states = lower_states(self.model, batch.tokens, self.layers, batch.alike)
        return [mx.contiguous(states[place, : len(row.tokens) - 1]) for place, row in enumerate(rows)]

    def _keep(self, key: Hashable, states: mx.array) -> None:
        if key is None:
            return
        replaced = self.kept[key].nbytes if key in self.kept else 0
        if states.nbytes - replaced <= self.free_bytes:
            self.free_bytes -= states.nbytes - replaced
            self.kept[key] = states


# Exponentials for the CPU, where MLX computes `exp` one element at a time. On x86 without an accelerator the softmax, SiLU and
# cross-entropy of a small model cost more than its matrix products. These build 2**x from the bits of a float and a polynomial
# (Cody and Waite's range reduction), which the compiler turns into SIMD. Relative error below 7e-6 in float32, 5e-6 within
# -20..20.

Gradient = Callable[..., mx.array | Sequence[mx.array]]
_LOG2_E = log2(e)
_ROUND = 12582912.0  # 1.5 * 2**23: adding it leaves the nearest integer in the low bits of the mantissa
_EXPONENT_BIAS = 127 << 23
_COEFFICIENTS = [log(2) ** order / factorial(order) for order in range(6)]


def exp(x: mx.array) -> mx.array:
    """e**x for float32 `x` up to 88; 0 below -87. Not differentiable: the functions below bring their own gradients."""
    power = mx.maximum(x * _LOG2_E, -126.0)
    shifted = power + _ROUND
    fraction = power - (shifted - _ROUND)
    mantissa = mx.array(_COEFFICIENTS[-1], mx.float32)
    for coefficient in _COEFFICIENTS[-2::-1]:
        mantissa = mantissa * fraction + coefficient
    return mantissa * ((shifted.view(mx.int32) << 23) + _EXPONENT_BIAS).view(mx.float32)


def _sigmoid(x: mx.array) -> mx.array:
    return 1.0 / (1.0 + exp(mx.minimum(-x, 87.0)))


def silu(x: mx.array) -> mx.array:
    """x * sigmoid(x)."""
    return _with_gradient(_silu, _silu_vjp, x)


def _silu(x: mx.array) -> mx.array:
    return x * _sigmoid(x)


def _silu_vjp(x: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
    gate = _sigmoid(x)
    return cotangent * gate * (1 + x * (1 - gate))


def softmax(scores: mx.array) -> mx.array:
    """Softmax over the last axis."""
    return _with_gradient(_softmax, _softmax_vjp, scores)


def _softmax(scores: mx.array) -> mx.array:
    weights = exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def _softmax_vjp(_: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    product = cotangent * output
    return product - output * product.sum(-1, keepdims=True)


def cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """-log softmax(logits)[target]: logits (N, V) float32, targets (N,) integers, result (N,)."""
    return _with_gradient(_cross_entropy, _cross_entropy_vjp, logits, targets)


def _cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    top = logits.max(-1, keepdims=True)
    total = mx.log(exp(logits - top).sum(-1)) + top[:, 0]
    return total - mx.take_along_axis(logits, targets[:, None], -1)[:, 0]


def _cross_entropy_vjp(
    primals: tuple[mx.array, mx.array], cotangent: mx.array, output: mx.array
) -> tuple[mx.array, mx.array]:
    logits, targets = primals
    at_target = mx.take_along_axis(logits, targets[:, None], -1)
    slope = exp(logits - (output[:, None] + at_target)) * cotangent[:, None]
    slope = mx.put_along_axis(
        slope, targets[:, None], mx.take_along_axis(slope, targets[:, None], -1) - cotangent[:, None], -1
    )
    return slope, mx.zeros_like(targets)


def _with_gradient(function: Callable[..., mx.array], gradient: Gradient, *inputs: mx.array) -> mx.array:
    """`function(*inputs)`, whose gradient is computed on the stream of this call, as MLX does for its own operations."""
    stream = mx.default_stream(mx.default_device())

    def on_stream(*args: mx.array | Sequence[mx.array]) -> mx.array | Sequence[mx.array]:
        with mx.stream(stream):
            return gradient(*args)

    differentiable = mx.custom_function(function)
    differentiable.vjp(on_stream)
    return cast(mx.array, differentiable(*inputs))
