"""Small pieces of Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, whatever the cells hold."""
    lines = [header, ["---"] * len(header), *rows]
    return (
        "\n".join(
            "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
            for line in lines
        )
        + "\n"
    )


def percent(share: float | None) -> str:
    """A share for people: "100%" for all and nothing less, "0%" for nothing, "-" for none."""
    if share is None:
        return "-"
    return f"{share:.0%}" if share in (0, 1) else f"{min(max(share, 0.001), 0.999):.1%}"


def measured(counted: Mapping[str, Any]) -> str:
    """A share of `intervals.counted` with its interval: "98.9% (98.3 to 99.3)"."""
    if counted["share"] is None:
        return "-"
    low, high = min(counted["low"], 0.999), counted["high"]  # an interval never begins at all
    return f"{percent(counted['share'])} ({100 * low:.1f} to {100 * high:.1f})"


def of_asked(counted: Mapping[str, Any]) -> str:
    """How many of how many: "1,988 of 2,010"."""
    return f"{counted['right']:,} of {counted['asked']:,}"
