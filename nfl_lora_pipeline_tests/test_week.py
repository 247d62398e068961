import pytest

from nfl_lora_pipeline.weeks.week import NflWeek, parse_weeks


def test_a_week_and_its_key_are_the_same_thing():
    assert str(NflWeek(2025, 1)) == "2025-W01"
    assert NflWeek.parse("2025-W01") == NflWeek(2025, 1)


def test_weeks_sort_by_season_then_week():
    assert sorted([NflWeek(2025, 2), NflWeek(2024, 18), NflWeek(2025, 1)]) == [
        NflWeek(2024, 18),
        NflWeek(2025, 1),
        NflWeek(2025, 2),
    ]


@pytest.mark.parametrize("key", ["2025-W1", "2025-1", "25-W01", "2025-W01 ", ""])
def test_a_key_in_another_form_is_refused(key):
    with pytest.raises(ValueError, match="expected a partition key such as 2025-W01") as caught:
        NflWeek.parse(key)
    assert repr(key) in str(caught.value)


@pytest.mark.parametrize(
    ("season", "week", "value"), [(2025, 0, "week 0"), (2025, 19, "week 19"), (1999, 1, "season 1999")]
)
def test_a_week_outside_a_season_is_refused(season, week, value):
    with pytest.raises(ValueError, match=f"^{value}:"):
        NflWeek(season, week)


@pytest.mark.parametrize(
    ("text", "weeks"), [("1", [1]), ("1-3", [1, 2, 3]), ("6,1,4-6", [1, 4, 5, 6]), (" 2 , 18 ", [2, 18])]
)
def test_lists_and_ranges_of_weeks_are_read(text, weeks):
    assert parse_weeks(text) == weeks


@pytest.mark.parametrize(("text", "part"), [("1,x", "x"), ("3-1", "3-1"), ("0", "0"), ("17-19", "17-19"), ("1,", "")])
def test_a_part_that_is_no_week_is_named(text, part):
    with pytest.raises(ValueError, match="is not") as caught:
        parse_weeks(text)
    assert repr(part) in str(caught.value)
