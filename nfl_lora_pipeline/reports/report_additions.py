"""What is added to a report after it was written: by `nfl-lora compare` and `nfl-lora verify`."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from nfl_lora_pipeline.files import replace_file
from nfl_lora_pipeline.reports.page import to_markdown
from nfl_lora_pipeline.reports.presentation import present
from nfl_lora_pipeline.stored import read_predictions, read_summary


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
    summary, predictions = check_report(folder)
    replace_file(folder / f"{name}.json", (json.dumps(content, indent=2) + "\n").encode())
    replace_file(folder / f"{name}.md", section.encode())
    try:
        markdown = to_markdown(summary, loss_plot="loss.png")
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{folder}: a report by other code, without {error!r}; `nfl-lora run` on its weeks") from error
    present(folder, markdown, predictions)


def check_report(folder: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    """Summary and predictions of a report.

    Raises:
        DamagedFile: the folder holds no whole report.
    """
    return read_summary(folder), read_predictions(folder)
