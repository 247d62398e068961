"""The table of stats: what it holds, what it refuses, and that a new stat is a new row of it and nothing else."""

import json

import pytest

from nfl_lora_pipeline.dataset.templates import choose_stats, untaught, wordings_hash
from nfl_lora_pipeline.defs.common import code_versions
from nfl_lora_pipeline.defs.resources import DatasetResource, Trainer
from nfl_lora_pipeline.stats import COLUMNS, STATS, TEACHABLE, Stat, stats_of
from nfl_lora_pipeline.weeks.players import UPSTREAM_KEYS
from nfl_lora_pipeline_tests.upstream import copy_of_package, python_with, row, week_bytes, write_week

CATCHING = ["receiving_yards", "receptions", "targets", "receiving_touchdowns", "fantasy_points"]
RUSHING = ["receiving_yards", "receptions", "rushing_yards", "carries", "rushing_touchdowns"]
PASSING = ["rushing_yards", "passing_touchdowns", "passing_yards", "interceptions"]
REFUSED_IN = {split: [stat.column for stat in STATS if stat.refused == split] for split in ("train", "test")}
NEW_STAT = "red_zone_touches"
NEW_ROW = (
    "    # Columns that",
    '    Stat("red_zone_touches", "RzTouch", "red zone touch", "red zone touches", (-60, 350)),\n    # Columns that',
)
TO_ANSWERS = """
import json, sys
from pathlib import Path
import dagster as dg
import polars as pl
from click.testing import CliRunner
from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.dataset.templates import wordings_hash
from nfl_lora_pipeline.defs.common import code_versions
from nfl_lora_pipeline.defs.resources import DatasetResource, StoreResource, Trainer, WeekSource
from nfl_lora_pipeline.defs.dataset import players, qa_pairs, raw_wr_json
from nfl_lora_pipeline.dataset.templates import numbers_in
from nfl_lora_pipeline.weeks.week import NflWeek

versions = code_versions(DatasetResource(), Trainer())
store = StoreResource(root="store")
instance = dg.DagsterInstance.ephemeral()
instance.add_dynamic_partitions("nfl_week", ["2025-W01"])
result = dg.materialize_to_memory(
    [raw_wr_json, players, qa_pairs],
    instance=instance,
    partition_key="2025-W01",
    resources={
        "store": store,
        "week_source": WeekSource(kind="folder", folder="raw"),
        "dataset": DatasetResource(stats=["STAT"]),
    },
)
checks = {check.check_name: check.description for check in result.get_asset_check_evaluations()}
pairs = pl.read_parquet(store.open().qa_pairs(NflWeek(2025, 1)))
options = ["run", "--source", "folder", "--data-dir", "raw", "--store", "none", "--base-model", "nowhere", "--stats"]
print(json.dumps({
    "pairs": pairs.filter(pl.col("phrasing") == "seed").select("player", "question", "answer").rows(),
    "plausible": checks["stats_are_plausible"],
    "help": CliRunner().invoke(main, ["run", "--help"]).output,
    "taken": CliRunner().invoke(main, [*options, "STAT"]).output,
    "refused": CliRunner().invoke(main, [*options, "punts"]).output,
    "versions": [wordings_hash(), versions["players"], versions["qa_pairs"]],
    "in_words": sorted(numbers_in("He had twelve PLURAL that day.")),
}))
"""


def test_all_is_what_is_usual_of_a_position_and_whatever_upstream_has_can_be_named():
    for position, usual in {"WR": CATCHING, "TE": CATCHING, "RB": RUSHING, "QB": PASSING}.items():
        assert choose_stats(["all"], position) == stats_of(position) == usual
    assert choose_stats(["targets", "receptions"]) == ["receptions", "targets"]
    assert choose_stats(["fumbles", "all"]) == [*CATCHING, "fumbles"]
    assert set(TEACHABLE) == {stat.column for stat in STATS if stat.upstream and stat.plural}
    with pytest.raises(ValueError, match=r"stat 'touches': use receiving_yards, .* or all"):
        choose_stats(["touches"])


