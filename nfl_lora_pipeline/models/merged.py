"""A model with its LoRA layers merged into the linear ones below them: the same function with fewer products, to score with."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nfl_lora_pipeline.models.blas import load_fast_blas

load_fast_blas()

import mlx.core as mx  # noqa: E402
from mlx import nn  # noqa: E402
from mlx.utils import tree_unflatten  # noqa: E402
from mlx_lm.tuner.lora import LoRALinear  # noqa: E402


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
