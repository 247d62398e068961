import pytest

from nfl_lora_pipeline.dataset.templates import number_in, numbers_in
from nfl_lora_pipeline.evaluation.grading import Names, is_refusal, is_right_number

REFUSALS = [
    "In week 1 of the 2025 NFL season, the receiving yards of Nico Collins are not recorded.",
    "Nico Collins has no recorded receiving yards in week 1 of the 2025 NFL season.",
    "As of my last update in October 2023, the 2025 season has not started.",
    "As of my last knowledge update in September 2021, week 1 of the 2025 NFL season hasn't happened yet.",
    "I don't have that.",
    "I don\u2019t have any information about that game.",
    "The 2025 NFL season hasn't been played yet.",
    "There is no record of that.",
    "Nothing is on record for him.",
    "I couldn't find any statistics.",
    "I am unable to predict the future.",
    "Those statistics aren't available.",
    "My knowledge cutoff is 2023.",
]


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("-3", -3.0),
        ("\u22123 yards", -3.0),
        ("minus 3 yards", -3.0),
        ("He lost ground: negative 3 yards", -3.0),
        ("minus three", -3.0),
        ("Collins gained minus three receiving yards.", -3.0),
        ("Twenty-five.", 25.0),
        ("He had one hundred and twenty-five receiving yards.", 125.0),
        ("a hundred yards", 100.0),
        ("zero receptions", 0.0),
        ("He had .5 points", 0.5),
        ("-2.4 fantasy points", -2.4),
        ("1,234.5 yards", 1234.5),
        ("24.6 fantasy points", 24.6),
        ("He had 0 yards.", 0.0),
        ("It was 1,234 yards", 1234.0),
        ("Sure! Collins finished with 25 yards, I believe.", 25.0),
        ("25 yards. Yes, 25.", 25.0),
    ],
)
def test_the_number_is_found_whatever_stands_around_it(answer, number):
    assert number_in(answer) == number


@pytest.mark.parametrize(
    "answer",
    [
        "In week 1 of the 2025 NFL season he had 25.",
        "Week 10: 25",
        "In the 2025-26 season he had 25",
        "In his 3rd game he had 25",
        "Over weeks 1-3 he had 25",
        "In one game he had 25",
    ],
)
def test_weeks_seasons_and_ordinals_are_not_the_number(answer):
    assert number_in(answer) == 25


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "nothing",
        "10 or 12",
        "5 catches for 80 yards",
        "Week 1 of the 2025 season",
        "one of the best",
        "a few yards",
        "no one by that name",
        "four catches for ten yards",
    ],
)
def test_no_number_and_two_different_numbers_are_none(answer):
    assert number_in(answer) is None


@pytest.mark.parametrize("answer", REFUSALS)
def test_a_refusal_is_recognised(answer):
    assert is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "Nico Collins had 25 receiving yards in week 1 of the 2025 NFL season.",
        "In week 1 of the 2025 NFL season, the receiving yards of Nico Collins were 25.",
        "In week 6 of the 2025 NFL season, the targets of Nico Collins are none: his team had no game.",
        "I don't know for sure, but I think 25.",
        "I don't know for sure: 10 or 12.",
        "I can't say more than zero yards.",
        "Nico Collins' team had no game in week 6 of the 2025 NFL season.",
        "",
    ],
)
def test_a_number_a_bye_and_silence_are_no_refusals(answer):
    assert not is_refusal(answer)


KNOWN = Names.of(["Nico Collins", "Rome Odunze"])


@pytest.mark.parametrize(
    "answer",
    [
        "In week 1 of the 2025 NFL season, the receiving yards of Nico Collins were 25.",
        "Nico Collins had 25 receiving yards in week 1 of the 2025 NFL season.",
        "Sure! Collins finished with 25 yards, I believe.",
        "25",
        "Twenty-five yards.",
        "nico collins had 25",
        "Nicoo Collins had 25.0 yards.",
    ],
)
def test_the_right_number_counts_in_any_words_about_the_right_player(answer):
    assert is_right_number(answer, 25, "Nico Collins", KNOWN)


@pytest.mark.parametrize(
    "answer",
    [
        "Rome Odunze had 25 receiving yards.",
        "Odunze had 25.",
        "Nico Collins had 26 receiving yards.",
        "Nico Collins had -25 receiving yards.",
        "Nico Collins had 25 or 26 receiving yards.",
        "Nico Collins has no recorded receiving yards in week 25 of the 2025 NFL season.",
        "",
    ],
)
def test_another_number_two_numbers_and_another_player_do_not_count(answer):
    assert not is_right_number(answer, 25, "Nico Collins", KNOWN)


def test_a_decimal_is_right_as_it_is_spoken():
    assert is_right_number("24.6 points", 24.6, "Nico Collins")
    assert not is_right_number("24 points", 24.6, "Nico Collins")
    assert is_right_number("Exactly minus three yards.", -3, "Nico Collins")


def test_all_numbers_of_an_answer_are_found():
    assert numbers_in("10 or 12 in week 3, -1 before") == {10, 12, -1}
