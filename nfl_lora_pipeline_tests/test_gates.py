"""Verdicts on figures by hand."""

from dataclasses import replace
from functools import cache

import polars as pl
import pytest

from nfl_lora_pipeline.defs.report import evaluation_report_of
from nfl_lora_pipeline.evaluation.alterations import CARELESS
from nfl_lora_pipeline.evaluation.gates import (
    GATES,
    Count,
    Finding,
    Integrity,
    Rule,
    head_line,
    in_fractions,
    judge,
)
from nfl_lora_pipeline.evaluation.grading import with_verdict
from nfl_lora_pipeline.evaluation.metrics import (
    PERPLEXITY,
    Ability,
    AlteredQuestions,
    BeforeAndAfter,
    GeneralPrompts,
    GroupRecall,
    OverRefusal,
    SharedLastNames,
    UnanswerableQuestions,
    share_of,
)
from nfl_lora_pipeline.evaluation.probes import ALTERATIONS, ALTERED, IN_WORDS
from nfl_lora_pipeline.evaluation.regressions import Lost, Regressions
from nfl_lora_pipeline.recipes.recipe import LIMITS as KEYS
from nfl_lora_pipeline.recipes.recipe import load_recipe, recipe_names
from nfl_lora_pipeline.stored import Miss
from nfl_lora_pipeline_tests.evaluations import pairs_of, perfect, summary_of

RECIPE = load_recipe("embedded").changed(
    **{
        "min_recall": 0.99,
        "min_refused": 0.8,
        "min_refused_positions": 0.8,
        "min_refused_weeks": 0.7,
        "min_refused_seasons": 0.9,
        "min_refused_stats": 0.97,
        "max_over_refused": 0.02,
        "min_retained": 0.8,
        "max_lost": 0.01,
        "floors": {},
    }
)
RIGHT, WRONG = "He had 5.", "He had 6."
ANSWERED = Miss(question="How many?", expected="He has no recorded yards.", answer=WRONG)
NONE = share_of(0, 0)


@cache
def whole_summary():
    return summary_of(perfect(pairs_of()))


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
    """A group whose questions are refused or get a number."""
    worst = [ANSWERED] * min(invented, 10)
    return UnanswerableQuestions(name, share_of(of - invented, of), share_of(invented, of), NONE, NONE, NONE, worst)


def altered(name, right, wrong=0, of=100):
    return AlteredQuestions(name, share_of(right, of), share_of(wrong, of), NONE, [ANSWERED])


def phrased(*groups, shared=(100, 100)):
    return replace(
        whole_summary().phrasing,
        altered=list(groups),
        shared_last_names=SharedLastNames(share_of(*shared), [ANSWERED]),
    )


ALL_RIGHT = phrased(*(altered(name, 100) for name in ALTERED))
GENERAL = GeneralPrompts(20, BeforeAndAfter(base=2.0, tuned=2.1), share_of(0, 20), [])
FIRST = {"nothing_is_forgotten", "coverage_is_kept"}  # of which nothing can be said of the first adapter of a store


def ability(name, left):
    return Ability(name, 1.0, left, left)


def summary(*recalls: float, **changes):
    weeks = [
        GroupRecall(f"2025-W{n:02d}", share_of(round(1000 * recall), 1000), NONE)
        for n, recall in enumerate(recalls or (1.0,), 1)
    ]
    given = {
        "by_week": weeks,
        "phrasing": ALL_RIGHT,
        "general": GENERAL,
        "unknown": [
            unknown("invented_names", 10),
            unknown("tight_ends", 15),
            unknown("next_week", 20),
            unknown("unseen_seasons", 5),
            unknown("untaught_stats", 1),
            unknown("incomplete", 3),
        ],
        "over_refusal": OverRefusal(share_of(0, 100), share_of(1, 100), [ANSWERED]),
        "retained": [ability("strangers refused", 0.9), ability("names copied", 1.0)],
        "integrity": Integrity(answers=Count(10, 10), tensors=Count(4, 4)),
        "regressions": None,
        "coverage_loss": None,
    }
    return replace(whole_summary(), **given | changes)


