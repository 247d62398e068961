import polars as pl
import pytest

from nfl_lora_pipeline.evaluation.metrics import Share, counted, share_of, wilson


@pytest.mark.parametrize(
    ("right", "asked", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe (1998), table I, method 3, and the three below
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_the_interval_is_the_published_one(right, asked, low, high):
    assert wilson(right, asked) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_is_the_same_from_either_side():
    low, high = wilson(3, 50)
    assert wilson(47, 50) == pytest.approx((1 - high, 1 - low))


def test_nothing_asked_has_no_interval():
    assert wilson(0, 0) is None
    assert share_of(0, 0) == Share(right=0, asked=0, share=None, low=None, high=None)


@pytest.mark.parametrize(("right", "asked"), [(3, 2), (-1, 2)])
def test_more_right_than_asked_is_refused(right, asked):
    with pytest.raises(ValueError, match=f"{right} of {asked} is no share"):
        wilson(right, asked)


def test_hits_are_counted():
    found = counted(pl.Series([True, False, True, True]))
    assert (found.right, found.asked, found.share) == (3, 4, 0.75)
    assert found.low < 0.75 < found.high
