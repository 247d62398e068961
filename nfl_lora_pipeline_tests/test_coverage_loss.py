"""What a new adapter was not taught of what the promoted one knows, and which adapter it may go on from."""

import json

import polars as pl
import pytest

from nfl_lora_pipeline.adapters.lineage import COLUMNS, choose_parent, taught_facts
from nfl_lora_pipeline.adapters.promotion import promote
from nfl_lora_pipeline.dataset.splits import split_rows
from nfl_lora_pipeline.evaluation.regressions import coverage_loss_of, in_words, parts_of, without_question
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import Provenance
from nfl_lora_pipeline_tests.evaluations import STATS, TEMPLATES, YARDS, pairs_of
from nfl_lora_pipeline_tests.fakes import put_adapter

OLD, NEW = "a" * 16, "b" * 16
RECIPE = {"rank": 4, "scale": 2.0}
REAL, SAMPLE = {"2025-W01": "folder"}, {"2025-W01": "sample"}
ALIKE = {"base_revision": "r", "stats": STATS, "mode": "every_fact", "code": "1", "recipe_values": {"lora": RECIPE}}


def rows_of(*weeks: int, yards: dict[str, int] = YARDS, stats: list[str] = STATS) -> pl.DataFrame:
    pairs = pl.concat([pairs_of(week=week, yards=yards) for week in weeks])
    return split_rows(pairs, TEMPLATES, stats=stats)


def put_taught(store: Store, fingerprint: str, rows: pl.DataFrame, **made_of):
    put_adapter(store, fingerprint, **{**ALIKE, "sources": REAL, **made_of})
    taught_facts(rows).write_parquet(store.taught_facts(fingerprint))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "data")


def coverage_loss(store: Store, old: pl.DataFrame, new: pl.DataFrame, *, replace: bool = False, **made_of):
    put_taught(store, OLD, old, **made_of)
    put_taught(store, NEW, new)
    promote(store, OLD)
    return coverage_loss_of(store, NEW, replace=replace)


def test_taught_is_every_fact_of_the_train_split_once_and_no_stranger():
    facts = taught_facts(rows_of(1))
    assert facts.columns == COLUMNS
    assert facts.height == facts["fact"].n_unique() == 2 * (len(YARDS) + 2)
    assert set(facts["kind"]) == {"recorded", "bye", "no_record"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (rows_of(1, 2), rows_of(1), "week 2 of 2025 (14 facts)"),
        (rows_of(1, 2, 3, 5), rows_of(1), "weeks 2-3, 5 of 2025 (42 facts)"),
        (rows_of(1), rows_of(1, stats=["receptions"]), "receiving yards (7 facts)"),
        (rows_of(1, 2), rows_of(1, stats=["receptions"]), "week 2 of 2025 (14 facts), receiving yards (7 facts)"),
        (
            rows_of(1),
            rows_of(1, yards={name: n for name, n in YARDS.items() if name != "Zero Man"}),
            "Zero Man (receiving yards, week 1 of 2025), Zero Man (receptions, week 1 of 2025)",
        ),
    ],
)
def test_what_is_given_up_is_counted_and_named_by_week_stat_and_person(store, old, new, words):
    found = coverage_loss(store, old, new)
    assert found.against == OLD
    assert found.answers > 0
    assert in_words(found.parts) == words


def test_many_people_are_counted_beyond_the_first_three():
    old, new = taught_facts(rows_of(1)), taught_facts(rows_of(1, yards={"Nico Collins": 25}))
    assert in_words(parts_of(without_question(old, new), new)).endswith(" and 5 more")


@pytest.mark.parametrize(
    "new",
    [
        rows_of(1, 2),
        rows_of(1, yards=YARDS | {"Nico Collins": 26}),
        rows_of(1).with_columns(fact=pl.col("fact") + "-corrected", player_id=pl.col("player_id") + "-corrected"),
        rows_of(1).filter(pl.col("player") != "Quiet Man"),
    ],
    ids=["more", "a corrected number", "a corrected id", "somebody without a record left out"],
)
def test_more_a_correction_and_somebody_without_a_record_give_nothing_up(store, new):
    found = coverage_loss(store, rows_of(1), new)
    assert (found.answers, found.parts) == (0, [])


def test_nothing_is_given_up_where_nothing_was_promoted(store):
    put_taught(store, NEW, rows_of(1))
    assert coverage_loss_of(store, NEW, replace=False) is None


