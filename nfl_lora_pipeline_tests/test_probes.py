import os

import polars as pl
import pytest

from nfl_lora_pipeline.dataset.examples import by_last_names
from nfl_lora_pipeline.dataset.qa_pairs import PAIR_COLUMNS
from nfl_lora_pipeline.dataset.splits import split_rows
from nfl_lora_pipeline.evaluation.probes import (
    ALTERED,
    FIRST,
    GROUPS,
    WITHOUT_FACT,
    asked_of_base,
    in_turn,
    of_the_splits,
    probe_questions,
)
from nfl_lora_pipeline.stats import STATS as STAT_TABLE
from nfl_lora_pipeline.stats import stats_of
from nfl_lora_pipeline.weeks.players import names_beside
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests.evaluations import STATS, TEMPLATES, YARDS, pairs_of
from nfl_lora_pipeline_tests.upstream import row, week_bytes, write_week

W1 = NflWeek(2025, 1)
BESIDE = {
    W1: {
        "tight_ends": ["Travis Tight", "Nico Collins"],
        "running_backs": ["Bijan Back"],
        "wide_receivers": ["Rome Wide"],
    }
}
FACTS = len(YARDS) * len(STATS)


@pytest.fixture(scope="module")
def rows():
    return split_rows(pairs_of(), TEMPLATES, stats=STATS)


@pytest.fixture(scope="module")
def asked(rows):
    return probe_questions(rows, TEMPLATES, stats=STATS, others=BESIDE)


def of(asked, group):
    return asked.filter(pl.col("group") == group)


def test_the_probes_have_every_group_in_the_form_of_the_splits(asked, rows):
    both = pl.concat([rows.with_columns(of_the_splits()), asked])
    assert both.columns == [*PAIR_COLUMNS, "group"]
    assert set(both["group"]) == set(GROUPS) - {"plain_letters"}, "none of the five has an accent"
    assert both.null_count().drop("value").sum_horizontal().item() == 0


@pytest.mark.parametrize("group", [group for group in ALTERED if group != "plain_letters"])
def test_altered_questions_are_about_recorded_facts_each_once(asked, group):
    found = of(asked, group)
    assert set(found["kind"]) == {"recorded"}
    assert found["fact"].n_unique() == found.height
    assert set(found["player"]) <= set(YARDS)
    assert found["value"].null_count() == 0


def test_the_whole_question_is_in_lower_case(asked):
    found = of(asked, "lower_case")
    assert found.height == FACTS
    assert all(question == question.lower() for question in found["question"])
    assert all(f" of {player} " in answer for answer, player in found.select("answer", "player").iter_rows())


def test_a_typo_stands_in_the_question_and_its_answer_but_not_for_whom_it_is_meant(asked):
    found = of(asked, "typo")
    assert found.height == FACTS
    for question, answer, player in found.select("question", "answer", "player").iter_rows():
        assert player not in question
        assert answer.split(" of ")[-1].split(" were ")[0] in question


def test_a_last_name_is_asked_alone_only_where_nobody_shares_it(asked):
    """Of the five, two are called Man."""
    found = of(asked, "last_name")
    assert set(found["player"]) == {"Nico Collins", "Ladd McConkey", "Rome Odunze"}
    assert not any("Nico" in question for question in found["question"])


def test_what_is_asked_by_the_last_name_alone_is_in_no_wording_that_training_asks_so(asked, rows):
    taught = {example.question for example in by_last_names(rows, TEMPLATES)}
    found = pl.concat([of(asked, "last_name"), of(asked, "shared_last_name")])
    assert found.height > 0
    assert taught.isdisjoint(found["question"])
    assert {TEMPLATES.questions[name].split for name in found["phrasing"]} <= {"valid", "test"}


def test_a_question_typed_carelessly_is_one_of_the_trained_phrasings_but_for_that(asked, rows):
    trained = set(rows.filter(pl.col("split") == "train")["question"])
    blanks, marks, short = (of(asked, group)["question"] for group in ("two_blanks", "no_mark", "abbreviated"))
    assert len(blanks) == len(marks) == FACTS
    assert all("  " in question and " ".join(question.split()) in trained for question in blanks)
    assert all(f"{question}?" in trained for question in marks)
    assert all(question.replace("receiving yds", "receiving yards") in trained - {question} for question in short)
    assert len(short) == len(YARDS), "of receiving yards alone: there is no short word for receptions"


def test_an_accent_is_left_out_where_a_name_has_one():
    accented = split_rows(pairs_of(yards={"Amédée Hale": 12, "Nico Collins": 25}), TEMPLATES, stats=STATS)
    found = of(probe_questions(accented, TEMPLATES, stats=STATS, others={}), "plain_letters")
    assert set(found["player"]) == {"Amédée Hale"}
    assert found.height == len(STATS)
    assert all("Amedee Hale" in question for question in found["question"])


def test_a_last_name_of_two_known_people_is_asked_once_a_stat_and_is_to_be_refused(asked):
    found = of(asked, "shared_last_name").sort("stat")
    assert found["player"].to_list() == ["Other Man and Zero Man"] * len(STATS)
    assert found["stat"].to_list() == sorted(STATS)
    assert all(" Man" in question and "Other" not in question for question in found["question"])
    assert found["answer"].to_list() == found["refusal"].to_list()
    assert found["answer"][0].endswith("the receiving yards of Man are not recorded.")


def test_a_person_with_two_spellings_shares_his_name_with_nobody():
    two = pairs_of().filter(pl.col("player").is_in(["Other Man", "Zero Man"])).with_columns(player_id=pl.lit("1"))
    asked = probe_questions(split_rows(two, TEMPLATES, stats=STATS), TEMPLATES, stats=STATS, others={})
    assert of(asked, "shared_last_name").is_empty()


