"""What is added to a report after it was written: by `nfl-lora compare` and `nfl-lora verify`."""

import json
from pathlib import Path
from typing import Any

from nfl_lora_pipeline.files import DamagedFile, replace_file
from nfl_lora_pipeline.reports.page import to_markdown
from nfl_lora_pipeline.reports.presentation import present
from nfl_lora_pipeline.stored import RUN_AGAIN, read_predictions, read_summary


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
    summary = check_report(folder)
    replace_file(folder / f"{name}.json", (json.dumps(content, indent=2) + "\n").encode())
    replace_file(folder / f"{name}.md", section.encode())
    try:
        markdown = to_markdown(summary, loss_plot="loss.png")
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        wrong = f"is damaged, or a report by other code ({error!r})"
        raise DamagedFile(folder / "report.json", wrong, RUN_AGAIN) from error
    present(folder, markdown, read_predictions(folder))


def check_report(folder: Path) -> dict[str, Any]:
    """The summary of a report.

    Raises:
        DamagedFile: the folder holds no whole report.
    """
    read_predictions(folder, [])
    return read_summary(folder)
