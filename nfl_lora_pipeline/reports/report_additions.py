"""What is added to a report after it was written: by `nfl-lora compare` and `nfl-lora verify`."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from nfl_lora_pipeline.files import replace_file
from nfl_lora_pipeline.reports.page import to_markdown
from nfl_lora_pipeline.reports.presentation import present


def add_to_report(folder: Path, name: str, content: Any, section: str) -> None:
    """Write `NAME.json` and `NAME.md` into a report's folder, and make `report.md` and `report.html` anew with the section.

    Args:
        folder: of the report.
        name: one of `presentation.ADDITIONS`.
        content: JSON-serialisable.
        section: in Markdown.

    Raises:
        ValueError: there is no report, or one by other code: what is added is kept for the next one.
    """
    check_report(folder)
    summary = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    predictions = pl.read_parquet(folder / "predictions.parquet")
    replace_file(folder / f"{name}.json", (json.dumps(content, indent=2) + "\n").encode())
    replace_file(folder / f"{name}.md", section.encode())
    try:
        markdown = to_markdown(summary, loss_plot="loss.png")
    except KeyError as error:
        raise ValueError(f"{folder}: a report by other code, without {error}; `nfl-lora run` on its weeks") from error
    present(folder, markdown, predictions)


def check_report(folder: Path) -> None:
    """Raise ValueError where a folder holds no whole report."""
    for name in ("report.json", "predictions.parquet"):
        if not (folder / name).is_file():
            raise ValueError(
                f"{folder} holds no {name}: `nfl-lora run`, or materialise `evaluation_report`, on its weeks"
            )