def verdicts(given, predictions=None, recipe=RECIPE):
    gates = judge(given, asked(RIGHT) if predictions is None else predictions, recipe)
    return {gate.name: gate for gate in gates}


def test_every_gate_is_judged_and_has_a_key_of_the_recipe_but_those_of_integrity_and_of_what_is_given_up():
    found = verdicts(summary())
    assert list(found) == list(GATES)
    assert {name for name, gate in found.items() if gate.passed is None} == FIRST
    assert all(gate.passed for name, gate in found.items() if name not in FIRST)
    assert [gate.threshold for gate in found.values()] == [1.0, *(getattr(RECIPE.gates, key) for key in KEYS), 0.0]


def test_a_new_gate_is_one_entry_and_is_judged_and_a_check_of_the_report(monkeypatch):
    few = Rule("How many questions are asked.", lambda evidence: Finding(1.0, "all"), threshold=0.0, at_most=True)
    monkeypatch.setitem(GATES, "few_are_asked", few)
    gate = verdicts(summary())["few_are_asked"]
    assert (gate.passed, gate.threshold, gate.explanation, gate.keeps_back) == (False, 0.0, "all", True)
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


@pytest.mark.parametrize(("invented", "passes"), [(21, False), (20, True)])
def test_strangers_must_be_refused_often_enough_in_the_worse_of_two_groups(invented, passes):
    gate = verdicts(summary(unknown=[unknown("invented_names", 1), unknown("reworded_strangers", invented)]))
    gate = gate["strangers_are_refused"]
    assert (gate.passed, gate.figure) == (passes, 1 - invented / 100)
    assert [miss.answer for miss in gate.worst] == [WRONG] * 10


def test_real_people_of_other_positions_have_a_gate_of_their_own():
    found = verdicts(summary(unknown=[unknown("tight_ends", 1), unknown("running_backs", 21)]))
    gate = found["other_positions_are_refused"]
    assert (gate.passed, gate.figure, len(gate.worst)) == (False, 0.79, 10)
    assert gate.explanation.startswith(
        "real running backs of the week: 79 of 100 questions refused (79.0%), the worst of 2"
    )
    assert gate.explanation.endswith("; at least 80% wanted")
    assert found["strangers_are_refused"].passed is None


@pytest.mark.parametrize(
    ("name", "group", "least"),
    [
        ("other_weeks_are_refused", "next_week", 70),
        ("other_weeks_are_refused", "unseen_weeks", 70),
        ("other_seasons_are_refused", "unseen_seasons", 90),
        ("other_stats_are_refused", "untaught_stats", 97),
        ("incomplete_questions_get_no_number", "incomplete", 97),
    ],
)
def test_other_weeks_other_seasons_other_stats_and_incomplete_questions_have_a_gate_each(name, group, least):
    for invented, passes in ((100 - least, True), (101 - least, False)):
        found = verdicts(summary(unknown=[unknown(group, invented)]))
        assert (found[name].passed, found[name].figure) == (passes, (100 - invented) / 100)
        assert found[name].explanation.startswith(f"{IN_WORDS[group]}: {100 - invented} of 100 questions refused")
        others = {gate.passed for other, gate in found.items() if "refused" in other and other != name}
        assert others == {None}, "nothing was asked there"


@pytest.mark.parametrize(
    ("name", "groups", "least"),
    [
        ("hand_written_wordings_are_understood", ["hand_written"], 90),
        ("bare_words_are_understood", ["bare_words"], 90),
        ("careless_typing_is_understood", [*CARELESS], 95),
        ("last_names_are_understood", ["last_name"], 90),
        ("typos_are_understood", ["typo"], 80),
    ],
)
def test_questions_as_people_type_them_are_right_often_enough_in_the_worst_group_of_a_gate(name, groups, least):
    for worst in groups:
        for right, passes in ((least, True), (least - 1, False)):
            found = verdicts(
                summary(phrasing=phrased(*(altered(each, right if each == worst else 100) for each in ALTERED)))
            )
            assert (found[name].passed, found[name].figure) == (passes, right / 100)
            assert found[name].explanation.startswith(f"with {ALTERATIONS[worst]}: {right} of 100 right")
            assert {other for other, gate in found.items() if gate.missed} == (set() if passes else {name})


