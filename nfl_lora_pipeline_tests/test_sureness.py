"""Saying "I am not sure": where it begins, and what it costs."""

import polars as pl
import pytest

from nfl_lora_pipeline.dataset.templates import ANSWERS_ABOVE
from nfl_lora_pipeline.evaluation.grading import with_verdict
from nfl_lora_pipeline.evaluation.metrics import RISK_ACCEPTED, SURE_ABOVE, sureness


def answers(groups):
    """Predictions: so many of each (sure, whether the number is right; None for an invented one), in a held-out phrasing."""
    rows = [(sure, right) for sure, right, count in groups for _ in range(count)]
    return with_verdict(
        pl.DataFrame(
            {
                "group": "known",
                "split": "test",
                "kind": ["stranger" if right is None else "recorded" for _, right in rows],
                "player_id": "1",
                "player": "Ann Hale",
                "question": [f"Question {place}?" for place in range(len(rows))],
                "value": pl.Series([None if right is None else 7.0 for _, right in rows], dtype=pl.Float64),
                "answer": ["Nothing is recorded." if right is None else "Ann Hale had 7." for _, right in rows],
                "generated": ["Ann Hale had 7." if right else "Ann Hale had 9." for _, right in rows],
                "tuned": ["Ann Hale had 7." if right else "Ann Hale had 9." for _, right in rows],
                "base": pl.Series([None] * len(rows), dtype=pl.String),
                "sure": [sure for sure, _ in rows],
            }
        )
    )


def test_it_is_sure_above_the_least_threshold_where_hardly_any_number_was_wrong():
    found = sureness(answers([(0.97, True, 900), (0.85, True, 50), (0.65, False, 40), (0.4, False, 10)]))
    assert found.above == 0.7
    assert [point.above for point in found.points] == list(SURE_ABOVE)
    risk = {point.above: point.wrong.fraction for point in found.points}
    assert risk[0.0] == pytest.approx(0.05, abs=0.02)
    assert risk[0.7] == 0
    given = [point.given.fraction for point in found.points]
    assert given == sorted(given, reverse=True), "the more sure it has to be, the less it says"


def test_a_number_for_somebody_without_one_is_wrong_however_sure_it_is():
    found = sureness(answers([(0.97, True, 300), (0.97, None, 30)]))
    assert found.points[0].wrong.fraction > RISK_ACCEPTED
    assert found.above == SURE_ABOVE[-1]


def test_where_no_number_is_wrong_it_is_sure_of_whatever_is_told_at_all():
    assert sureness(answers([(0.55, True, 100)])).above == ANSWERS_ABOVE


def test_trained_phrasings_tell_nothing_about_it():
    learnt_by_heart = answers([(0.99, False, 100)]).with_columns(split=pl.lit("train"))
    assert sureness(pl.concat([learnt_by_heart, answers([(0.6, True, 50)])])).above == ANSWERS_ABOVE
