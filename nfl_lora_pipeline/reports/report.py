"""A report's files: written whole or not at all, and read back."""

import base64
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl

from nfl_lora_pipeline.evaluation.baselines import Comparison, Way
from nfl_lora_pipeline.evaluation.summary import Summary
from nfl_lora_pipeline.files import DamagedFile, read_file, replace_file, replacing_folder
from nfl_lora_pipeline.reports.page import to_markdown
from nfl_lora_pipeline.reports.plots import cost_plot, margin_plot, recall_plot
from nfl_lora_pipeline.stored import (
    RUN_AGAIN,
    Versioned,
    json_bytes,
    read_json,
    read_overview,
    read_predictions,
    to_json,
)

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --quiet: #5c5c5c; --ground: #ffffff; --line: #dcdcdc; --band: #f6f7f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e4e4; --quiet: #a8a8a8; --ground: #16181b; --line: #363a40; --band: #1f2226; }
}
body { margin: 2rem auto; max-width: 62rem; padding: 0 1.25rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1, h2, h3 { line-height: 1.25; margin: 2.2rem 0 0.8rem; }
h2 { border-bottom: 1px solid var(--line); padding-bottom: 0.3rem; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.9rem 0.35rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: break-word; }
thead:not(:has(th:not(:empty))) { display: none; }
th { color: var(--quiet); font-weight: 600; }
tbody tr:nth-child(even) { background: var(--band); }
th:first-child, td:first-child { padding-left: 0.5rem; }
blockquote { margin: 1rem 0; padding: 0.2rem 1rem; border-left: 4px solid #d98200; background: var(--band); }
img { display: block; max-width: 100%; width: 790px; height: auto; box-sizing: border-box; margin: 1rem 0; padding: 10px;
  background: #ffffff; border-radius: 6px; }
code { background: var(--band); padding: 0 0.25em; }
"""
_DATA_URI = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")


def to_html(markdown: str) -> str:
    """A whole HTML document of a report in Markdown.

    What models answered is in it: tags are shown, not obeyed; there are no links, and a picture is shown only where it lies
    in the text itself.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "autolink", "reference"])
    parser.validateLink = lambda url: bool(_DATA_URI.fullmatch(url))  # type: ignore[method-assign]
    for name, rendered in (("table_open", '<div class="table"><table>\n'), ("table_close", "</table></div>\n")):
        parser.add_render_rule(name, _always(rendered))
    title = markdown.partition("\n")[0].lstrip("# ")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escaped(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{parser.render(markdown)}</body>\n</html>\n"
    )


def _always(text: str) -> Callable[..., str]:
    return lambda *of_the_renderer: text


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def add_to_report(folder: Path, name: str, content: Versioned, section: str) -> None:
    """Write `NAME.json` and `NAME.md` into a report's folder, and make `report.md` and `report.html` anew with the section.

    Args:
        folder: of the report.
        name: one of `ADDITIONS`.
        content: what `NAME.json` has.
        section: in Markdown.

    Raises:
        ValueError: there is no report, or one by other code: what is added is kept for the next one.
    """
    check_report(folder)
    replace_file(folder / f"{name}.json", json_bytes(to_json(content)))
    replace_file(folder / f"{name}.md", section.encode())
    present(folder, to_markdown(read_summary(folder), loss_plot="loss.png"), read_predictions(folder))


def check_report(folder: Path) -> None:
    """Look whether a folder holds a report, by this code or by other.

    Raises:
        DamagedFile: it holds no whole one.
    """
    read_overview(folder)
    read_predictions(folder, [])


def read_summary(folder: Path) -> Summary:
    """All of the `report.json` in a folder.

    Raises:
        DamagedFile: it cannot be read, or other code has written it in another form.
    """
    return read_json(folder / "report.json", Summary, mend=RUN_AGAIN)


def write_report(folder: Path, summary: Summary, predictions: pl.DataFrame, plot: bytes) -> None:
    """Write `report.md`, `report.html`, `report.json`, `predictions.parquet` and the pictures, all or none.

    What commands had added to the report that this one replaces stays in it.
    """
    with replacing_folder(folder) as unfinished:
        (unfinished / "loss.png").write_bytes(plot)
        (unfinished / "report.json").write_bytes(json_bytes(to_json(summary)))
        predictions.write_parquet(unfinished / "predictions.parquet")
        markdown = to_markdown(summary, loss_plot="loss.png")
        present(unfinished, markdown, predictions, before=folder if folder.is_dir() else None)


def read_report(folder: Path, *, evaluation_code: str) -> tuple[Summary, pl.DataFrame, bytes] | None:
    """What `write_report` was given; None where there is none that can be read, or other code has evaluated."""
    try:
        if read_overview(folder).evaluation_code != evaluation_code:
            return None
        return read_summary(folder), read_predictions(folder), read_picture(folder / "loss.png")
    except DamagedFile:
        return None


def is_whole(folder: Path, summary: Summary) -> bool:
    """Whether pages and pictures of a report are as `write_report` left them."""
    try:
        return is_presented(folder, to_markdown(summary, loss_plot="loss.png"))
    except DamagedFile:
        return False


# What commands add to a report later, as NAME.json and a section NAME.md.
ADDITIONS = ("alternatives", "verification", "verification_peft", "verification_llama_cpp")
PNG_BEGINS, PNG_ENDS = b"\x89PNG\r\n\x1a\n", b"IEND"
LAST_SECTION = "## Training\n"
PICTURES = "![recall by stat and by phrasing](recall.png)\n\n![how sure the tuned model is](margins.png)\n\n"
COST_PICTURE = "![what other ways cost and how right they are](cost.png)\n\n"
RENAMED = {"artefacts": "verification"}  # additions of earlier code
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([a-z]+\.png)\)")


def present(folder: Path, markdown: str, scored: pl.DataFrame, *, before: Path | None = None) -> None:
    """Write pictures, `report.md` and `report.html` into a report's folder.

    Args:
        folder: of the report; it holds `loss.png`.
        markdown: of `page.to_markdown`.
        scored: one row a question, as `grading.with_verdict` gives it.
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


def _ways(folder: Path) -> list[Way] | None:
    """What `nfl-lora compare` has added; None where it has not, or that cannot be read."""
    try:
        return read_json(folder / "alternatives.json", Comparison, mend=RUN_AGAIN).ways
    except DamagedFile:
        return None


def with_pictures_inside(markdown: str, folder: Path) -> str:
    """A report's Markdown with its pictures in it, as the UI and a single file need them."""

    def inside(match: re.Match[str]) -> str:
        file = folder / match[2]
        return f"![{match[1]}]({_data_uri(file.read_bytes())})" if file.is_file() else match[0]

    return _PICTURE.sub(inside, markdown)


def _take_over(before: Path, folder: Path) -> None:
    for name in (*RENAMED, *ADDITIONS):
        for kind in ("json", "md"):
            addition = before / f"{name}.{kind}"
            if addition.is_file():
                replace_file(folder / f"{RENAMED.get(name, name)}.{kind}", addition.read_bytes())


def _with_sections(markdown: str, folder: Path) -> str:
    """Pictures, and what was added, before the last section."""
    before, heading, training = markdown.partition(LAST_SECTION)
    sections = "## Recall and certainty in pictures\n\n" + PICTURES
    for name in ADDITIONS:
        file = folder / f"{name}.md"
        if file.is_file():
            sections += file.read_text(encoding="utf-8", errors="replace").rstrip() + "\n\n"
            sections += COST_PICTURE if name == "alternatives" and _ways(folder) is not None else ""
    return f"{before.rstrip()}\n\n{sections}{heading}{training}"


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
