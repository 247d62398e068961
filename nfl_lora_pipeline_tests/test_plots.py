import re
from dataclasses import replace
from xml.etree import ElementTree

import polars as pl
import pytest

from nfl_lora_pipeline.evaluation.baselines import Way
from nfl_lora_pipeline.evaluation.metrics import share_of
from nfl_lora_pipeline.reports.plots import DARK, Asked, cost_plot, loss_plot, margin_plot, recall_plot

LOSSES = [(10, 2.0), (20, 0.5), (30, 0.01)]
CERTAIN = [(24, 0.4), (30, 1.0)]
SCORED = pl.DataFrame(
    {
        "kind": ["recorded", "recorded", "bye", "no_record", "stranger"],
        "split": ["train", "test", "train", "train", "test"],
        "lowest": [0.9, 0.2, 1.0, 0.5, 0.0],
    }
)
ASKED = [
    Asked("How many?", share_of(9, 9), trained=True),
    Asked("with a typo", share_of(4, 9), trained=False),
    Asked("with nothing to ask", share_of(0, 0), trained=False),
]
WAYS = [
    Way("look-up", "table", right=1.0, seconds={"p50": 0.0002, "p95": 0.0003}),
    Way("a" * 60, "base", right=0.0, refused=1.0, seconds={"p50": 0.03, "p95": 0.05}),
    Way("not tried", "base"),
]


def texts(svg: bytes) -> list[str]:
    """The texts of a picture, which is well-formed."""
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "svg",
    [
        lambda: loss_plot(LOSSES, CERTAIN),
        lambda: loss_plot([], []),
        lambda: loss_plot(LOSSES, []),
        lambda: loss_plot([], CERTAIN),
        lambda: loss_plot([(10, 1.0), (20, 0.0)], CERTAIN),
        lambda: recall_plot(ASKED),
        lambda: recall_plot([]),
        lambda: margin_plot(SCORED),
        lambda: margin_plot(SCORED.clear()),
        lambda: cost_plot(WAYS),
        lambda: cost_plot([]),
    ],
)
def test_whatever_there_is_to_show_a_picture_is_well_formed_and_in_the_colours_of_its_surrounding(svg):
    drawn = svg()
    assert texts(drawn)
    body = drawn.decode().partition("</style>")[2]
    assert not re.search(r"#[0-9a-f]{6}\b", body)
    assert set(re.findall(r"var\(--plot-(\w+)\)", body)) <= {colour[1:] for colour in DARK}
    assert len(re.findall(r"(?s)prefers-color-scheme: dark", drawn.decode())) == 1


def test_a_picture_says_what_it_shows_to_who_cannot_see_it():
    root = ElementTree.fromstring(recall_plot(ASKED))
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == "Right numbers, with 95% intervals, by how the question is asked"


def test_the_same_figures_give_the_same_bytes_and_others_another_picture():
    assert loss_plot(LOSSES, CERTAIN) == loss_plot(LOSSES, CERTAIN) != loss_plot(LOSSES, CERTAIN[:1])
    assert loss_plot([list(point) for point in LOSSES], []) == loss_plot(LOSSES, [])


def test_every_way_to_ask_has_a_line_but_one_in_which_nothing_was_asked():
    shown = texts(recall_plot(ASKED))
    assert {"How many?", "with a typo"} <= set(shown)
    assert "with nothing to ask" not in shown


def test_a_way_not_tried_costs_nothing():
    assert cost_plot(WAYS) == cost_plot(WAYS[:2]) != cost_plot(WAYS[:1])


def test_a_name_with_dollars_or_tags_is_a_name_and_no_formula_or_tag():
    name = r"$\nothing{$ $x$ <b>&amp;"
    assert name in texts(cost_plot([replace(WAYS[0], name=name)]))
