import pytest

from nfl_lora_pipeline.exam.intervals import share_of
from nfl_lora_pipeline.reports.markdown import measured, of_asked, percent, table


@pytest.mark.parametrize(
    ("share", "text"), [(None, "-"), (0, "0%"), (1, "100%"), (0.9999, "99.9%"), (0.0001, "0.1%"), (0.5, "50.0%")]
)
def test_only_all_is_100_percent_and_only_nothing_is_0(share, text):
    assert percent(share) == text


def test_a_share_is_shown_with_its_interval_and_its_counts():
    assert measured(share_of(81, 263)) == "30.8% (25.5 to 36.6)"
    assert measured(share_of(13230, 13230)) == "100% (99.9 to 100.0)"
    assert measured(share_of(0, 0)) == "-"
    assert of_asked(share_of(1988, 2010)) == "1,988 of 2,010"


def test_a_table_holds_whatever_a_model_says():
    assert table(["a", "b"], [["x | y", "1\n2"]]) == "| a | b |\n| --- | --- |\n| x \\| y | 1 2 |\n"
