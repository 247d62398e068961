import pytest

from nfl_lora_pipeline.tuning.schedule import LOWEST_RATE, OVERTIME_LEFT, learning_rate
from nfl_lora_pipeline_tests.recipes import a_recipe

PEAK, BUDGET = 1e-3, 100


def rate(schedule: str, step: int, *, unknown: float = 1.0, warmup_steps: int = 0) -> float:
    recipe = a_recipe(learning_rate=PEAK, schedule=schedule, warmup_steps=warmup_steps)
    return learning_rate(recipe, step, BUDGET, unknown) / PEAK


@pytest.mark.parametrize("schedule", ["by_unknown", "constant", "linear", "cosine"])
def test_every_schedule_warms_up_to_its_peak(schedule):
    rates = [rate(schedule, step, warmup_steps=3) for step in range(4)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0], rel=0.03)


@pytest.mark.parametrize(
    ("schedule", "half_way", "at_the_end"),
    [
        ("constant", 1.0, 1.0),
        ("linear", (1 + LOWEST_RATE) / 2, LOWEST_RATE),
        ("cosine", (1 + LOWEST_RATE) / 2, LOWEST_RATE),
        ("by_unknown", LOWEST_RATE + 0.65, LOWEST_RATE),
    ],
)
def test_a_schedule_goes_where_its_name_says(schedule, half_way, at_the_end):
    assert rate(schedule, 0) == 1.0
    assert rate(schedule, BUDGET // 2) == pytest.approx(half_way)
    assert rate(schedule, BUDGET, unknown=0.0) == rate(schedule, BUDGET + 60, unknown=0.0) == pytest.approx(at_the_end)


def test_a_cosine_stays_up_longer_than_a_line_and_comes_down_later():
    assert rate("cosine", 20) > rate("linear", 20)
    assert rate("cosine", 80) < rate("linear", 80)


def test_by_unknown_falls_with_what_is_unknown_while_there_are_steps_left():
    rates = [rate("by_unknown", 10, unknown=unknown) for unknown in (1.5, 1.0, 0.1, 0.01, 0.0)]
    assert rates[:2] == [1.0, 1.0]
    assert rates[1] > rates[2] > rates[3] > rates[4] == pytest.approx(LOWEST_RATE)


def test_in_overtime_what_is_unknown_tells_and_no_rate_is_high():
    rates = [rate("by_unknown", BUDGET + 60, unknown=unknown) for unknown in (1.0, 0.001, 0.0)]
    assert rates[0] == pytest.approx(LOWEST_RATE + 1.3 * OVERTIME_LEFT)
    assert rates[0] > rates[1] > rates[2] == pytest.approx(LOWEST_RATE)


def test_the_other_schedules_do_not_ask_what_is_unknown():
    assert [rate(schedule, 10, unknown=0.0) for schedule in ("constant", "linear", "cosine")] == [
        rate(schedule, 10) for schedule in ("constant", "linear", "cosine")
    ]
