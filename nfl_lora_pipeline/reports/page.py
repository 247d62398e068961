"""A report as a page, for whoever must decide whether to use the adapter: the verdict first, then what it rests on.

The same page is Markdown, for the UI and for GitHub, and one HTML file to send to somebody (`templates/`, Jinja2).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from nfl_lora_pipeline.evaluation.gates import Gate, head_line
from nfl_lora_pipeline.evaluation.summary import KeyFigure, ShownAnswers, Summary, key_figures
from nfl_lora_pipeline.markdown import Markup, escape, table
from nfl_lora_pipeline.reports import page_sections as parts
from nfl_lora_pipeline.reports.page_sections import Section
from nfl_lora_pipeline.reports.plots import COST, LOSS, MARGINS_OF, RECALL

if TYPE_CHECKING:
    from jinja2 import Environment
    from markdown_it.token import Token

TEMPLATES = Path(str(files("nfl_lora_pipeline"))) / "reports" / "templates"
PICTURES = {"recall.svg": RECALL, "margins.svg": MARGINS_OF, "loss.svg": LOSS, "cost.svg": COST}
"""What each picture of a report shows; the last is there where `nfl-lora compare` was."""
LONG = 40  # characters of a cell that wants to be wide


@dataclass(frozen=True)
class Verdict:
    """What a report says first.

    Attributes:
        text: whether the adapter may be used.
        grade: "good", "limited" or "bad"; "" where nothing was judged.
        worst: the worst to expect, a sentence, or "".
        lead: what the limits are.
        limits: what it is not for, each with the figure and the limit.
    """

    text: str
    grade: str
    worst: str
    lead: str
    limits: list[tuple[str, str]]


@dataclass(frozen=True)
class Page:
    """All that a report says, in its order: this, the pictures, the sections."""

    title: str
    verdict: Verdict | None
    warnings: list[str]
    figures: list[KeyFigure]
    questions: Sequence[ShownAnswers]
    sections: list[Section]


def page_of(summary: Summary, additions: Sequence[Section] = ()) -> Page:
    """The page of a report.

    Args:
        summary: the figures.
        additions: sections that commands have added, of `page_sections.read_section`.
    """
    return Page(
        title=f"What the model knows of {', '.join(summary.weeks)}",
        verdict=_verdict(summary.gates) if summary.gates else None,
        warnings=parts.beware(summary),
        figures=key_figures(summary),
        questions=summary.questions,
        sections=list(_sections(summary, additions)),
    )


def _sections(summary: Summary, additions: Sequence[Section]) -> Iterator[Section]:
    if summary.gates:
        yield parts.gates(summary.gates)
    yield parts.recall(summary)
    yield parts.phrasing(summary)
    yield parts.hallucinations(summary.unknown, summary.notes)
    yield parts.how_sure(summary.sureness)
    yield parts.retention(summary.retained, summary.general)
    if summary.regressions:
        yield parts.changes(summary.regressions, summary.by_week)
    if summary.coverage_loss and summary.coverage_loss.parts:
        yield parts.coverage_loss(summary.coverage_loss)
    yield parts.misses(summary.misses)
    yield from additions
    yield parts.training(summary)
    yield parts.words()


def _verdict(gates: Sequence[Gate]) -> Verdict:
    text, _, worst = head_line(gates).partition(". ")
    missed = [gate for gate in gates if gate.missed]
    failures = [gate for gate in missed if gate.blocks]
    lead = "It is not promoted, since it fails at:" if failures else "It is not for:" if missed else ""
    return Verdict(
        text=text.rstrip("."),
        grade="bad" if failures else "limited" if missed else "good",
        worst=worst,
        lead=lead,
        limits=[(parts.USES.get(gate.name, parts.spoken(gate.name)), gate.explanation) for gate in failures or missed],
    )


def to_markdown(
    summary: Summary, additions: Sequence[Section] = (), *, pictures: Sequence[str] = tuple(PICTURES)[:3]
) -> str:
    """The report in Markdown.

    Args:
        summary, additions: as for `page_of`.
        pictures: the names of those that lie beside it.
    """
    page = page_of(summary, additions)
    blocks = [
        f"# {escape(page.title)}",
        *_head(page),
        "## Three questions, before and after",
        parts.questions(page.questions),
        "## Pictures",
        *(f"![{PICTURES[name]}]({name})" for name in pictures),
        *(block for section in page.sections for block in (f"## {section.title}", section.body)),
    ]
    return "\n\n".join(block.rstrip() for block in blocks) + "\n"


def _head(page: Page) -> Iterator[str]:
    if page.verdict:
        worst = f" {escape(page.verdict.worst)}" if page.verdict.worst else ""
        yield f"**{escape(page.verdict.text)}.**{worst}"
        if page.verdict.lead:
            yield page.verdict.lead
            yield "\n".join(f"- {escape(use)}: {escape(why)}" for use, why in page.verdict.limits)
    if page.warnings:
        yield "Beware:"
        yield "\n".join(f"- {escape(line)}" for line in page.warnings)
    rows = [[Markup(f"**{escape(each.text)}**"), each.name, each.meaning] for each in page.figures]
    yield table(["figure", "what", "which is"], rows)


def to_html(summary: Summary, additions: Sequence[Section] = (), *, pictures: Mapping[str, bytes]) -> str:
    """The report as one HTML file that needs nothing from anywhere.

    What models answered is in it: tags are shown, not obeyed, and nothing of it is a link or a picture.

    Args:
        summary, additions: as for `page_of`.
        pictures: SVG of `plots`, by names of `PICTURES`.
    """
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            page=page_of(summary, additions),
            captions=PICTURES,
            pictures={name: _inside(svg) for name, svg in pictures.items()},
        )
    )


def season_html(**content: object) -> str:
    """The page of a season; see `report.season_page`."""
    return _environment().get_template("season.html.j2").render(**content)


def _inside(svg: bytes) -> str:
    """A picture as a part of a page, which knows the namespaces."""
    from markupsafe import Markup as Html

    text = svg.decode()
    for name in (' xmlns="http://www.w3.org/2000/svg"', ' xmlns:xlink="http://www.w3.org/1999/xlink"'):
        text = text.replace(name, "", 1)
    return Html(text)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = markdown_to_html
    environment.filters["slug"] = lambda title: "-".join("".join(map(_letter, title.lower())).split())
    return environment


def _letter(letter: str) -> str:
    return letter if letter.isascii() and letter.isalnum() else " "


def markdown_to_html(markdown: str, what: str) -> str:
    """A part of a page in Markdown as HTML; `what` names its tables for who hears them."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup as Html

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["link", "autolink", "reference", "image"])
    tokens = parser.parse(markdown)
    _improve_tables(tokens)
    opening = f'<div class="table" role="group" tabindex="0" aria-label="{_quoted(what)}"><table>\n'
    for name, rendered in (("table_open", opening), ("table_close", "</table></div>\n")):
        parser.add_render_rule(name, _always(rendered))
    return Html(parser.renderer.render(tokens, parser.options, {}))


def _improve_tables(tokens: "Sequence[Token]") -> None:
    """Heads of columns and of rows say that they are; a long cell is given room."""
    first_of_row = False
    for place, token in enumerate(tokens):
        if token.type == "tr_open":
            first_of_row = True
        elif token.type == "th_open":
            token.attrSet("scope", "col")
            first_of_row = False
        elif token.type == "td_open":
            if len(tokens[place + 1].content) > LONG:
                token.attrSet("class", "long")
            if first_of_row:
                token.tag = tokens[place + 2].tag = "th"
                token.attrSet("scope", "row")
            first_of_row = False


def _always(text: str) -> Callable[..., str]:
    return lambda *of_the_renderer: text


def _quoted(text: str) -> str:
    from markupsafe import escape as as_html

    return str(as_html(text))
