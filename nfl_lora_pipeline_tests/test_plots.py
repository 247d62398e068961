import struct
from dataclasses import replace

import polars as pl
import pytest

from nfl_lora_pipeline.evaluation.baselines import Way
from nfl_lora_pipeline.reports.plots import cost_plot, loss_plot, margin_plot, recall_plot

LOSSES = [(10, 2.0), (20, 0.5), (30, 0.01)]
CERTAIN = [(24, 0.4), (30, 1.0)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("losses", "certain"), [(LOSSES, CERTAIN), ([], []), (LOSSES, []), ([], CERTAIN), ([(10, 1.0), (20, 0.0)], CERTAIN)]
)
def test_a_png_is_drawn_also_of_nothing_and_of_a_loss_of_zero(losses, certain):
    png = loss_plot(losses, certain)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert 2 < width / height < 2.6


def test_other_figures_give_another_picture():
    assert loss_plot(LOSSES, CERTAIN) != loss_plot(LOSSES, CERTAIN[:1])


def test_the_lists_of_a_json_file_are_drawn_like_pairs():
    assert loss_plot([list(point) for point in LOSSES], []) == loss_plot(LOSSES, [])


SCORED = pl.DataFrame(
    {
        "kind": ["recorded", "recorded", "bye", "no_record", "stranger"],
        "stat": ["targets", "receptions", "targets", "targets", "targets"],
        "phrasing": ["seed", "tell_me", "seed", "seed", "tell_me"],
        "split": ["train", "test", "train", "train", "test"],
        "right": [True, False, True, True, True],
        "lowest": [0.9, 0.2, 1.0, 0.5, 0.0],
    }
)
WAYS = [
    Way("look-up", "table", right=1.0, seconds={"p50": 0.0002, "p95": 0.0003}),
    Way("a" * 60, "base", right=0.0, refused=1.0, seconds={"p50": 0.03, "p95": 0.05}),
    Way("not tried", "base"),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "png",
    [
        lambda: recall_plot(SCORED),
        lambda: recall_plot(SCORED.filter(pl.col("right"))),
        lambda: recall_plot(SCORED.clear()),
        lambda: margin_plot(SCORED),
        lambda: margin_plot(SCORED.clear()),
        lambda: cost_plot(WAYS),
        lambda: cost_plot([]),
    ],
)
def test_pictures_are_as_wide_as_each_other_whatever_there_is_to_show(png):
    assert struct.unpack(">I", png()[16:20]) == struct.unpack(">I", loss_plot(LOSSES, CERTAIN)[16:20])


def test_questions_of_a_group_are_one_line_whatever_their_phrasings():
    grouped = SCORED.with_columns(group=pl.Series(["known", "reworded", "known", "known", "invented_names"]))
    named = SCORED.with_columns(phrasing=pl.Series(["seed", "reworded", "seed", "seed", "any"]))
    assert recall_plot(grouped) == recall_plot(named) != recall_plot(SCORED)


def test_a_fact_without_a_record_is_no_recall_and_a_way_not_tried_costs_nothing():
    assert recall_plot(SCORED) == recall_plot(SCORED.filter(pl.col("kind") != "no_record"))
    assert cost_plot(WAYS) == cost_plot(WAYS[:2]) != cost_plot(WAYS[:1])


def test_a_name_with_dollars_is_a_name_and_no_formula():
    hostile = [replace(WAYS[0], name=r"$\nothing{$ $x$")]
    assert cost_plot(hostile) != cost_plot(WAYS[:1])
