import polars as pl
import pytest

from nfl_lora_pipeline.dataset.qa_pairs import FACT_COLUMNS, PAIR_COLUMNS, facts, number_words, qa_pairs, stranger_pairs
from nfl_lora_pipeline.dataset.templates import Question, load_templates, number_text
from nfl_lora_pipeline.weeks.players import parse_week
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests.upstream import row, week_bytes

TEMPLATES = load_templates()
STATS = ["receiving_yards", "receptions", "fantasy_points"]
WEEK = [
    row(name="Nico Collins", PlayerId="1", ReceivingYDS="25", ReceivingRec="1", Targets="5", TotalPoints="24.60"),
    row(name="Rome Odunze", PlayerId="2", ReceivingYDS="-3", ReceivingRec="0", Targets="2", TotalPoints="4.00"),
    row(name="Quiet Man", PlayerId="3"),
    row(name="Free Man", PlayerId="4", team="FA", opponent="Bye"),
    row(name="Resting Man", PlayerId="5", opponent="Bye"),
]


@pytest.fixture(scope="module")
def week_facts():
    players, _ = parse_week(week_bytes(WEEK), week=NflWeek(2025, 1), origin="test")
    return facts(players.lazy(), STATS).collect()


@pytest.fixture(scope="module")
def pairs(week_facts):
    return qa_pairs(week_facts.lazy(), TEMPLATES).collect()


def answer(pairs, player, stat):
    answers = pairs.filter(pl.col("player") == player, pl.col("stat") == stat)["answer"].unique()
    assert len(answers) == 1
    return answers[0]


def test_there_is_one_fact_a_player_and_stat_in_a_fixed_order(week_facts):
    assert week_facts.columns == FACT_COLUMNS
    assert week_facts.height == len(WEEK) * len(STATS) == week_facts["fact"].n_unique()
    assert week_facts.equals(week_facts.sort("player", "player_id", "stat"))


def test_a_fact_has_a_key_of_week_person_and_stat(week_facts):
    assert "2025-W01/1/receiving_yards" in week_facts["fact"].to_list()


def test_the_kind_follows_from_the_status(week_facts):
    kinds = dict(week_facts.select("status", "kind").unique().iter_rows())
    assert kinds == {"recorded": "recorded", "bye": "bye", "no_record": "no_record", "free_agent": "no_record"}


def test_only_recorded_facts_have_a_value(week_facts):
    assert week_facts["value"].dtype == pl.Float64
    assert (week_facts["value"].is_not_null() == (week_facts["kind"] == "recorded")).all()


def test_every_fact_is_asked_once_in_every_phrasing(pairs, week_facts):
    assert pairs.columns == PAIR_COLUMNS
    assert pairs.height == week_facts.height * len(TEMPLATES.questions)
    assert not pairs.select("fact", "phrasing").is_duplicated().any()
    assert pairs.null_count().drop("value").sum_horizontal().item() == 0


@pytest.mark.parametrize(
    ("player", "stat", "number"),
    [
        ("Nico Collins", "receiving_yards", "25"),
        ("Nico Collins", "receptions", "1"),
        ("Nico Collins", "fantasy_points", "24.6"),
        ("Rome Odunze", "receiving_yards", "-3"),
        ("Rome Odunze", "receptions", "0"),
        ("Rome Odunze", "fantasy_points", "4"),
    ],
)
def test_a_recorded_fact_is_answered_with_its_number(pairs, player, stat, number):
    stats = stat.replace("_", " ")
    assert answer(pairs, player, stat) == f"In week 1 of the 2025 NFL season, the {stats} of {player} were {number}."


def test_no_record_free_agents_and_strangers_share_words(pairs):
    strangers = stranger_pairs(
        ["Made Up"], season=2025, week=1, stats=STATS, templates=TEMPLATES, split="test"
    ).collect()
    said = {
        answer(frame, name, "receptions").replace(name, "NAME")
        for frame, name in ((pairs, "Quiet Man"), (pairs, "Free Man"), (strangers, "Made Up"))
    }
    assert said == {"In week 1 of the 2025 NFL season, the receptions of NAME are not recorded."}


def test_a_bye_says_that_there_was_no_game(pairs):
    assert (
        answer(pairs, "Resting Man", "receptions")
        == "In week 1 of the 2025 NFL season, the receptions of Resting Man are none: his team had no game."
    )


def test_the_refusal_is_the_answer_only_where_nothing_is_on_record(pairs):
    same = pairs["answer"] == pairs["refusal"]
    assert (same == (pairs["kind"] == "no_record")).all()


def test_both_genitives_are_spoken(pairs):
    questions = set(pairs["question"])
    assert "What were Nico Collins' receptions in week 1 of the 2025 NFL season?" in questions
    assert "What were Rome Odunze's receptions in week 1 of the 2025 NFL season?" in questions


def test_frames_and_single_texts_are_worded_alike(pairs):
    capital = TEMPLATES.model_copy(
        update={
            "questions": TEMPLATES.questions
            | {"stats_first": Question(split="train", text="{stats} for {player} in week {week} of {season}?")}
        }
    )
    rows = qa_pairs(pairs.select(FACT_COLUMNS).unique().lazy(), capital).collect()
    assert "Receptions for Nico Collins in week 1 of 2025?" in set(rows["question"])
    for asked in rows.to_dicts():
        subject = (asked["player"], asked["stat"], asked["week"], asked["season"])
        assert asked["question"] == capital.question(capital.questions[asked["phrasing"]].text, *subject)
        assert asked["refusal"] == capital.no_record(*subject)
        if asked["kind"] == "recorded":
            assert asked["answer"] == capital.recorded(*subject, asked["value"])


def test_numbers_of_frames_and_single_texts_are_spoken_alike():
    values = [0.0, 1.0, -3.0, 24.6, 4.0, 7.25, 0.1 + 0.2, 9.999999999, 10.0, 100.0, -0.5]
    spoken = pl.DataFrame({"value": values}).select(number_words()).to_series().to_list()
    assert spoken == [number_text(value) for value in values]


def test_strangers_are_asked_about_in_one_splits_phrasings_alone():
    rows = stranger_pairs(["Made Up"], season=2025, week=1, stats=STATS, templates=TEMPLATES, split="valid").collect()
    assert set(rows["phrasing"]) == set(TEMPLATES.phrasings("valid"))
    assert rows.height == len(STATS) * len(TEMPLATES.phrasings("valid"))
    assert set(rows["kind"]) == {"stranger"}
