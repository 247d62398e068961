"""The matrix products of a training step: which there are, and how much arithmetic that is.

For the architecture of the embedded base (Phi-3), on which the trainer has a path of its own: the last layer works where an
answer stands only.
"""

from dataclasses import dataclass
from typing import Any

from mlx_lm.tuner.lora import LoRALinear

from nfl_lora_pipeline.models.rows import Batch

Product = tuple[int, int, int, int]  # how many, rows, inner, columns


@dataclass(frozen=True)
class Shape:
    """Of one batch: rows, tokens a row, answer tokens a row; and of the model: layers, heads, widths and vocabulary."""

    rows: int
    tokens: int
    answers: int
    layers: int
    heads: int
    hidden: int
    inner: int
    vocabulary: int

    @classmethod
    def of(cls, model: Any, batch: Batch) -> "Shape":
        """The shape of a batch in a model."""
        args = model.args
        sizes = len(model.layers), args.num_attention_heads, args.hidden_size, args.intermediate_size, args.vocab_size
        rows, tokens = batch.tokens.shape
        return cls(rows, tokens, batch.targets.shape[1], *sizes)

    def wide(self, layer: int) -> int:
        """Tokens a row for which a layer works behind its keys and values."""
        return self.answers if layer == self.layers - 1 else self.tokens


def products(model: Any, batch: Batch) -> list[Product]:
    """All matrix products of forward and backward for a batch."""
    shape = Shape.of(model, batch)
    found: list[Product] = []
    head = shape.hidden // shape.heads
    for number, layer in enumerate(model.layers):
        positions = shape.rows * shape.wide(number)
        attention, mlp = layer.self_attn, layer.mlp
        found += _linear(attention.qkv_proj, shape.rows * shape.tokens, first=number == 0)
        for linear in (attention.o_proj, mlp.gate_up_proj, mlp.down_proj):
            found += _linear(linear, positions)
        many, asked, seen = shape.rows * shape.heads, shape.wide(number), shape.tokens
        found += 2 * [(many, asked, head, seen)]  # scores, and the gradient of the weights
        found += 2 * [(many, asked, seen, head)]  # what is attended to, and the gradient of queries
        found += 2 * [(many, seen, asked, head)]  # gradients of keys and values
    answers = shape.rows * shape.answers
    return [*found, (1, answers, shape.hidden, shape.vocabulary), (1, answers, shape.vocabulary, shape.hidden)]


def outputs_of(linear: Any) -> int:
    """How wide the outputs of a linear layer are, with or without LoRA."""
    return _base(linear).weight.shape[0]


def _base(linear: Any) -> Any:
    return linear.linear if isinstance(linear, LoRALinear) else linear


def _linear(linear: Any, positions: int, *, first: bool = False) -> list[Product]:
    """A frozen linear layer with LoRA: three products forward; backward two for the factors, and what the input needs."""
    wide_out, wide_in = _base(linear).weight.shape
    found = [(1, positions, wide_in, wide_out)]
    if not first:
        found.append((1, positions, wide_out, wide_in))
    if isinstance(linear, LoRALinear):
        rank = linear.lora_a.shape[1]
        found += [(1, positions, wide_in, rank), (1, positions, rank, wide_out)]
        found += [(1, positions, wide_out, rank), (1, rank, positions, wide_out), (1, wide_in, positions, rank)]
        if not first:
            found.append((1, positions, rank, wide_in))
    return found


def flops(found: list[Product]) -> int:
    """Multiplications and additions."""
    return sum(2 * many * rows * inner * columns for many, rows, inner, columns in found)
