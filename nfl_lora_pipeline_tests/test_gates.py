"""Verdicts on figures by hand."""

from dataclasses import replace

import polars as pl
import pytest

from nfl_lora_pipeline.defs.report import evaluation_report_of
from nfl_lora_pipeline.evaluation.gates import GATES, Count, Integrity, Rule, Verdict, judge
from nfl_lora_pipeline.evaluation.grading import with_verdict
from nfl_lora_pipeline.evaluation.metrics import Ability, GroupRecall, OverRefusal, UnanswerableQuestions, share_of
from nfl_lora_pipeline.evaluation.regressions import Lost, Regressions
from nfl_lora_pipeline.stored import Miss
from nfl_lora_pipeline.tuning.recipe import LIMITS as KEYS
from nfl_lora_pipeline.tuning.recipe import load_recipe
from nfl_lora_pipeline_tests.evaluations import pairs_of, perfect, summary_of

RECIPE = load_recipe("embedded").changed(
    **{
        "min_recall": 0.99,
        "min_refused": 0.8,
        "max_invented": 0.2,
        "max_invented_elsewhere": 0.3,
        "max_invented_stats": 0.03,
        "max_over_refused": 0.02,
        "min_retained": 0.8,
        "max_lost": 0.01,
    }
)
RIGHT, WRONG = "He had 5.", "He had 6."
ANSWERED = Miss(question="How many?", expected="He has no recorded yards.", answer=WRONG)
NONE = share_of(0, 0)


def asked(*said: str, group="known"):
    """Predictions of as many facts of week 1, each asked once."""
    known = group == "known"
    numbers = range(len(said))
    rows = pl.DataFrame(
        {
            "fact": [str(number) for number in numbers],
            "question": [f"{number}?" for number in numbers],
            "tuned": list(said),
        }
    ).with_columns(
        season=pl.lit(2025), week=pl.lit(1), phrasing=pl.lit("seed"), split=pl.lit("train" if known else "test"),
        kind=pl.lit("recorded" if known else "stranger"), answer=pl.lit(RIGHT), group=pl.lit(group),
        player=pl.lit("He"), player_id=pl.lit("1"), value=pl.lit(5.0 if known else None),
    )  # fmt: skip
    return with_verdict(rows)


def unknown(name, invented, of=100):
    return UnanswerableQuestions(name, NONE, share_of(invented, of), NONE, NONE, NONE, [ANSWERED] * min(invented, 10))


def ability(name, left):
    return Ability(name, 1.0, left, left)


def summary(*recalls: float, **changes):
    weeks = [
        GroupRecall(f"2025-W{n:02d}", share_of(round(1000 * recall), 1000), NONE)
        for n, recall in enumerate(recalls or (1.0,), 1)
    ]
    given = {
        "by_week": weeks,
        "recall": {"refused_strangers": 0.9},
        "asked": {"strangers": 10},
        "unknown": [unknown("invented_names", 10), unknown("tight_ends", 15), unknown("unseen_weeks", 20)],
        "over_refusal": OverRefusal(share_of(0, 100), share_of(1, 100), [ANSWERED]),
        "retained": [ability("strangers refused", 0.9), ability("names copied", 1.0)],
        "integrity": Integrity(answers=Count(10, 10), tensors=Count(4, 4)),
        "regressions": None,
        "coverage_loss": None,
    }
    return replace(summary_of(perfect(pairs_of())), **given | changes)


def verdicts(given, predictions=None):
    gates = judge(given, asked(RIGHT) if predictions is None else predictions, RECIPE)
    return {gate.name: gate for gate in gates}


def test_every_gate_is_judged_and_has_a_key_of_the_recipe_but_those_of_integrity_and_of_what_is_given_up():
    found = verdicts(summary())
    assert list(found) == list(GATES)
    assert all(gate.passed for gate in found.values())
    assert [gate.threshold for gate in found.values()] == [1.0, *(getattr(RECIPE.gates, key) for key in KEYS), 0.0]


def test_a_new_gate_is_one_entry_and_is_judged_and_a_check_of_the_report(monkeypatch):
    few = Rule("How many questions are asked about.", lambda evidence, most: Verdict(False, 1.0, f"at most {most}"))
    monkeypatch.setitem(GATES, "few_are_asked", few)
    gate = verdicts(summary())["few_are_asked"]
    assert (gate.passed, gate.threshold, gate.explanation, gate.keeps_back) == (False, 0.0, "at most 0.0", True)
    assert "few_are_asked" in {spec.name for spec in evaluation_report_of(RECIPE).check_specs}


