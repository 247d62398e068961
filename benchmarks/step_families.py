"""The operations of a training step by family, each alone at the step's shapes, forward and backward.

For the architecture of the embedded base (Phi-3), on which the trainer has a path of its own: the last layer works where an
answer stands only.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx

from benchmarks.step_products import Product, Shape, outputs_of, products
from nfl_lora_pipeline.models import forward
from nfl_lora_pipeline.models.forward import token_losses
from nfl_lora_pipeline.models.rows import Batch

PRODUCTS = "matrix products"


class Part(NamedTuple):
    """A function to differentiate, what it is given, and the gradient that comes back to it."""

    function: Callable[..., mx.array]
    inputs: list[mx.array]
    cotangent: mx.array

    def build(self) -> list[mx.array]:
        """The function's value and its gradients, not yet computed."""
        values, gradients = mx.vjp(self.function, self.inputs, [self.cotangent])
        return [*values, *gradients]


def families(model: Any, batch: Batch) -> dict[str, Callable[[], list[mx.array]]]:
    """What builds the operations of each family for a batch; its inputs are there already."""
    shape, needed = Shape.of(model, batch), products(model, batch)
    pairs = _pairs(needed)
    found: dict[str, Callable[[], list[mx.array]]] = {
        PRODUCTS: lambda: [mx.matmul(*pairs[product]) for product in needed]
    }
    for name, parts in _parts(model, shape, batch).items():
        found[name] = lambda parts=parts: [output for part in parts for output in part.build()]  # type: ignore[misc]
    return found


def _pairs(needed: list[Product]) -> dict[Product, tuple[mx.array, mx.array]]:
    """What is multiplied, all from the same memory: in the step it has just been made, and lies in a cache."""
    noise = _noise(max(many * inner * max(rows, columns) for many, rows, inner, columns in needed))
    pairs = {
        (many, rows, inner, columns): (
            noise[: many * rows * inner].reshape(many, rows, inner),
            noise[: many * inner * columns].reshape(many, inner, columns),
        )
        for many, rows, inner, columns in set(needed)
    }
    mx.eval(list(pairs.values()))
    return pairs


def _parts(model: Any, shape: Shape, batch: Batch) -> dict[str, list[Part]]:
    rows, heads, each, layers = shape.rows, shape.heads, shape.hidden // shape.heads, model.layers
    wide = [shape.wide(number) for number in range(shape.layers)]
    norms = [(layer.input_layernorm, shape.tokens) for layer in layers]
    norms += [(layer.post_attention_layernorm, width) for layer, width in zip(layers, wide, strict=True)]
    norms.append((model.model.norm, shape.answers))
    linears = [(layer.self_attn.qkv_proj, shape.tokens) for layer in layers]
    for layer, width in zip(layers, wide, strict=True):
        linears += [(layer.self_attn.o_proj, width), (layer.mlp.gate_up_proj, width), (layer.mlp.down_proj, width)]
    mask = mx.zeros((shape.tokens, shape.tokens))
    scores = [_noise(rows, heads, width, shape.tokens) for width in wide]
    return {
        "softmax": [_part(forward.softmax, array) for array in scores],
        "SiLU and gate": [
            _part(lambda gate, up: forward.silu(gate) * up, *(_noise(rows, width, shape.inner) for _ in range(2)))
            for width in wide
        ],
        "cross-entropy": [
            _part(lambda logits: token_losses(logits, batch.targets), _noise(rows, shape.answers, shape.vocabulary))
        ],
        "RMS norm": [_part(norm, _noise(rows, width, shape.hidden)) for norm, width in norms],
        "rotary positions": [
            _part(layer.self_attn.rope, _noise(rows, heads, shape.tokens, each)) for layer in layers for _ in range(2)
        ],
        "scale and mask of scores": [
            *(_part(lambda q: q * 0.5, _noise(rows, heads, shape.tokens, each)) for _ in layers),
            *(
                _part(lambda array, width=width: array + mask[:width], array)
                for array, width in zip(scores, wide, strict=True)
            ),
        ],
        "sums: LoRA and residuals": [
            *(
                _part(lambda base, delta: base + 4.0 * delta, *_outputs(linear, rows, width))
                for linear, width in linears
            ),
            *(_part(mx.add, *(_noise(rows, width, shape.hidden) for _ in range(2))) for width in [*wide, *wide]),
        ],
        "splitting and joining heads": [
            *(
                _part(lambda qkv: _split_heads(qkv, heads), _noise(rows, shape.tokens, 3 * shape.hidden))
                for _ in layers
            ),
            *(_part(_join_heads, _noise(rows, heads, width, each)) for width in wide),
        ],
    }


def _part(function: Callable[..., mx.array], *inputs: mx.array) -> Part:
    cotangent = mx.ones_like(function(*inputs))
    mx.eval(inputs, cotangent)
    return Part(function, list(inputs), cotangent)


def _noise(*shape: int) -> mx.array:
    array = mx.random.normal(shape)
    mx.eval(array)
    return array


def _outputs(linear: Any, rows: int, width: int) -> list[mx.array]:
    return [_noise(rows, width, outputs_of(linear)) for _ in range(2)]


def _split_heads(qkv: mx.array, heads: int) -> mx.array:
    rows, width, _ = qkv.shape
    parts = mx.split(qkv, 3, -1)
    return mx.stack([part.reshape(rows, width, heads, -1).transpose(0, 2, 1, 3) for part in parts])


def _join_heads(attended: mx.array) -> mx.array:
    rows, _, width, _ = attended.shape
    return attended.transpose(0, 2, 1, 3).reshape(rows, width, -1)
