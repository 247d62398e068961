"""How much is asked: what a certificate has is not asked again, and of a large group no more than tells it from its limit."""

import dataclasses
import json
from pathlib import Path

import polars as pl
import pytest

from nfl_lora_pipeline import progress
from nfl_lora_pipeline.dataset.splits import split_rows
from nfl_lora_pipeline.dataset.templates import NOT_SURE
from nfl_lora_pipeline.evaluation.gates import undecided
from nfl_lora_pipeline.evaluation.grading import with_verdict
from nfl_lora_pipeline.evaluation.probes import (
    ENOUGH,
    FIRST,
    FIRST_OF_LARGE_BASE,
    TRAINED,
    asked_of_base,
    comes_first,
    in_turn,
    of_the_splits,
    questions_of,
)
from nfl_lora_pipeline.evaluation.summary import questions_to_show
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models import scoring
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.reports import evaluate
from nfl_lora_pipeline.reports.evaluate import Examination
from nfl_lora_pipeline.reports.report import read_summary
from nfl_lora_pipeline_tests.evaluations import STATS, TEMPLATES, YARDS, pairs_of, perfect_answers

RECIPE = load_recipe("embedded").changed(min_refused_stats=0.97, min_typo=0.8, max_wrong_typo=0.02)


@pytest.fixture(scope="module")
def questions():
    return in_turn(split_rows(pairs_of(), TEMPLATES, stats=STATS).with_columns(of_the_splits()))


def many(group, count, **columns):
    """So many answers of a group, all of them to one question."""
    answers = perfect_answers(pairs_of()).filter(pl.col("group") == group).head(1)
    return pl.concat([answers.clear(), *[answers.with_columns(**columns)] * count])


def refusing(share):
    refused = round(ENOUGH * share)
    right, wrong = many("untaught_stats", refused), many("untaught_stats", ENOUGH - refused, tuned=pl.lit("were 7."))
    return with_verdict(pl.concat([right, wrong]))


def test_the_turns_are_a_sample_that_no_order_of_the_rows_changes(questions):
    shuffled = in_turn(questions.drop("part", "turn").sample(fraction=1, shuffle=True, seed=3))
    same = questions.join(shuffled.select("question", "answer", "turn"), on=["question", "answer"])
    assert (same["turn"] == same["turn_right"]).all()
    for (part,), rows in questions.group_by("part"):
        assert sorted(rows["turn"]) == list(range(rows.height)), part
    assert set(questions.filter(pl.col("part") == TRAINED)["split"]) == {"train"}
    assert set(questions.filter(pl.col("part") == "known")["split"]) == {"valid", "test"}


def test_what_is_taught_is_asked_in_every_trained_phrasing_and_of_all_else_the_first_come_first(questions):
    large = questions.with_columns(turn=pl.col("turn") + FIRST - 1)
    first = large.filter(comes_first())
    assert first.filter(pl.col("part") == TRAINED).height == questions.filter(pl.col("part") == TRAINED).height
    others = first.filter(pl.col("part") != TRAINED)
    assert others.height == others["part"].n_unique(), "one of each, since all but the first are beyond"


def test_the_base_is_asked_no_more_than_the_first_of_a_group_and_only_what_comes_first(questions):
    names = [f"Man Number{at}" for at in range(2 * FIRST)]
    rows = split_rows(pairs_of(yards=dict.fromkeys([*YARDS, *names], 7)), TEMPLATES, stats=STATS[:1])
    asked = in_turn(rows.with_columns(of_the_splits()))
    chosen = asked.filter(pl.Series(asked_of_base(asked)))
    known = chosen.filter(pl.col("group") == "known")
    assert known.height == FIRST
    assert not known["fact"].is_duplicated().any()
    assert chosen.filter(~comes_first()).is_empty()
    fewer = asked.filter(pl.Series(asked_of_base(asked, most=30)))
    assert set(fewer.filter(pl.col("group") == "known")["fact"]) == set(known.sort("turn").head(30)["fact"])
    assert fewer.group_by("group").len()["len"].max() == 30


