"""How the learning rate goes."""

import pytest

from nfl_lora_pipeline.recipes.recipe import learning_rate
from nfl_lora_pipeline_tests.recipes import a_recipe

PEAK, LOWEST, START, END = 1e-3, 0.1, 100, 200


def rate(schedule: str, step: int, *, warmup_steps: int = 0) -> float:
    recipe = a_recipe(learning_rate=PEAK, schedule=schedule, warmup_steps=warmup_steps, lowest_rate=LOWEST)
    return learning_rate(recipe, step, START, END) / PEAK


@pytest.mark.parametrize("schedule", ["wsd", "constant", "linear", "cosine"])
def test_every_schedule_warms_up_to_its_peak_and_stays_there_until_the_way_down(schedule):
    rates = [rate(schedule, step, warmup_steps=3) for step in (0, 1, 2, 3, START)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


@pytest.mark.parametrize(
    ("schedule", "half_way", "at_the_end"),
    [
        ("constant", 1.0, 1.0),
        ("linear", (1 + LOWEST) / 2, LOWEST),
        ("cosine", (1 + LOWEST) / 2, LOWEST),
        ("wsd", (1 + LOWEST) / 2, LOWEST),
    ],
)
def test_a_schedule_goes_where_its_name_says(schedule, half_way, at_the_end):
    assert rate(schedule, 150) == pytest.approx(half_way)
    assert rate(schedule, END) == rate(schedule, END + 60) == pytest.approx(at_the_end)


def test_a_cosine_stays_up_longer_than_a_line_and_comes_down_later():
    assert rate("cosine", 120) > rate("linear", 120)
    assert rate("cosine", 180) < rate("linear", 180)
