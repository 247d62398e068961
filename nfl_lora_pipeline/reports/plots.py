"""Pictures for reports and metadata: SVG whose colours follow a light or dark surrounding, in a page and in a file by itself.

Colours mean the same in all of them: blue is what was trained, orange what was not, grey are strangers.
"""

import base64
import html
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from nfl_lora_pipeline.evaluation.baselines import Way
from nfl_lora_pipeline.evaluation.metrics import Share
from nfl_lora_pipeline.evaluation.probes import is_of_the_splits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

INK, FAINT, GROUND = "#333333", "#d9d9d9", "#ffffff"
BLUE, ORANGE, GREY, RED = "#1f6fb2", "#b26b00", "#6b6b6b", "#c0392b"
DARK = {
    INK: "#e4e4e4",
    FAINT: "#3c4148",
    GROUND: "#16181b",
    BLUE: "#6cb2f0",
    ORANGE: "#f0a63a",
    GREY: "#a8a8a8",
    RED: "#f28b7d",
}
"""Each colour of a picture, as it is on a dark ground."""
LONGEST_NAME = 36
WIDTH = 9  # inches
SVG_BEGINS, SVG_ENDS = b"<svg", b"</svg>"


def new_figure(height: float, width: float = WIDTH) -> "Figure":
    """A figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor=GROUND)
    FigureCanvasAgg(figure)
    return figure


def name_rows(axes: "Axes", names: Sequence[str], *, longest: int = LONGEST_NAME) -> None:
    """One line a name, the last on top; of a longer one so many characters are shown."""
    words = [name.replace("_", " ") for name in names]
    shown = [name if len(name) <= longest else f"{name[: longest - 1]}\u2026" for name in words]
    axes.set_yticks(range(len(names)), shown, parse_math=False)  # a name with two dollars is no formula
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="both", labelsize=8, labelcolor=INK, color=FAINT)
    axes.grid(axis="both", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def key(figure: "Figure", colours: dict[str, str], marks: str = "ooo", *, columns: int = 3) -> None:
    """Name the colours below the figure, each with its mark of matplotlib's."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker=mark, linestyle="", color=colour, label=name)
        for (name, colour), mark in zip(colours.items(), marks, strict=False)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=8, labelcolor=INK)


def in_percent(decimals: int = 0) -> "PercentFormatter":
    """A formatter of shares."""
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(1.0, decimals=decimals)


def plain_numbers(axis: "Axis", between: Sequence[int] = ()) -> None:
    """0.01 instead of a power of ten, on a logarithmic axis, and so many times that where they fit."""
    from matplotlib.ticker import LogLocator

    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(LogLocator(subs=between))
    axis.set_minor_formatter("{x:g}")


def to_svg(figure: "Figure", what: str) -> bytes:
    """The figure as a file's content: the same bytes for the same figure.

    Args:
        figure: drawn in the colours of `DARK` and black.
        what: what it shows, for who cannot see it.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": what}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(["Date", "Creator", "Format", "Type"]))
    drawn = buffer.getvalue()
    body = re.sub(r'(?s)^.*?<svg [^>]*>|<style.*?</style>| id="(?![mp][0-9a-f]{10}")[^"]*"|</svg>\s*$', "", drawn)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body).replace("#000000", INK)
    for light in DARK:
        body = body.replace(light, f"var({_variable(light)})")
    (box,) = re.findall(r'viewBox="[\d. ]+"', drawn.partition("</defs>")[0])
    return (
        f'<svg class="plot" role="img" aria-label="{html.escape(what)}" {box} xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink">\n<style>{_style()}</style>\n{body.strip()}\n</svg>\n'
    ).encode()


def data_uri(svg: bytes) -> str:
    """A picture as an address that carries it, for Markdown in the UI."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _variable(light: str) -> str:
    return f"--plot-{light[1:]}"


def _style() -> str:
    light = "; ".join(f"{_variable(colour)}: {colour}" for colour in DARK)
    dark = "; ".join(f"{_variable(colour)}: {at_night}" for colour, at_night in DARK.items())
    return (
        f"svg.plot {{ {light}; stroke-linejoin: round; font-family: system-ui, sans-serif }}\n"
        f"svg.plot text {{ fill: var({_variable(INK)}) }}\n"
        f"@media (prefers-color-scheme: dark) {{ svg.plot {{ {dark} }} }}"
    )


TRAINED_COLOUR, HELD_OUT_COLOUR, STRANGER_COLOUR = BLUE, ORANGE, GREY
CHOSEN_ABOVE = 0.5  # whatever the other tokens are; certain is an answer as a whole, which is no matter of one token
RECALL = "Right numbers, with 95% intervals, by how the question is asked"
MARGINS_OF = "How probable the least probable token of the reference answers is"
LOSS = "Loss, and rows that are certain, over training"
COST = "What other ways cost and how right they are"
NARROW = 6  # inches, where two stand side by side
KINDS_OF_FACTS = ["recorded", "bye", "no_record"]
MARGINS = [tenth / 10 for tenth in range(11)]


class Asked(NamedTuple):
    """A way to ask, and the right numbers that it gets."""

    name: str
    numbers: Share
    trained: bool