def test_no_column_key_or_word_stands_in_two_rows():
    for values in (
        [stat.column for stat in STATS],
        [stat.upstream for stat in STATS if stat.upstream],
        [word for stat in STATS for word in (stat.singular, stat.plural) if word],
    ):
        assert len(values) == len(set(values))
    assert {stat.upstream for stat in STATS} - {""} <= set(UPSTREAM_KEYS)


def test_what_is_not_in_use_is_refused_where_its_row_says_and_what_is_in_use_nowhere():
    for split, stats in REFUSED_IN.items():
        assert len(stats) > 3
        assert untaught(CATCHING, split) == stats
        assert untaught(["targets"], split) == [s for s in CATCHING if s != "targets"] + stats
        in_use = {"rushing_yards", "rushing_touchdowns", "passing_yards"}
        assert untaught(sorted(in_use), split) == [s for s in [*CATCHING, *stats] if s not in in_use]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"column": "receiving yards"}, "a name such as receiving_yards"),
        ({"singular": ""}, "punts: give it both a singular and a plural"),
        ({"refused": "dev"}, "punts: refused 'dev': use 'train', 'test', 'both' or ''"),
        ({"of": ("K",)}, "punts: of 'K': use WR, RB, TE, QB"),
        ({"upstream": "", "refused": "test", "of": ("WR",)}, "punts: name upstream's key"),
        ({"singular": "", "plural": "", "refused": "test"}, "punts: it cannot be refused without words"),
        ({"upstream": ""}, "punts: name upstream's key"),
        ({"plausible": (9, 0)}, "punts: plausible (9, 0): give the lowest number first"),
    ],
)
def test_a_row_that_cannot_be_is_refused(fields, problem):
    with pytest.raises(ValueError, match=r"^stat ") as caught:
        Stat(**{"column": "punts", "upstream": "Punts", "singular": "punt", "plural": "punts"} | fields)
    assert problem in str(caught.value)


def test_a_new_stat_is_one_row_of_the_table_and_nothing_else(tmp_path):
    stat, package, (before, after) = NEW_STAT, copy_of_package(tmp_path), NEW_ROW
    table = package / "stats.py"
    assert table.read_text().count(before) == 1
    table.write_text(table.read_text().replace(before, after))
    key = "RzTouch"
    people = [
        row(name="Ann Example", **{key: "1"}),
        row(name="Bob Example", **{key: "-3"}),
        row(name="Cy Example", **{key: "999"}),
        row(name="Di Example", opponent="Bye"),
    ]
    write_week(tmp_path / "raw", week_bytes(people))
    plural = stat.replace("_", " ")
    made = json.loads(python_with(package, TO_ANSWERS.replace("STAT", stat).replace("PLURAL", plural)).splitlines()[-1])
    time, said = "in week 1 of the 2025 NFL season", f"In week 1 of the 2025 NFL season, the {plural} of"
    assert made["pairs"] == [
        [
            "Ann Example",
            f"How many {plural} did Ann Example have {time}?",
            f"{said} Ann Example were 1.",
        ],
        [
            "Bob Example",
            f"How many {plural} did Bob Example have {time}?",
            f"{said} Bob Example were -3.",
        ],
        [
            "Cy Example",
            f"How many {plural} did Cy Example have {time}?",
            f"{said} Cy Example were 999.",
        ],
        [
            "Di Example",
            f"How many {plural} did Di Example have {time}?",
            f"{said} Di Example are none: his team had no game.",
        ],
    ]
    assert made["plausible"].startswith("1 of 4 have a stat out of range: Cy Example")
    assert stat in " ".join(made["help"].split())
    assert "base model 'nowhere'" in made["taken"]
    assert "stat 'punts': use receiving_yards" in made["refused"]
    assert stat in made["refused"]
    versions = code_versions(DatasetResource(), Trainer())
    assert set(made["versions"]).isdisjoint([wordings_hash(), versions["players"], versions["qa_pairs"]])
    assert made["in_words"] == [12]


def test_the_frame_has_a_column_for_every_stat_that_upstream_has():
    assert set(TEACHABLE) < set(COLUMNS)
    assert "touches" not in COLUMNS
