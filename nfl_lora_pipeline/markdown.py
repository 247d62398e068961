"""Small pieces of Markdown."""

import re
from collections.abc import Sequence

_MARKUP = re.compile(r"[\\`*\[\]<>&|~$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE)
_LINES = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")

_SECTION = re.compile(r"<!-- begin (?P<name>\S+) -->\n(?P<content>.*?)\n<!-- end (?P=name) -->", re.DOTALL)


class Markup(str):
    """Markdown that is meant as such: `table` leaves it as it is."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """A text as Markdown that shows it, letter for letter, within a line: for whatever comes from data, people or models.

    A backslash before a character of punctuation takes its meaning (CommonMark, "Backslash escapes"). Escaped are those that
    can begin or end something within a line: the backslash itself, code (a backtick), emphasis (`*`, and `_` at the edge of a
    word), links and pictures (brackets), tags and automatic links (`<`, `>`), entities (`&`), and of the extensions that
    GitHub and Dagster's UI read, the cells of a table (`|`), struck text (`~`), formulas (`$`) and bare addresses (`://`,
    `www.`). Lines become one: what would begin a block (`#`, `-`, `1.`) cannot, as long as the text begins no line itself.
    """
    return Markup(_MARKUP.sub(r"\\\g<0>", _LINES.sub(" ", str(text))))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, whatever the cells hold; they are escaped, but for `Markup`."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(content: str) -> str:
    return content if isinstance(content, Markup) else escape(content)


def marked(name: str, content: str) -> str:
    """A section of a page that is written by machine, between comments by which it is found again."""
    return f"<!-- begin {name} -->\n{content.strip()}\n<!-- end {name} -->"


def sections_of(page: str) -> dict[str, str]:
    """The sections of a page that `marked` made, by name, without their comments."""
    return {found["name"]: found["content"] for found in _SECTION.finditer(page)}


def percent(share: float | None) -> str:
    """A share for people: "100%" for all and nothing less, "0%" for nothing, "-" for none."""
    if share is None:
        return "-"
    return f"{share:.0%}" if share in (0, 1) else f"{min(max(share, 0.001), 0.999):.1%}"
