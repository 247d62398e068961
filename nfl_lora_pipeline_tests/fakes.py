"""Adapters that are whole folders with no weights in them."""

import json
import os
from typing import Any

from nfl_lora_pipeline.store import Store

TRAINING = {
    "iterations": 312,
    "seconds": 40.0,
    "losses": [],
    "certain": [],
    "facts": 11,
    "uncertain": {},
    "lowest_probability": 0.9,
    "trained_parameters": 1,
    "tokens_per_second": 1.0,
    "peak_memory_bytes": 1,
    "stopped": "certain",
}
NO_TENSORS = b"{}"  # the header of a safetensors file


def put_adapter(held: Store, fingerprint: str, *, written_at: float | None = None, **made_of: Any) -> None:
    """An adapter of week 1, whose provenance was written at that second since 1970."""
    folder = held.adapter(fingerprint)
    folder.mkdir(parents=True)
    content = {"weeks": ["2025-W01"], "stats": ["receiving_yards"], "base_model": "embedded", "recipe": "embedded"}
    content |= {"base_revision": "0", "rows": "0"}
    (folder / "adapters.safetensors").write_bytes(len(NO_TENSORS).to_bytes(8, "little") + NO_TENSORS)
    (folder / "adapter_config.json").write_text(json.dumps({"fine_tune_type": "lora", "num_layers": 3}))
    (folder / "training.json").write_text(json.dumps(TRAINING))
    (folder / "provenance.json").write_text(json.dumps(content | {"fingerprint": fingerprint} | made_of))
    if written_at is not None:
        os.utime(folder / "provenance.json", (written_at, written_at))
