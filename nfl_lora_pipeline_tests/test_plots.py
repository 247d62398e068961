import struct

import pytest

from nfl_lora_pipeline.plots import loss_plot

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
