"""Adapters that are folders with nothing in them but what they were made of."""

import json
import os
from typing import Any

from nfl_lora_pipeline.store import Store


def put_adapter(held: Store, fingerprint: str, *, trained_at: float | None = None, **made_of: Any) -> None:
    """An adapter of week 1, trained at that second since 1970."""
    folder = held.adapter(fingerprint)
    folder.mkdir(parents=True)
    content = {"weeks": ["2025-W01"], "stats": ["receiving_yards"], "base_model": "embedded", "recipe": "embedded"}
    (folder / "training.json").write_text(json.dumps({"iterations": 312, "seconds": 40.0}))
    (folder / "provenance.json").write_text(json.dumps(content | {"fingerprint": fingerprint} | made_of))
    if trained_at is not None:
        os.utime(folder / "provenance.json", (trained_at, trained_at))
