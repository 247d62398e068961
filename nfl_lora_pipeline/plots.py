"""Pictures for reports and metadata."""

import io
from collections.abc import Sequence

INK, LOSS_COLOUR, CERTAIN_COLOUR = "#333333", "#c0392b", "#1f6fb2"


def loss_plot(losses: Sequence[tuple[int, float]], certain: Sequence[tuple[int, float]]) -> bytes:
    """Loss and share of certain rows over training.

    Args:
        losses: (iteration, nats a token), drawn on a logarithmic axis.
        certain: (iteration, share from 0 to 1).

    Returns:
        A PNG on a white ground, so that it can be read in light and dark surroundings.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7, 3), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    left = figure.add_subplot()
    left.plot(*_columns(losses), color=LOSS_COLOUR, label="loss")
    left.set_xlabel("iteration", color=INK)
    left.set_ylabel("loss on unknown tokens (nats)", color=LOSS_COLOUR)
    if losses:
        left.set_yscale("log")
    right = left.twinx()
    right.plot(*_columns(certain), color=CERTAIN_COLOUR, marker=".", label="certain")
    right.set_ylabel("rows certain", color=CERTAIN_COLOUR)
    right.set_ylim(0, 1.03)
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in (left, right):
        axes.spines["top"].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [at for at, _ in points], [value for _, value in points]
