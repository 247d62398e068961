"""A model with its LoRA layers merged into the linear ones below them: the same function with fewer products, to score with."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_unflatten
from mlx_lm.tuner.lora import LoRALinear


@contextmanager
def merged(model: Any) -> Iterator[None]:
    """Merge for the block; what is quantised stays as it is, and so do DoRA layers, which are rare and slow to merge."""
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, LoRALinear) and type(module.linear) is nn.Linear
    ]
    made = [(name, module.fuse()) for name, module in layers]
    mx.eval([module.parameters() for _, module in made])
    model.update_modules(tree_unflatten(made))
    try:
        yield
    finally:
        model.update_modules(tree_unflatten(layers))
