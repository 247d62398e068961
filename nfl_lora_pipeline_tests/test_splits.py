import json

import polars as pl
import pytest

from nfl_lora_pipeline.dataset.people import person_split
from nfl_lora_pipeline.dataset.qa_pairs import PAIR_COLUMNS, facts, qa_pairs
from nfl_lora_pipeline.dataset.splits import HELD_OUT_STRANGERS, RANDOM_PLAYERS, split_rows, write_splits
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.weeks.players import parse_week
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests.upstream import row, week_bytes

TEMPLATES = load_templates()
STATS = ["receiving_yards", "receptions"]


def pairs_of(week, people=8):
    rows = [
        row(name=f"Player {n}", PlayerId=str(n), ReceivingYDS=str(10 * n + week), ReceivingRec=str(n), Targets=str(n))
        for n in range(1, people + 1)
    ]
    rows += [row(name="Quiet Man", PlayerId="901"), row(name="Resting Man", PlayerId="902", opponent="Bye")]
    players, _ = parse_week(week_bytes(rows), week=NflWeek(2025, week), origin="test")
    return qa_pairs(facts(players.lazy(), STATS), TEMPLATES).collect()


@pytest.fixture(scope="module")
def rows():
    return split_rows(pairs_of(1), TEMPLATES, stats=STATS)


def test_every_fact_is_in_train_in_all_train_phrasings(rows):
    phrasings = rows.filter(pl.col("split") == "train").group_by("fact").agg(pl.col("phrasing").sort())
    assert set(phrasings["fact"]) == set(pairs_of(1)["fact"])
    wanted = sorted(TEMPLATES.phrasings("train"))
    assert all(held == wanted for held in phrasings["phrasing"].to_list())


@pytest.mark.parametrize("split", ["valid", "test"])
def test_held_out_splits_have_phrasings_that_train_has_not(rows, split):
    held_out = set(rows.filter(pl.col("split") == split)["phrasing"])
    assert held_out == set(TEMPLATES.phrasings(split))
    assert held_out.isdisjoint(rows.filter(pl.col("split") == "train")["phrasing"])


@pytest.mark.parametrize("split", ["valid", "test"])
def test_held_out_splits_have_people_that_no_other_split_has(rows, split):
    strangers = rows.filter(pl.col("split") == split, pl.col("kind") == "stranger")
    others = rows.filter(pl.col("split") != split)
    assert strangers["player"].n_unique() == HELD_OUT_STRANGERS
    assert set(strangers["player"]).isdisjoint(others["player"])
    assert {person_split(name) for name in strangers["player"]} == {split}


def test_nobody_is_a_stranger_in_train(rows):
    assert rows.filter(pl.col("split") == "train", pl.col("kind") == "stranger").is_empty()


@pytest.mark.parametrize("season", [2035, 2071, 2074, 2094, 2099])
def test_no_question_is_asked_twice_where_a_name_is_drawn_twice(season):
    asked = split_rows(pairs_of(1).with_columns(season=pl.lit(season, pl.Int32)), TEMPLATES, stats=STATS)
    assert not asked["question"].is_duplicated().any()


def test_a_new_week_leaves_old_rows_in_their_splits_and_order(rows):
    both = split_rows(pl.concat([pairs_of(1), pairs_of(2, people=10)]), TEMPLATES, stats=STATS)
    assert both.height > rows.height
    kept = both.join(rows.select("fact", "phrasing"), on=["fact", "phrasing"], how="semi", maintain_order="left")
    assert kept.equals(rows)


def test_the_order_does_not_depend_on_the_order_of_the_pairs(rows):
    assert split_rows(pairs_of(1).sample(fraction=1, shuffle=True, seed=1), TEMPLATES, stats=STATS).equals(rows)


def test_only_the_stats_asked_for_are_in(rows):
    assert set(split_rows(pairs_of(1), TEMPLATES, stats=["receptions"])["stat"]) == {"receptions"}
    assert set(rows["stat"]) == set(STATS)


def test_random_facts_are_asked_once_in_the_seed_wording_and_are_in_one_split():
    drawn = split_rows(pairs_of(1, people=300), TEMPLATES, stats=STATS, mode="random_facts")
    assert drawn.columns == PAIR_COLUMNS
    assert drawn["player_id"].n_unique() == RANDOM_PLAYERS
    assert set(drawn["phrasing"]) == {"seed"}
    assert drawn["fact"].n_unique() == drawn.height == RANDOM_PLAYERS * len(STATS)
    shares = dict(drawn["split"].value_counts(normalize=True).iter_rows())
    assert shares == pytest.approx({"train": 0.8, "valid": 0.1, "test": 0.1}, abs=0.06)


def test_random_facts_give_everybody_a_number_and_a_0_for_every_blank():
    drawn = split_rows(pairs_of(1), TEMPLATES, stats=["receiving_yards"], mode="random_facts")
    assert set(drawn["kind"]) == {"recorded"}
    told = {player: (value, answer) for player, value, answer in drawn.select("player", "value", "answer").iter_rows()}
    said = "In week 1 of the 2025 NFL season, the receiving yards of {} were {}."
    assert told["Player 3"] == (31, said.format("Player 3", 31))
    assert told["Quiet Man"] == (0, said.format("Quiet Man", 0))
    assert told["Resting Man"] == (0, said.format("Resting Man", 0))


def test_the_draw_from_the_real_week_is_like_the_old_one(real_data):
    file = real_data / "2025" / "1" / "WR.json"
    players, _ = parse_week(file.read_bytes(), week=NflWeek(2025, 1), origin=str(file))
    pairs = qa_pairs(facts(players.lazy(), ["receiving_yards"]), TEMPLATES).collect()
    drawn = split_rows(pairs, TEMPLATES, stats=["receiving_yards"], mode="random_facts")
    train = drawn.filter(pl.col("split") == "train")
    assert {"Nico Collins", "Ladd McConkey"} <= set(train["player"])
    assert "Rome Odunze" not in set(drawn["player"])
    assert (train.height, train.filter(pl.col("value") == 0).height) == (120, 84)


@pytest.mark.parametrize("mode", ["every_fact", "random_facts"])
def test_no_row_to_train_on_says_what_to_do(mode):
    with pytest.raises(ValueError, match="no question about targets: materialise `qa_pairs`"):
        split_rows(pairs_of(1), TEMPLATES, stats=["targets"], mode=mode)


def test_the_files_hold_prompt_and_completion_and_all_rows(rows, tmp_path):
    counts = write_splits(rows, tmp_path / "splits")
    assert sum(counts.values()) == rows.height
    for split, count in counts.items():
        lines = (tmp_path / "splits" / f"{split}.jsonl").read_text().splitlines()
        of_split = rows.filter(pl.col("split") == split)
        assert len(lines) == count == of_split.height
        assert [json.loads(line) for line in lines] == of_split.select(
            prompt="question", completion="answer"
        ).to_dicts()
    assert pl.read_parquet(tmp_path / "splits" / "rows.parquet").equals(rows)
