"""A report's files: written whole or not at all, and read back."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from nfl_lora_pipeline.files import replacing_folder
from nfl_lora_pipeline.page import to_markdown

__all__ = ["read_report", "to_markdown", "write_report"]


def write_report(folder: Path, summary: dict[str, Any], predictions: pl.DataFrame, plot: bytes) -> None:
    """Write `report.md`, `report.json`, `predictions.parquet` and `loss.png`, all or none."""
    with replacing_folder(folder) as unfinished:
        (unfinished / "loss.png").write_bytes(plot)
        (unfinished / "report.md").write_text(to_markdown(summary, loss_plot="loss.png"), encoding="utf-8")
        (unfinished / "report.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        predictions.write_parquet(unfinished / "predictions.parquet")


def read_report(folder: Path, *, evaluation_code: str) -> tuple[dict[str, Any], pl.DataFrame, bytes] | None:
    """What `write_report` was given; None where there is no whole report, or other code has evaluated."""
    try:
        summary: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        if summary.get("evaluation_code") != evaluation_code:
            return None
        return summary, pl.read_parquet(folder / "predictions.parquet"), (folder / "loss.png").read_bytes()
    except (OSError, ValueError, pl.exceptions.PolarsError):
        return None