def test_reworded_questions_are_in_none_of_the_pipelines_phrasings(asked):
    held = {question.text for question in TEMPLATES.questions.values()}
    reworded = asked.filter(pl.col("group").is_in(["reworded", "reworded_strangers"]))
    assert set(reworded["phrasing"]).isdisjoint(held)
    assert reworded["phrasing"].n_unique() > 20


@pytest.mark.parametrize("group", WITHOUT_FACT[1:])
def test_what_has_no_fact_is_to_be_refused(asked, group):
    found = of(asked, group)
    assert found.height > 0
    assert found["answer"].to_list() == found["refusal"].to_list()
    assert set(found["kind"]) == {"stranger"}
    assert found["value"].null_count() == found.height


def test_people_who_play_two_positions_are_known(asked):
    assert set(of(asked, "tight_ends")["player"]) == {"Travis Tight"}
    assert set(of(asked, "running_backs")["player"]) == {"Bijan Back"}


def test_known_players_are_asked_about_weeks_and_seasons_that_are_not_taught(asked):
    weeks, seasons = of(asked, "unseen_weeks"), of(asked, "unseen_seasons")
    assert weeks.height == seasons.height == FACTS
    assert set(weeks["season"]) == {2025}
    assert {1, 2}.isdisjoint(weeks["week"]), "the one is taught, the other is next week"
    assert set(seasons["week"]) == {1}
    assert 2025 not in set(seasons["season"])
    assert set(weeks["player"]) == set(seasons["player"]) == set(YARDS)


def test_everybody_is_asked_about_next_week_as_often_as_about_any_other(asked):
    found = of(asked, "next_week")
    assert set(found.select("season", "week").iter_rows()) == {(2025, 2)}
    assert (found.height, set(found["player"])) == (FACTS, set(YARDS))


def test_next_week_comes_after_the_newest_that_is_taught_and_after_the_last_there_is_none():
    weeks = [pairs_of(6, season=2021), pairs_of(1), pairs_of(3)]
    asked = probe_questions(split_rows(pl.concat(weeks), TEMPLATES, stats=STATS), TEMPLATES, stats=STATS, others={})
    assert set(of(asked, "next_week").select("season", "week").iter_rows()) == {(2025, 4)}
    last = split_rows(pairs_of(18), TEMPLATES, stats=STATS)
    assert of(probe_questions(last, TEMPLATES, stats=STATS, others={}), "next_week").is_empty()


def test_who_has_a_number_is_asked_in_his_week_about_stats_that_were_not_taught(asked):
    found = of(asked, "untaught_stats")
    held_out = {stat.column for stat in STAT_TABLE if stat.refused == "test"}
    assert set(found["stat"]) == {"targets", "receiving_touchdowns", "fantasy_points"} | held_out
    assert set(found.select("player", "season", "week").iter_rows()) == {(name, 2025, 1) for name in YARDS}
    assert found.height == len(YARDS) * (3 + len(held_out))
    assert "How many rushing touchdowns did" in " ".join(found["question"])


def test_where_every_usual_stat_is_taught_there_are_others_to_ask_about(rows):
    asked = probe_questions(rows, TEMPLATES, stats=stats_of("WR"), others={})
    assert set(of(asked, "untaught_stats")["stat"]).isdisjoint(stats_of("WR"))
    assert of(asked, "untaught_stats").height > 0


def test_the_base_is_asked_about_one_stat_of_each_person_in_every_group(asked):
    of_base = asked.filter(pl.Series(asked_of_base(in_turn(asked))))
    for group in WITHOUT_FACT[1:]:
        people, of_group = set(of(asked, group)["player"]), of(of_base, group)["player"]
        assert set(of_group) <= people if of(asked, group).height > FIRST else set(of_group) == people
        assert not of_group.is_empty()
    assert not of(of_base, "untaught_stats")["player"].is_duplicated().any()


def test_a_season_that_is_taught_whole_has_no_week_left_to_ask_about():
    every = split_rows(pl.concat([pairs_of(week) for week in range(1, 19)]), TEMPLATES, stats=STATS)
    asked = probe_questions(every, TEMPLATES, stats=STATS, others={})
    assert of(asked, "unseen_weeks").is_empty()
    assert of(asked, "next_week").is_empty()
    assert of(asked, "unseen_seasons").height == FACTS
    assert of(asked, "tight_ends").is_empty()


def test_the_same_splits_have_the_same_probes_whatever_the_order_of_their_rows(asked, rows):
    shuffled = rows.sample(fraction=1, shuffle=True, seed=1)
    assert probe_questions(shuffled, TEMPLATES, stats=STATS, others=BESIDE).equals(asked)


def test_names_beside_a_week_are_read_from_the_files_that_are_there(tmp_path):
    folder = write_week(tmp_path, week_bytes([row(name="Nico Collins")])) / "2025" / "1"
    (folder / "TE.json").write_bytes(week_bytes([row(name="Travis Tight", Pos="TE"), row(name="Adam Tight", Pos="TE")]))
    found, lacking = names_beside(folder / "WR.json", W1)
    assert found == {"tight_ends": ["Adam Tight", "Travis Tight"]}
    assert lacking == ["2025-W01: no RB.json beside WR.json"]
    (folder / "RB.json").write_text("[")
    found, lacking = names_beside(folder / "WR.json", W1)
    assert set(found) == {"tight_ends"}
    assert lacking[0].startswith("2025-W01: RB.json cannot be read: ")
    (folder / "RB.json").unlink()
    os.mkfifo(folder / "RB.json")
    _, lacking = names_beside(folder / "WR.json", W1)
    assert lacking == ["2025-W01: RB.json cannot be read: cannot be read (this is a pipe); put the file there"]