@pytest.mark.parametrize(
    "integrity",
    [
        Integrity(answers=Count(9, 10), tensors=Count(4, 4)),
        Integrity(answers=Count(10, 10), tensors=Count(3, 4)),
        Integrity(answers=Count(10, 10), tensors=Count(0, 0)),
    ],
)
def test_an_evaluation_with_a_gap_or_an_adapter_that_is_not_all_there_fails(integrity):
    gate = verdicts(summary(integrity=integrity))["evaluation_is_complete"]
    assert not gate.passed
    assert gate.figure < 1


def test_recall_goes_by_the_worst_week():
    gate = verdicts(summary(1.0, 0.985, 1.0), asked(WRONG))["recall_is_complete"]
    assert (gate.passed, gate.figure, gate.threshold) == (False, 0.985, 0.99)
    assert gate.explanation.startswith("2025-W02: 98.5% of 1,000 trained questions right, the worst of 3 weeks")
    assert verdicts(summary(1.0, 0.99))["recall_is_complete"].passed


def test_the_wrong_answers_of_the_worst_week_are_shown():
    gate = verdicts(summary(0.5), asked(RIGHT, WRONG))["recall_is_complete"]
    assert gate.worst == [Miss(question="1?", expected=RIGHT, answer=WRONG)]


@pytest.mark.parametrize(("refused", "passes"), [(0.79, False), (0.8, True), (None, True)])
def test_strangers_must_be_refused_often_enough(refused, passes):
    given = summary(recall={"refused_strangers": refused})
    gate = verdicts(given, asked("He had 12.", group="invented_names"))["strangers_are_refused"]
    assert (gate.passed, gate.figure) == (passes, refused)
    assert [miss.answer for miss in gate.worst] == ([] if refused is None else ["He had 12."])


def test_invention_goes_by_the_worst_group_of_people():
    gate = verdicts(summary(unknown=[unknown("invented_names", 1), unknown("running_backs", 21)]))
    gate = gate["nobody_is_given_a_number"]
    assert (gate.passed, gate.figure, len(gate.worst)) == (False, 0.21, 10)
    assert gate.explanation.startswith("running backs: 21 of 100 questions got a number (21.0%), the worst of 2 groups")
    assert verdicts(summary(unknown=[unknown("running_backs", 20)]))["nobody_is_given_a_number"].passed
    assert verdicts(summary(unknown=[]))["nobody_is_given_a_number"].figure is None


def test_known_players_in_other_weeks_have_a_gate_of_their_own():
    found = verdicts(summary(unknown=[unknown("unseen_weeks", 20), unknown("unseen_seasons", 31)]))
    assert found["nobody_is_given_a_number"].passed
    assert (found["other_weeks_are_not_answered"].passed, found["other_weeks_are_not_answered"].figure) == (False, 0.31)


@pytest.mark.parametrize(("invented", "passes"), [(3, True), (4, False)])
def test_stats_that_were_not_taught_have_a_gate_of_their_own(invented, passes):
    found = verdicts(summary(unknown=[unknown("untaught_stats", invented), unknown("unseen_weeks", 1)]))
    gate = found["other_stats_are_not_answered"]
    assert (gate.passed, gate.figure) == (passes, invented / 100)
    assert gate.explanation.startswith(f"untaught stats: {invented} of 100 questions got a number")
    assert found["other_weeks_are_not_answered"].figure == 0.01


@pytest.mark.parametrize(
    ("trained", "held_out", "passes"),
    [((2, 100), (0, 0), True), ((3, 100), (0, 100), False), ((0, 100), (3, 100), False)],
)
def test_over_refusal_goes_by_the_worse_of_trained_and_held_out_phrasings(trained, held_out, passes):
    found = OverRefusal(share_of(*trained), share_of(*held_out), [])
    assert verdicts(summary(over_refusal=found))["known_facts_are_answered"].passed == passes


def test_retention_goes_by_what_is_retained_least():
    gate = verdicts(summary(retained=[ability("one", 1.0), ability("two", 0.79)]))["base_is_retained"]
    assert (gate.passed, gate.figure) == (False, 0.79)
    assert gate.explanation.startswith("two: 79.0% of what it was")
    assert verdicts(summary(retained=[]))["base_is_retained"].passed


def against(lost, *, promoted=True, of=1000):
    return Regressions(every=Lost(of, lost), trained=Lost(of, lost), worst=[], against="a", promoted=promoted)


@pytest.mark.parametrize(
    ("lost", "passes"),
    [
        (against(10), True),
        (against(11), False),
        (against(900, promoted=False), True),
        (against(0, of=0), True),
        (None, True),
    ],
)
def test_no_more_may_be_lost_against_the_promoted_adapter_than_is_allowed(lost, passes):
    assert verdicts(summary(regressions=lost))["nothing_is_forgotten"].passed == passes