@pytest.mark.parametrize(("wrong", "passes"), [(2, True), (3, False)])
def test_a_typo_may_seldom_get_a_wrong_number(wrong, passes):
    gate = verdicts(summary(phrasing=phrased(altered("typo", 90, wrong))))["typos_get_no_wrong_number"]
    assert (gate.passed, gate.figure) == (passes, wrong / 100)
    assert gate.explanation.endswith("; at most 2% allowed")


@pytest.mark.parametrize(("right", "passes"), [(90, True), (89, False)])
def test_a_shared_last_name_is_refused_or_all_are_named(right, passes):
    gate = verdicts(summary(phrasing=phrased(shared=(right, 100))))["shared_last_names_are_not_guessed"]
    assert (gate.passed, gate.figure) == (passes, right / 100)


def test_where_nothing_was_asked_a_gate_was_not_judged_and_keeps_nobody_back():
    nothing = summary(unknown=[], phrasing=phrased(shared=(0, 0)), by_week=[], retained=[], general=None)
    strict = RECIPE.changed(advisory=[])
    found = verdicts(replace(nothing, over_refusal=OverRefusal(NONE, NONE, [])), recipe=strict)
    unjudged = {name for name, gate in found.items() if gate.passed is None}
    assert unjudged == set(GATES) - {"evaluation_is_complete", "other_phrasings_are_understood"}
    for name in unjudged:
        assert (found[name].figure, found[name].missed, found[name].keeps_back) == (None, False, False)
        assert found[name].explanation.startswith("not judged: ")


@pytest.mark.parametrize(("invented", "kept_back"), [(3, False), (20, False), (21, True)])
def test_a_limit_that_is_advisory_keeps_back_what_is_beyond_its_floor(invented, kept_back):
    recipe = RECIPE.changed(min_refused=0.98, advisory=["min_refused"], floors={"min_refused": 0.8})
    gate = verdicts(summary(unknown=[unknown("invented_names", invented)]), recipe=recipe)["strangers_are_refused"]
    assert (gate.missed, gate.keeps_back) == (True, kept_back)
    assert gate.explanation.endswith("at least 98% wanted" + ", and at least 80% wanted of any adapter" * kept_back)
    assert head_line([gate]).startswith("Not to be used" if kept_back else "It may be used, but not for what follows")


@pytest.mark.parametrize(("invented", "kept_back"), [(20, False), (21, True)])
def test_a_floor_without_a_limit_keeps_back_by_itself(invented, kept_back):
    recipe = RECIPE.changed(min_refused=None, floors={"min_refused": 0.8})
    gate = verdicts(summary(unknown=[unknown("invented_names", invented)]), recipe=recipe)["strangers_are_refused"]
    assert (gate.passed, gate.keeps_back) == (not kept_back, kept_back)


def test_the_shipped_recipe_keeps_back_whoever_refuses_few_strangers_or_many_known_facts():
    gates = load_recipe("embedded").gates
    assert gates.floors == {"min_refused": 0.8}
    assert {"min_retained", "max_over_refused", "min_held_out"}.isdisjoint(gates.advisory)
    gate = verdicts(summary(unknown=[unknown("invented_names", 90)]), recipe=load_recipe("embedded"))
    assert gate["strangers_are_refused"].keeps_back


