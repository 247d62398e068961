"""How every picture is drawn: 7 inches wide, 770 pixels, with text of the size that it is shown at; matplotlib's ways."""

import io
from collections.abc import Sequence
from typing import Any

INK, FAINT = "#333333", "#d9d9d9"
LONGEST_NAME = 36


def new_figure(height: float) -> Any:
    """A figure as wide as all others, and so many inches high."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, height), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def name_rows(axes: Any, names: Sequence[str]) -> None:
    """One line a name, the last on top."""
    shown = [name.replace("_", " ")[:LONGEST_NAME] for name in names]
    axes.set_yticks(range(len(names)), shown, parse_math=False)  # a name with two dollars is no formula
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="both", labelsize=8, labelcolor=INK, color=FAINT)
    axes.grid(axis="both", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def key(figure: Any, colours: dict[str, str], marks: str = "ooo") -> None:
    """Name the colours below the figure, each with its mark of matplotlib's."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker=mark, linestyle="", color=colour, label=name)
        for (name, colour), mark in zip(colours.items(), marks, strict=False)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8, labelcolor=INK)


def in_percent(decimals: int = 0) -> Any:
    """A formatter of shares."""
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(1.0, decimals=decimals)


def plain_numbers(axis: Any, between: Sequence[int] = ()) -> None:
    """0.01 instead of a power of ten, on a logarithmic axis, and so many times that where they fit."""
    from matplotlib.ticker import LogLocator

    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(LogLocator(subs=between))
    axis.set_minor_formatter("{x:g}")


def to_png(figure: Any) -> bytes:
    """The figure as a file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