def test_the_invented_sample_is_given_up_for_real_weeks_and_not_the_other_way_round(store):
    assert coverage_loss(store, rows_of(1, 2), rows_of(1), sources=SAMPLE) is None
    promote(store, NEW)
    found = coverage_loss_of(store, OLD, replace=False)
    assert in_words(found.parts) == "all that it knows of real people (14 facts)"


@pytest.mark.parametrize("kept", ["predictions", "provenance"])
def test_an_adapter_of_earlier_code_is_known_by_its_report_or_by_what_it_was_made_of(store, kept):
    put_adapter(store, OLD, weeks=["2025-W01", "2025-W02"], stats=STATS)
    put_taught(store, NEW, rows_of(1))
    promote(store, OLD)
    if kept == "predictions":
        store.report(OLD).mkdir(parents=True)
        rows_of(1, 2).write_parquet(store.report(OLD) / "predictions.parquet")
    found = coverage_loss_of(store, NEW, replace=False)
    assert "week 2 of 2025" in in_words(found.parts)


def parent_of(store: Store, new: pl.DataFrame, **made_of) -> tuple[str | None, str]:
    wanted = ALIKE | {"weeks": ["2025-W01", "2025-W02"], "sources": REAL | {"2025-W02": "folder"}} | made_of
    base = {"base_model": "embedded", "recipe": "embedded", "rows": "0"}
    parent, why = choose_parent(store, Provenance(**base | wanted), new)
    return parent, "\n".join(why)


def test_the_next_week_goes_on_from_the_adapter_of_the_weeks_before(store):
    put_taught(store, OLD, rows_of(1))
    parent, why = parent_of(store, rows_of(1, 2))
    assert parent == OLD
    assert why == f"going on from adapter {OLD}, which knows 2025-W01: 10 of its 10 numbers still stand"


def test_of_several_the_promoted_one_is_gone_on_from_and_else_that_which_knows_most(store):
    put_taught(store, OLD, rows_of(1))
    put_taught(store, NEW, rows_of(1, 2), weeks=["2025-W01", "2025-W02"])
    assert parent_of(store, rows_of(1, 2))[0] == NEW
    promote(store, OLD)
    assert parent_of(store, rows_of(1, 2))[0] == OLD


def test_who_knows_mostly_other_numbers_is_no_parent(store):
    put_taught(store, OLD, rows_of(1))
    new = rows_of(1, yards=YARDS | {"Nico Collins": 26, "Rome Odunze": 38})
    parent, why = parent_of(store, new)
    assert parent is None
    assert why == f"not going on from adapter {OLD}: 8 of its 10 numbers still stand, under 90%"
    assert parent_of(store, rows_of(1, yards=YARDS | {"Nico Collins": 26}))[0] == OLD, "one in ten corrected"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ({"sources": SAMPLE}, {}, "it knows invented people, and others are taught now"),
        ({}, {"sources": SAMPLE}, "it knows real people, and others are taught now"),
        ({"weeks": ["2025-W01", "2025-W03"]}, {}, "it knows 2025-W03, which is not taught now"),
        ({"stats": ["targets"], "code": "0"}, {}, "made with another stats, code"),
        ({"recipe_values": {"lora": RECIPE | {"rank": 8}}}, {}, "made with another rank"),
        ({"recipe_values": RECIPE | {"rank": 8}}, {}, "made with another rank"),
    ],
)
def test_what_was_made_otherwise_or_of_other_people_is_no_parent(store, old, new, why):
    put_taught(store, OLD, rows_of(1), **old)
    parent, said = parent_of(store, rows_of(1, 2), **new)
    assert parent is None
    assert why in said


def test_an_adapter_of_earlier_code_is_a_parent_by_its_report_alone(store):
    put_adapter(store, OLD, **ALIKE)
    assert parent_of(store, rows_of(1, 2))[1] == (
        f"not going on from adapter {OLD}: what it was taught is not on record"
    )
    store.report(OLD).mkdir(parents=True)
    rows_of(1).write_parquet(store.report(OLD) / "predictions.parquet")
    assert parent_of(store, rows_of(1, 2))[0] == OLD
    (store.report(OLD) / "report.json").write_text(json.dumps({"sources": SAMPLE}))
    assert parent_of(store, rows_of(1, 2))[0] is None


def test_a_damaged_adapter_is_no_parent_and_keeps_no_other_from_being_one(store):
    put_taught(store, OLD, rows_of(1))
    put_taught(store, NEW, rows_of(1))
    (store.adapter(NEW) / "provenance.json").write_text("{")
    assert parent_of(store, rows_of(1, 2))[0] == OLD