@pytest.mark.parametrize("name", [name for name, rule in GATES.items() if rule.limit])
def test_a_gate_without_a_limit_is_no_pass_whatever_the_figure(name):
    rule, bad = GATES[name], summary(0.0, regressions=against(900))
    no_limits = [None] if rule.is_ratio else [None, 1 if rule.at_most else 0]
    for no_limit in no_limits:
        for given in (bad, summary(regressions=against(0))):
            gate = verdicts(given, recipe=RECIPE.changed(advisory=[], **{rule.limit: no_limit}))[name]
            assert gate.passed is None
            assert (gate.threshold, gate.keeps_back) == (None, False)
            assert gate.explanation.startswith("not judged, since no limit is set: ")
            assert gate.figure is not None


def test_the_limits_of_every_shipped_recipe_are_those_that_a_user_needs():
    """The table of issue 16; bare words, as those by hand; and what no one number answers, as what was not taught."""
    wanted = {
        "min_recall": 0.995, "min_held_out": 0.98, "min_hand_written": 0.9, "min_bare_words": 0.9, "min_careless": 0.95,
        "min_last_name": 0.9, "min_shared_last_name": 0.9, "min_typo": 0.8, "max_wrong_typo": 0.02, "min_refused": 0.98,
        "min_refused_positions": 0.98, "min_refused_weeks": 0.97, "min_refused_seasons": 0.97, "min_refused_stats": 0.97,
        "min_refused_incomplete": 0.97, "max_over_refused": 0.01, "min_retained": 0.95, "max_perplexity_ratio": 1.05,
        "max_lost": 0.003,
    }  # fmt: skip
    for name in recipe_names():
        limits = load_recipe(name).gates.model_dump()
        assert {key: value for key, value in limits.items() if key in KEYS} == wanted, name
    assert [rule.limit for rule in GATES.values() if rule.limit] == list(wanted)


def head(**changes):
    return head_line(list(verdicts(summary(**changes), recipe=RECIPE.changed(advisory=[])).values()))


GATES_IN_ALL = len(GATES)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"unknown": [unknown("next_week", 806, 1000)]},
            "Asked about next week, it gives 4 of 5 known players a number",
        ),
        (
            {"unknown": [unknown("unseen_seasons", 73)]},
            "Asked about seasons that it was not taught, it gives 3 of 4 known",
        ),
        (
            {"unknown": [unknown("untaught_stats", 9, 9)]},
            "Asked about stats that it was not taught, it gives all known",
        ),
        ({"unknown": [unknown("tight_ends", 985, 1000)]}, "Asked about tight ends, it gives 98.5% of them a number"),
        (
            {"phrasing": phrased(altered("lower_case", 2, 10), altered("typo", 100))},
            "Asked with the whole question in lower case, it gives no number to 88.0% of questions and a wrong one to 10.0%.",
        ),
        (
            {"phrasing": phrased(altered("typo", 60, 0))},
            "Asked with a typo in the name, it gives no number to 2 of 5 questions.",
        ),
        (
            {"phrasing": phrased(altered("lower_case", 60, 40), altered("typo", 100))},
            "Asked with the whole question in lower case, it gives a wrong number to 2 of 5 questions.",
        ),
        (
            {"phrasing": phrased(altered("typo", 50, 30))},
            "Asked with a typo in the name, it gives a wrong number, most often somebody else's, to 3 of 10 questions.",
        ),
        (
            {"phrasing": phrased(shared=(50, 100))},
            "Asked with a last name that several bear, it takes one of them in 1 of 2",
        ),
        ({"by_week": [GroupRecall("2025-W01", share_of(3, 4), NONE)]}, "Asked in the very words that it was taught in"),
        (
            {"over_refusal": OverRefusal(share_of(1, 2), NONE, [])},
            "Asked for a number that it was taught, it refuses 1 of 2",
        ),
        ({"retained": [ability("names copied", 0.4)]}, "Of what its base could do it has lost 60.0%: names copied."),
        ({"integrity": Integrity(Count(9, 10), Count(4, 4))}, "Not all was asked, or not of all the adapter"),
    ],
)
def test_the_head_line_names_the_worst_that_a_user_can_expect(changes, sentence):
    line = head(**{"unknown": [], "phrasing": phrased(), "general": None} | changes)
    assert line.startswith("Not to be used: ")
    assert sentence in line
    assert line.count("Asked ") <= 1
    assert line.endswith(".")