def loss_plot(losses: Sequence[tuple[int, float]], certain: Sequence[tuple[int, float]]) -> bytes:
    """Loss and share of certain rows over training.

    Args:
        losses: (iteration, nats a token), drawn on a logarithmic axis.
        certain: (iteration, share from 0 to 1).
    """
    figure = new_figure(3.4, NARROW)
    left = figure.add_subplot()
    left.plot(*_columns(losses), color=RED, label="loss")
    left.set_xlabel("iteration", fontsize=9, color=INK)
    left.set_ylabel("loss on unknown tokens (nats)", fontsize=9, color=RED)
    if losses:
        left.set_yscale("log")
        plain_numbers(left.yaxis, between=(2, 5))
    right = left.twinx()
    right.plot(*_columns(certain), color=BLUE, marker=".", label="certain")
    right.set_ylabel("rows certain", fontsize=9, color=BLUE)
    right.set_ylim(0, 1.03)
    right.yaxis.set_major_formatter(in_percent())
    for axes in (left, right):
        axes.spines["top"].set_visible(False)
        axes.tick_params(labelsize=8)
    return to_svg(figure, LOSS)


def recall_plot(asked: Sequence[Asked]) -> bytes:
    """The share of right numbers with its interval, by how the question is asked; what nothing was asked of is left out.

    Args:
        asked: the first on top.
    """
    shown = [each for each in reversed(asked) if each.numbers.asked]
    figure = new_figure(max(1.6, 0.9 + 0.24 * len(shown)))
    axes = figure.add_subplot()
    for place, each in enumerate(shown):
        colour, share = TRAINED_COLOUR if each.trained else HELD_OUT_COLOUR, each.numbers
        axes.plot([share.low or 0.0, share.high or 0.0], [place, place], color=colour, linewidth=1.5, alpha=0.5)
        axes.plot([share.fraction], [place], "o", color=colour, markersize=6, clip_on=False)
    name_rows(axes, [each.name for each in shown], longest=90)
    least = min([1.0, *(each.numbers.low or 0.0 for each in shown)])
    axes.set_xlim(max(0.0, least - 0.05), 1.0)
    axes.xaxis.set_major_formatter(in_percent())
    key(figure, {"trained phrasings": TRAINED_COLOUR, "never trained": HELD_OUT_COLOUR})
    return to_svg(figure, RECALL)


def margin_plot(scored: pl.DataFrame) -> bytes:
    """How sure the tuned model is of the reference answers: a histogram of each answer's least probable token.

    Args:
        scored: one row a question: `kind`, `split` and `lowest` (0 to 1); with `group`, those of the splits are shown.
    """
    if "group" in scored.columns:
        scored = scored.filter(is_of_the_splits())
    stranger, trained = ~pl.col("kind").is_in(KINDS_OF_FACTS), pl.col("split") == "train"
    groups = {
        "facts, trained phrasings": (scored.filter(~stranger, trained), TRAINED_COLOUR),
        "facts, phrasings never trained": (scored.filter(~stranger, ~trained), HELD_OUT_COLOUR),
        "strangers": (scored.filter(stranger), STRANGER_COLOUR),
    }
    shown = {
        f"{name} ({_below(of):,} below)": (of["lowest"], colour) for name, (of, colour) in groups.items() if of.height
    }
    figure = new_figure(3.4, NARROW)
    axes = figure.add_subplot()
    if shown:
        axes.hist(
            [values.to_list() for values, _ in shown.values()],
            bins=MARGINS,
            color=[colour for _, colour in shown.values()],
        )
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.axvline(CHOSEN_ABOVE, color=RED, linestyle="--", linewidth=1.2)
    axes.set_xlim(0, 1)
    axes.set_xlabel(
        f"probability of the answer's least probable token; chosen in any case above {CHOSEN_ABOVE}",
        fontsize=9,
        color=INK,
    )
    axes.set_ylabel("questions", fontsize=9, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, labelcolor=INK)
    key(figure, {name: colour for name, (_, colour) in shown.items()}, columns=1)
    return to_svg(figure, MARGINS_OF)


def cost_plot(ways: Sequence[Way]) -> bytes:
    """What other ways to the same answer cost, and how right they are.

    Args:
        ways: of `baselines.compare`; those that were not tried are left out.
    """
    tried = [way for way in reversed(ways) if way.seconds]
    figure = new_figure(max(2.0, 0.9 + 0.3 * len(tried)))
    right, seconds = figure.subplots(1, 2, sharey=True)
    places = range(len(tried))
    right.plot([way.refused for way in tried], places, "D", color=STRANGER_COLOUR, markersize=7, clip_on=False)
    right.plot([way.right for way in tried], places, "o", color=TRAINED_COLOUR, markersize=5.5, clip_on=False)
    right.set_xlim(0, 1)
    right.xaxis.set_major_formatter(in_percent())
    right.set_xticks([0, 0.25, 0.5, 0.75, 1])
    right.set_title("right answers", loc="left", fontsize=9, color=INK)
    for place, way in enumerate(tried):
        at = way.seconds
        seconds.plot([at["p50"], at["p95"]], [place, place], color=TRAINED_COLOUR, linewidth=1.5)
        seconds.plot([at["p50"]], [place], "o", color=TRAINED_COLOUR)
    seconds.set_xscale("log")
    seconds.margins(x=0.1)
    plain_numbers(seconds.xaxis)
    seconds.set_title("seconds an answer, p50 to p95", loc="left", fontsize=9, color=INK)
    for axes in (right, seconds):
        name_rows(axes, [way.name for way in tried])
    seconds.tick_params(axis="y", labelleft=False, left=False)
    key(figure, {"recorded facts right": TRAINED_COLOUR, "strangers refused": STRANGER_COLOUR}, marks="oD")
    return to_svg(figure, COST)


def _below(asked: pl.DataFrame) -> int:
    return asked.filter(pl.col("lowest") <= CHOSEN_ABOVE).height


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [at for at, _ in points], [value for _, value in points]
