"""What is made of a finished report for people to look at: pictures, `report.md`, and `report.html` to send to somebody."""

import base64
import re
from pathlib import Path
from typing import Any

import polars as pl

from nfl_lora_pipeline.files import DamagedFile, read_file, replace_file
from nfl_lora_pipeline.reports.plots import cost_plot, margin_plot, recall_plot
from nfl_lora_pipeline.reports.report_html import to_html
from nfl_lora_pipeline.stored import RUN_AGAIN, Form, read_json

ADDITIONS = ("alternatives", "artefacts")  # what commands add to a report later, as NAME.json and a section NAME.md
PNG_BEGINS, PNG_ENDS = b"\x89PNG\r\n\x1a\n", b"IEND"
LAST_SECTION = "## Training\n"
PICTURES = "![recall by stat and by phrasing](recall.png)\n\n![how sure the tuned model is](margins.png)\n\n"
COST_PICTURE = "![what other ways cost and how right they are](cost.png)\n\n"
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([a-z]+\.png)\)")


class Comparison(Form):
    """Of `alternatives.json` what is drawn."""

    ways: list[dict[str, Any]]


def present(folder: Path, markdown: str, scored: pl.DataFrame, *, before: Path | None = None) -> None:
    """Write pictures, `report.md` and `report.html` into a report's folder.

    Args:
        folder: of the report; it holds `loss.png`.
        markdown: of `page.to_markdown`.
        scored: one row a question, as `verdicts.with_verdict` gives it.
        before: the report that this one replaces; what was added to that is taken over.
    """
    if before:
        _take_over(before, folder)
    pictures = {"recall.png": recall_plot(scored), "margins.png": margin_plot(scored)}
    if (ways := _ways(folder)) is not None:
        pictures["cost.png"] = cost_plot(ways)
    for name, png in pictures.items():
        replace_file(folder / name, png)
    whole = _with_sections(markdown, folder)
    replace_file(folder / "report.md", whole.encode())
    replace_file(folder / "report.html", to_html(with_pictures_inside(whole, folder)).encode())


def is_presented(folder: Path, markdown: str) -> bool:
    """Whether what `present` makes of a report is there as it was made.

    Raises:
        DamagedFile: a page or a picture is lost, or no picture.
    """
    whole = _with_sections(markdown, folder)
    for name in _PICTURE.findall(whole):
        read_picture(folder / name[1])
    page, sent = (read_file(folder / name, mend=RUN_AGAIN) for name in ("report.md", "report.html"))
    return page == whole.encode() and sent == to_html(with_pictures_inside(whole, folder)).encode()


def read_picture(file: Path) -> bytes:
    """A picture of a report.

    Raises:
        DamagedFile: it is none, or not all of it.
    """
    content = read_file(file, mend=RUN_AGAIN)
    if not content.startswith(PNG_BEGINS) or PNG_ENDS not in content[-12:]:
        raise DamagedFile(file, "is damaged (no PNG)", RUN_AGAIN)
    return content


def _ways(folder: Path) -> list[dict[str, Any]] | None:
    """What `nfl-lora compare` has added; None where it has not, or that is damaged."""
    try:
        return list(read_json(folder / "alternatives.json", Comparison, mend=RUN_AGAIN)["ways"])
    except DamagedFile:
        return None


def with_pictures_inside(markdown: str, folder: Path) -> str:
    """A report's Markdown with its pictures in it, as the UI and a single file need them."""

    def inside(found: re.Match[str]) -> str:
        file = folder / found[2]
        return f"![{found[1]}]({_data_uri(file.read_bytes())})" if file.is_file() else found[0]

    return _PICTURE.sub(inside, markdown)


def _take_over(before: Path, folder: Path) -> None:
    for name in (f"{addition}.{kind}" for addition in ADDITIONS for kind in ("json", "md")):
        if (before / name).is_file():
            replace_file(folder / name, (before / name).read_bytes())


def _with_sections(markdown: str, folder: Path) -> str:
    """Pictures, and what was added, before the last section."""
    told, heading, training = markdown.partition(LAST_SECTION)
    sections = "## Recall and certainty in pictures\n\n" + PICTURES
    for name in ADDITIONS:
        file = folder / f"{name}.md"
        if file.is_file():
            sections += file.read_text(encoding="utf-8", errors="replace").rstrip() + "\n\n"
            sections += COST_PICTURE if name == "alternatives" and _ways(folder) is not None else ""
    return f"{told.rstrip()}\n\n{sections}{heading}{training}"


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
