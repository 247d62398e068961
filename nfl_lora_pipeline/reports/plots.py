"""Pictures for reports and metadata: PNG on a white ground, so that they can be read in light and dark surroundings.

Colours mean the same in all of them: blue is what was trained, orange what was not, grey are strangers.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from nfl_lora_pipeline.evaluation.baselines import Way
from nfl_lora_pipeline.evaluation.probes import IN_WORDS, is_of_the_splits, wording_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

INK, FAINT = "#333333", "#d9d9d9"
LONGEST_NAME = 36


def new_figure(height: float) -> "Figure":
    """A figure as wide as all others, and so many inches high."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, height), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def name_rows(axes: "Axes", names: Sequence[str]) -> None:
    """One line a name, the last on top."""
    words = [name.replace("_", " ") for name in names]
    shown = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}\u2026" for name in words]
    axes.set_yticks(range(len(names)), shown, parse_math=False)  # a name with two dollars is no formula
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="both", labelsize=8, labelcolor=INK, color=FAINT)
    axes.grid(axis="both", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def key(figure: "Figure", colours: dict[str, str], marks: str = "ooo") -> None:
    """Name the colours below the figure, each with its mark of matplotlib's."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker=mark, linestyle="", color=colour, label=name)
        for (name, colour), mark in zip(colours.items(), marks, strict=False)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8, labelcolor=INK)


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


def to_png(figure: "Figure") -> bytes:
    """The figure as a file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


LOSS_COLOUR, CERTAIN_COLOUR = "#c0392b", "#1f6fb2"
TRAINED_COLOUR, HELD_OUT_COLOUR, STRANGER_COLOUR = CERTAIN_COLOUR, "#d98200", "#6b6b6b"
CERTAIN_ABOVE = 0.5
KINDS_OF_FACTS = ["recorded", "bye", "no_record"]
MARGINS = [tenth / 10 for tenth in range(11)]


def loss_plot(losses: Sequence[tuple[int, float]], certain: Sequence[tuple[int, float]]) -> bytes:
    """Loss and share of certain rows over training.

    Args:
        losses: (iteration, nats a token), drawn on a logarithmic axis.
        certain: (iteration, share from 0 to 1).
    """
    figure = new_figure(3.1)
    left = figure.add_subplot()
    left.plot(*_columns(losses), color=LOSS_COLOUR, label="loss")
    left.set_xlabel("iteration", fontsize=9, color=INK)
    left.set_ylabel("loss on unknown tokens (nats)", fontsize=9, color=LOSS_COLOUR)
    if losses:
        left.set_yscale("log")
        plain_numbers(left.yaxis, between=(2, 5))
    right = left.twinx()
    right.plot(*_columns(certain), color=CERTAIN_COLOUR, marker=".", label="certain")
    right.set_ylabel("rows certain", fontsize=9, color=CERTAIN_COLOUR)
    right.set_ylim(0, 1.03)
    right.yaxis.set_major_formatter(in_percent())
    for axes in (left, right):
        axes.spines["top"].set_visible(False)
        axes.tick_params(labelsize=8)
    return to_png(figure)


def recall_plot(scored: pl.DataFrame) -> bytes:
    """Recall of recorded facts and byes, by stat and by phrasing; what was trained in one colour, what was not in another.

    Args:
        scored: one row a question: `kind`, `stat`, `phrasing`, `split` and `right`; with `group`, what is not of the
            group "known" is shown by its group, and not by its phrasing.
    """
    asked = scored.filter(pl.col("kind").is_in(KINDS_OF_FACTS[:2])).with_columns(trained=pl.col("split") == "train")
    if "group" in asked.columns:
        by_group = pl.when(pl.col("group") == "known").then("phrasing").otherwise("group")
        asked = asked.with_columns(phrasing=by_group)
    asked = asked.with_columns(wording_text().replace(IN_WORDS))
    panels = [_recall(asked, column) for column in ("stat", "phrasing")]
    rows = max(panel["name"].n_unique() for panel in panels)
    figure = new_figure(max(2.0, 0.9 + 0.3 * rows))
    least = min([1.0, *(share for panel in panels for share in panel["recall"])])
    for axes, panel, title in zip(figure.subplots(1, 2, sharex=True), panels, ("by stat", "by phrasing"), strict=True):
        names = panel["name"].unique(maintain_order=True).to_list()
        for name, trained, recall in panel.iter_rows():
            colour, size = (TRAINED_COLOUR, 5.5) if trained else (HELD_OUT_COLOUR, 8)  # so that both show in one place
            axes.plot([recall], [names.index(name)], "o", color=colour, markersize=size, clip_on=False)
        name_rows(axes, names)
        axes.set_xlim(max(0.0, least - 0.25 * (1 - least) - 0.005), 1.0)
        axes.locator_params(axis="x", nbins=4)
        axes.xaxis.set_major_formatter(in_percent(decimals=0 if least < 0.9 else 1))
        axes.set_title(f"recall {title}", loc="left", fontsize=9, color=INK)
    key(figure, {"trained phrasings": TRAINED_COLOUR, "phrasings never trained": HELD_OUT_COLOUR})
    return to_png(figure)


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
    figure = new_figure(2.8)
    axes = figure.add_subplot()
    if shown:
        axes.hist(
            [values.to_list() for values, _ in shown.values()],
            bins=MARGINS,
            color=[colour for _, colour in shown.values()],
        )
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.axvline(CERTAIN_ABOVE, color=LOSS_COLOUR, linestyle="--", linewidth=1.2)
    axes.set_xlim(0, 1)
    axes.set_xlabel(
        f"probability of the answer's least probable token; certain above {CERTAIN_ABOVE}", fontsize=9, color=INK
    )
    axes.set_ylabel("questions", fontsize=9, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, labelcolor=INK)
    key(figure, {name: colour for name, (_, colour) in shown.items()})
    return to_png(figure)


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
    return to_png(figure)


def _recall(asked: pl.DataFrame, column: str) -> pl.DataFrame:
    return (
        asked.group_by(name=pl.col(column).cast(pl.String), trained="trained")
        .agg(recall=pl.col("right").mean())
        .sort("trained", "recall", "name", descending=[False, False, True])
    )


def _below(asked: pl.DataFrame) -> int:
    return asked.filter(pl.col("lowest") <= CERTAIN_ABOVE).height


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [at for at, _ in points], [value for _, value in points]
