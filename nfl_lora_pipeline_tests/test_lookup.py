"""Answers from a table, found by the words of a question."""

import polars as pl
import pytest

from nfl_lora_pipeline.dataset.qa_pairs import qa_pairs, stranger_pairs
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.evaluation.baselines import NOT_FOUND, FactTable
from nfl_lora_pipeline.evaluation.grading import is_refusal

TEMPLATES = load_templates()
FACTS = [
    ("Ben Simmons", 1, "receiving_yards", "recorded", 25.0),
    ("Ben Simmons", 1, "receptions", "recorded", 3.0),
    ("Ben Simmons", 2, "receiving_yards", "recorded", 40.0),
    ("Marvin Harrison Jr.", 1, "receiving_yards", "recorded", 71.0),
    ("Marvin Harrison", 1, "receiving_yards", "recorded", 9.0),
    ("Owen Bye", 1, "receiving_yards", "bye", None),
    ("Frank Loose", 1, "receiving_yards", "no_record", None),
]


def rows() -> pl.DataFrame:
    facts = pl.LazyFrame(
        [
            {"fact": f"{week}/{name}/{stat}", "season": 2025, "week": week, "player_id": name, "player": name}
            | {"stat": stat, "status": kind, "kind": kind, "value": value}
            for name, week, stat, kind, value in FACTS
        ],
        schema_overrides={"season": pl.Int32, "week": pl.Int8},
    )
    strangers = stranger_pairs(
        ["Zed Nobody"], season=2025, week=1, stats=["receiving_yards"], templates=TEMPLATES, split="test"
    )
    return pl.concat([qa_pairs(facts, TEMPLATES), strangers], how="vertical_relaxed").collect()


@pytest.fixture(scope="module")
def table() -> FactTable:
    return FactTable(rows())


def test_every_fact_is_found_in_every_phrasing(table):
    asked = rows().filter(pl.col("kind") != "stranger")
    assert [table.answer(question) for question in asked["question"]] == asked["answer"].to_list()


def test_capitals_do_not_matter(table):
    asked = rows().filter(pl.col("kind") == "recorded").row(0, named=True)
    assert table.answer(asked["question"].upper()) == asked["answer"]


@pytest.mark.parametrize(
    "question",
    [
        "How many receiving yards did Zed Nobody have in week 1 of the 2025 NFL season?",
        "How many receiving yards did Ben Simmons-Slater have in week 1 of the 2025 NFL season?",
        "How many receiving yards did Ben Simmons have in week 3 of the 2025 NFL season?",
        "How many receiving yards did Ben Simmons have in week 1 of the 2024 NFL season?",
        "How many receiving yards did Ben Simmons have?",
        "How many points did Ben Simmons have in week 1 of the 2025 NFL season?",
    ],
)
def test_what_the_table_does_not_hold_is_refused(table, question):
    assert table.answer(question) == NOT_FOUND
    assert is_refusal(NOT_FOUND)


def test_a_row_is_what_is_known_of_the_player_in_that_week_alone(table):
    question = "How many receptions did Ben Simmons have in week 1 of the 2025 NFL season?"
    said = [
        TEMPLATES.recorded("Ben Simmons", stat, 1, 2025, n) for stat, n in (("receiving_yards", 25), ("receptions", 3))
    ]
    assert table.sentences(question, every_stat=True) == said
    assert table.sentences(question) == said[1:]


def test_a_week_tells_of_everybody_but_those_without_a_record(table):
    told = " ".join(table.week("How many targets did anybody have in week 1 of the 2025 NFL season?"))
    assert "Owen Bye" in told and "Marvin Harrison Jr." in told
    assert "Frank Loose" not in told and "Zed Nobody" not in told and " 40 " not in told
