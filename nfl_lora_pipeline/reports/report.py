"""A report's files: written whole or not at all, and read back."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from nfl_lora_pipeline.files import DamagedFile, replacing_folder
from nfl_lora_pipeline.reports.page import to_markdown
from nfl_lora_pipeline.reports.presentation import is_presented, present, read_picture
from nfl_lora_pipeline.stored import read_predictions, read_summary


def write_report(folder: Path, summary: dict[str, Any], predictions: pl.DataFrame, plot: bytes) -> None:
    """Write `report.md`, `report.html`, `report.json`, `predictions.parquet` and the pictures, all or none.

    What commands had added to the report that this one replaces stays in it.
    """
    with replacing_folder(folder) as unfinished:
        (unfinished / "loss.png").write_bytes(plot)
        (unfinished / "report.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        predictions.write_parquet(unfinished / "predictions.parquet")
        markdown = to_markdown(summary, loss_plot="loss.png")
        present(unfinished, markdown, predictions, before=folder if folder.is_dir() else None)


def read_report(folder: Path, *, evaluation_code: str) -> tuple[dict[str, Any], pl.DataFrame, bytes] | None:
    """What `write_report` was given; None where there is none that can be read, or other code has evaluated."""
    try:
        summary = read_summary(folder)
        if summary.get("evaluation_code") != evaluation_code:
            return None
        to_markdown(summary, loss_plot="loss.png")  # all that the page tells is there
        return summary, read_predictions(folder), read_picture(folder / "loss.png")
    except (DamagedFile, KeyError, TypeError, AttributeError, IndexError):
        return None


def is_whole(folder: Path, summary: dict[str, Any]) -> bool:
    """Whether pages and pictures of a report are as `write_report` left them."""
    try:
        return is_presented(folder, to_markdown(summary, loss_plot="loss.png"))
    except DamagedFile:
        return False
