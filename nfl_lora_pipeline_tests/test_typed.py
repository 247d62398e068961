"""How questions are typed while a base is made and tuned: what is written of a week, of a season and of a name."""

import random
import re
from dataclasses import replace

import pytest

from nfl_lora_pipeline.dataset.people import is_last_name_alone
from nfl_lora_pipeline.dataset.typed import CAREFUL, TEAMS, Typing, said_otherwise, typed

TEXT = "How many {stats} did {player} have in week {week} of the {season} NFL season?"
NAME = "Nico Collins"


def asked(times=400, *, text=TEXT, name=NAME, **shares):
    """Questions about week 1 of 2025, and the names as they are written there."""
    typing, rng = replace(CAREFUL, **shares), random.Random(3)
    return [typed(rng, text, name, "targets", 1, 2025, typing=typing) for _ in range(times)]


def test_careful_typing_leaves_a_question_as_it_is():
    assert asked(3) == 3 * [("How many targets did Nico Collins have in week 1 of the 2025 NFL season?", NAME)]
    assert set(vars(CAREFUL).values()) == {0.0}
    assert [name for name, value in vars(Typing()).items() if not value] == ["for_tuning"]


@pytest.mark.parametrize(
    "way", ["week one", "the first week", "the opening week", "wk1", "w1", "W1", "week1", "week #1", "week 01"]
)
def test_a_week_is_written_in_words_and_in_short(way):
    questions = {question for question, _ in asked(otherwise=1.0)}
    assert any(f" in {way} of " in question for question in questions)


@pytest.mark.parametrize("way", ["2025-26", "2025/26", "'25", "25/26"])
def test_a_season_is_written_in_short_and_with_both_its_years(way):
    assert any(f" the {way} NFL season?" in question for question, _ in asked(otherwise=1.0))


def test_whatever_it_is_written_like_one_week_and_one_season_stay_in_the_question():
    numbers = re.compile(r"\b(?:one|first|opening|wk\.? ?1|w1|week ?#?0?1)\b", re.IGNORECASE)
    for question, name in asked(otherwise=1.0):
        assert len(numbers.findall(question)) == 1, question
        assert len(re.findall(r"'?\b(?:20)?25\b(?:[-/]26)?", question)) == 1, question
        assert name == NAME


def test_a_question_without_a_week_stays_without_one():
    question = "How many targets did Nico Collins have?"
    assert {said_otherwise(random.Random(seed), question, 1, 2025) for seed in range(50)} == {question}


def test_a_position_or_a_team_beside_a_name_is_no_part_of_it():
    found = asked(described=1.0)
    assert {name for _, name in found} == {NAME}
    for question, _ in found:
        beside = question.removeprefix("How many targets did ").removesuffix(" have in week 1 of the 2025 NFL season?")
        assert NAME in beside
        assert beside != NAME
    teams = {team for _, team in TEAMS}
    assert len(teams) == 32
    assert any(any(team in question for team in teams) for question, _ in found)
    genitives = [
        question for question, _ in asked(text="{possessive} {stats} in week {week} of {season}?", described=1.0)
    ]
    assert all("Nico Collins' targets" in question for question in genitives)


def test_an_initial_and_a_last_name_before_the_first_are_written_so_in_the_answer_too():
    assert set(asked(3, initial=1.0)) == {
        (TEXT.format(stats="targets", player="N. Collins", week=1, season=2025), "N. Collins")
    }
    (_, written), *_ = asked(3, last_first=1.0, name="Marvin Harrison Jr.")
    assert written == "Harrison, Marvin"
    assert is_last_name_alone("N. Collins", NAME)
    assert is_last_name_alone("Collins", NAME)
    assert not is_last_name_alone(NAME, NAME)
    assert not is_last_name_alone("Collins, Nico", NAME)


def test_a_name_in_capitals_is_the_same_name():
    (question, written), *_ = asked(1, capitals=1.0)
    assert question == "How many targets did NICO COLLINS have in week 1 of the 2025 NFL season?"
    assert written == NAME
