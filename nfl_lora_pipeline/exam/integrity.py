"""Whether an exam was an exam: every question answered, by the base with all of the adapter on it."""

from pathlib import Path
from typing import Any

import polars as pl


def questions_answered(rows: pl.DataFrame, predictions: pl.DataFrame) -> dict[str, int]:
    """How many rows of the splits there are (`rows`), and how many of them have an answer (`answered`)."""
    same = ["fact", "phrasing", "question", "answer"]
    answered = predictions.filter(pl.col("tuned").is_not_null()).select(same)
    return {"rows": rows.height, "answered": rows.join(answered.unique(), on=same, how="semi").height}


def tensors_loaded(model: Any, adapter: Path) -> dict[str, int]:
    """How many tensors an adapter has (`tensors`), and how many of them are in the model as they are, and finite (`loaded`).

    A fused model on a quantised base can have lost its adapter, and so can one whose layers were replaced after loading.

    Args:
        model: of `base_model.load(..., adapter=adapter)`.
        adapter: the adapter's folder.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten

    held = dict(tree_flatten(model.parameters()))
    tensors: Any = mx.load(str(adapter / "adapters.safetensors"))
    loaded = [
        name in held and held[name].shape == tensor.shape and bool(mx.all(held[name] == tensor).item())
        for name, tensor in tensors.items()
    ]  # NaN differs from itself, and infinity is caught below
    finite = [bool(mx.all(mx.isfinite(tensor)).item()) for tensor in tensors.values()]
    return {"tensors": len(tensors), "loaded": sum(one and two for one, two in zip(loaded, finite, strict=True))}