@pytest.mark.parametrize(("share", "more"), [(1.0, False), (0.995, False), (0.975, True), (0.95, True), (0.9, False)])
def test_more_is_asked_where_the_interval_has_the_limit_in_it(share, more):
    assert undecided(refusing(share), RECIPE) == ({"untaught_stats"} if more else set())


def test_where_there_is_no_limit_nothing_more_is_asked():
    assert undecided(refusing(0.975), RECIPE.changed(min_refused_stats=None)) == set()


def test_more_is_asked_where_the_interval_has_a_floor_in_it():
    recipe = RECIPE.changed(min_refused_stats=0.98, advisory=["min_refused_stats"], floors={"min_refused_stats": 0.8})
    assert undecided(refusing(0.8), recipe) == {"untaught_stats"}
    assert undecided(refusing(0.8), recipe.changed(floors={})) == set()


def test_wrong_numbers_for_typos_have_a_limit_of_their_own():
    right, wrong = many("typo", ENOUGH - 4), many("typo", 4, tuned=pl.lit("Nico Collins had 999 receiving yards."))
    assert undecided(with_verdict(pl.concat([right, wrong])), RECIPE) == {"typo"}
    assert undecided(with_verdict(many("typo", ENOUGH)), RECIPE) == set()


def test_only_groups_near_their_limits_are_asked_more_than_the_first_questions(embedded, monkeypatch):
    """Nobody refuses another stat (at least 97% wanted); everything else is right, which tells 98% from less after 189."""
    groups = ["untaught_stats", "hand_written", "tight_ends"]
    questions = in_turn(pl.concat([many(group, 300).drop("generated", "tuned", "lowest", "sure") for group in groups]))

    def predict(model, tokenizer, asked, **_):
        wrong = pl.when(pl.col("group") == "untaught_stats").then(pl.lit("were 7.")).otherwise("answer")
        return asked.select(said=wrong, sure=pl.lit(0.9), lowest=pl.lit(0.9))

    monkeypatch.setattr(evaluate, "predict", predict)
    recipe = RECIPE.changed(min_hand_written=0.9, min_refused_positions=0.98)
    examination = Examination(*embedded, recipe, lambda line, share: None)
    predictions, exam = examination.of(questions, pl.DataFrame(schema=evaluate.MARGINS))
    assert [predictions.filter(pl.col("group") == group).height for group in groups] == [60, 60, 200]
    assert (exam.asked, exam.first) == (320, FIRST)


def test_a_certificate_that_the_sample_does_not_bear_out_is_not_believed(embedded, questions):
    """The base knows nobody, whatever a certificate says."""
    margins = questions.select(pl.col("fact").unique(), lowest=pl.lit(0.9), sure=pl.lit(0.9))
    examination = Examination(*embedded, RECIPE, lambda line, share: None)
    predictions, exam = examination.of(questions.with_columns(base=pl.lit(None, pl.String)), margins)
    assert (exam.certified, exam.possible) == (0, questions.height)
    assert exam.asked == predictions.height
    recorded = predictions.filter(pl.col("kind") == "recorded", pl.col("split") == "train")
    assert recorded.height > 0
    assert not recorded["right"].any()


def test_a_report_says_how_much_was_asked_and_what_the_certificate_has(trained_store):
    store = trained_store.store
    folder = store.report(store.latest())
    exam = json.loads((folder / "report.json").read_text())["exam"]
    predictions = pl.read_parquet(folder / "predictions.parquet")
    trained = predictions.filter(pl.col("group") == "known", pl.col("split") == "train")
    assert exam["certified"] == trained.height
    assert not trained["tuned"].eq(NOT_SURE).any(), "what is certified is told"
    assert exam["asked"] == predictions.height - trained.height
    assert exam["possible"] >= predictions.height
    assert exam["generated"]["right"] == exam["generated"]["asked"] > 0
    page = (folder / "report.md").read_text()
    assert f"; {exam['certified']} are in the certificate of these weights" in page