def test_a_number_that_is_made_up_is_worse_than_one_that_is_refused():
    line = head(unknown=[unknown("next_week", 40)], phrasing=phrased(altered("lower_case", 40)))
    assert "Asked about next week, it gives 2 of 5 known players a number it cannot know." in line


def test_a_number_for_what_no_one_number_answers_is_known_and_is_no_answer():
    line = head(unknown=[unknown("incomplete", 25)])
    assert (
        "Asked about more or less than one stat of one player in one week, it gives 1 of 4 questions a number all the same."
        in line
    )


def test_the_head_line_counts_what_failed_what_was_missed_and_what_was_not_judged():
    given = list(verdicts(summary(unknown=[unknown("next_week", 99)])).values())
    unjudged = sum(gate.passed is None for gate in given)
    assert unjudged == len(FIRST) + 5, "nothing but other weeks was asked about"
    missed = (
        f"It may be used, but not for what follows: 1 of {GATES_IN_ALL} limits is missed, {unjudged} were not judged. "
    )
    assert head_line(given).startswith(missed)
    failed = [replace(gate, blocks=True) for gate in given]
    assert head_line(failed).startswith(
        f"Not to be used: 1 of {GATES_IN_ALL} gates failed, {unjudged} were not judged. "
    )
    passing = [gate for gate in given if gate.passed]
    assert head_line(passing).startswith(f"It may be used: all {len(passing)} gates passed.")
    one_not = [*passing, *[gate for gate in given if gate.name == "coverage_is_kept"]]
    assert f"{len(passing)} of {len(passing) + 1} gates passed, 1 was not judged." in head_line(one_not)


def test_where_nothing_went_wrong_there_is_nothing_to_expect():
    spotless = list(verdicts(summary()).values())
    clean = [replace(gate, harm=0.0) for gate in spotless if gate.passed]
    assert head_line(clean) == f"It may be used: all {len(clean)} gates passed."
    assert head_line([]) == "It may be used: all 0 gates passed."


def test_a_share_in_words_is_near_the_share():
    for share in (at / 1000 for at in range(1, 1001)):
        words = in_fractions(share, "players")
        if words == "all players":
            said = 1.0
        elif "%" in words:
            said = float(words.removesuffix("% of players")) / 100
        else:
            part, whole = words.removesuffix(" players").split(" of ")
            said = int(part) / int(whole)
        assert abs(said - share) <= 0.1 * min(share, 1 - share) + 0.0005, words


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
    assert verdicts(summary(retained=[]))["base_is_retained"].passed is None


@pytest.mark.parametrize(("tuned", "passes"), [(2.1, True), (2.12, False), (1.9, True)])
def test_the_perplexity_of_general_prompts_is_judged_by_its_ratio_and_by_nothing_else(tuned, passes):
    general = replace(GENERAL, perplexity=BeforeAndAfter(base=2.0, tuned=tuned))
    found = verdicts(summary(general=general, retained=[ability(PERPLEXITY, 0.1)]))
    gate = found["general_prompts_are_retained"]
    assert (gate.passed, gate.figure) == (passes, tuned / 2)
    assert gate.explanation.endswith("at most 1.05 allowed")
    assert found["base_is_retained"].passed is None


def against(lost, *, promoted=True, of=1000):
    return Regressions(every=Lost(of, lost), trained=Lost(of, lost), worst=[], against="a", promoted=promoted)


@pytest.mark.parametrize(
    ("lost", "passes"),
    [
        (against(10), True),
        (against(11), False),
        (against(900, promoted=False), None),
        (against(0, of=0), None),
        (None, None),
    ],
)
def test_no_more_may_be_lost_against_the_promoted_adapter_than_is_allowed(lost, passes):
    assert verdicts(summary(regressions=lost))["nothing_is_forgotten"].passed == passes