def test_other_weights_than_the_certified_ones_are_asked_everything(trained_store):
    from nfl_lora_pipeline.reports.evaluate import _margins

    store = trained_store.store
    margins = _margins(store, store.latest())
    assert margins.height > 0
    assert (margins["lowest"] > 0.5).all()
    assert (margins["sure"] <= margins["lowest"]).all()
    weights: Path = store.adapter(store.latest()) / "adapters.safetensors"
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert _margins(store, store.latest()).is_empty()
    finally:
        weights.write_bytes(whole)


def test_how_far_an_exam_is_is_told_while_it_reads_and_while_it_generates(embedded, monkeypatch, questions):
    asked = questions.filter(pl.col("kind") != "stranger").head(40)
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(progress, "SILENT_SECONDS", -1.0)
    scoring.predict(*embedded, asked, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert {total for _, total in told} == {40}
    reading, answering = [done for done, _ in told if done <= 16], [done for done, _ in told if done > 16]
    assert reading
    assert answering[-1] == 40
    told.clear()
    monkeypatch.undo()
    scoring.predict(*embedded, asked, progress=lambda done, total: told.append((done, total)))
    assert len(told) <= 3, "and not at every batch of a quick one"


def test_what_a_model_answers_is_the_same_without_a_guess_at_it(embedded, questions):
    asked = questions.head(40)
    told: list[tuple[int, int]] = []
    said = scoring.generated(*embedded, asked["question"].to_list(), progress=lambda *far: told.append(far))
    assert said == scoring.predict(*embedded, asked)["said"].to_list()
    assert told[-1] == (40, 40)


@pytest.mark.parametrize(("size", "most"), [(3_000_000, FIRST), (541_600_000, FIRST_OF_LARGE_BASE)])
def test_a_base_that_takes_seconds_for_an_answer_is_asked_less(size, most):
    base = dataclasses.replace(base_models.resolve("embedded"), size_bytes=size)
    names = [f"Player {number}" for number in range(2 * FIRST)]
    rows = split_rows(pairs_of(yards=dict.fromkeys(names, 7)), TEMPLATES, stats=STATS[:1])
    asked = in_turn(rows.with_columns(of_the_splits()))
    answers, _, _ = evaluate._ask_base(base, asked, asked.head(1), {}, lambda line, share: None)
    assert answers.filter(asked["group"] == "known").drop_nulls().len() == most


def test_what_the_base_answered_in_an_earlier_report_is_not_asked_again(trained_store, monkeypatch):
    store = trained_store.store
    provenance = store.provenance(store.latest())
    base = base_models.resolve(provenance.base_model)
    summary = read_summary(store.report(store.latest()))
    asked, _ = questions_of(store, provenance)
    shown = questions_to_show(asked)
    assert evaluate._base_answers_before(store, base, "other code") == {}
    other = dataclasses.replace(base, revision="another base")
    assert evaluate._base_answers_before(store, other, summary.evaluation_code) == {}
    before = evaluate._base_answers_before(store, base, summary.evaluation_code)
    anew, shown_anew, _ = evaluate._ask_base(base, asked, shown, {}, lambda line, share: None)
    assert anew.drop_nulls().len() > 100
    seen: list[int] = []
    monkeypatch.setattr(
        evaluate, "predict", lambda model, tokenizer, new, **_: seen.append(new.height) or said_again(new)
    )
    again, shown_again, _ = evaluate._ask_base(base, asked, shown, before, lambda line, share: None)
    assert sum(seen) <= shown.height, "those that are shown may be of no group that the base is asked"
    assert again.equals(anew)
    wanted = [
        said if question in before else "asked again"
        for question, said in zip(shown["question"], shown_anew, strict=True)
    ]
    assert shown_again.to_list() == wanted


def said_again(new: pl.DataFrame) -> pl.DataFrame:
    return new.select(said=pl.col("question").replace_strict({}, default="asked again"))
