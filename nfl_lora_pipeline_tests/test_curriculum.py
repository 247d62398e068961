"""What a training shows, when it looks and when it ends."""

import itertools
import random
from typing import Any

import numpy as np
import pytest

from nfl_lora_pipeline.lessons.lessons import Lesson
from nfl_lora_pipeline.lessons.wording import load_templates
from nfl_lora_pipeline.models.evaluation import Certainty
from nfl_lora_pipeline.models.rows import TokenRow, tokenize
from nfl_lora_pipeline.tuning.adaptation import adapt
from nfl_lora_pipeline.tuning.certificate import certify
from nfl_lora_pipeline.tuning.curriculum import Curriculum
from nfl_lora_pipeline.tuning.knowledge import PARTS, SAFE, Knowledge, shared_tail
from nfl_lora_pipeline.tuning.pace import LEAST_STEPS, OVERTIME, Pace
from nfl_lora_pipeline.tuning.recipe import Recipe, load_recipe
from nfl_lora_pipeline.tuning.refusals import HARD_SHARE, PROBES, Refusals
from nfl_lora_pipeline.tuning.training_log import TrainingLog
from nfl_lora_pipeline.tuning.tuner import optimizer_of

RECIPE = load_recipe("embedded")


def lesson(name: str, phrasing: str, yards: int | None) -> Lesson:
    templates = load_templates()
    question = templates.question(templates.questions[phrasing].text, name, "receiving_yards", 1, 2025)
    if yards is None:
        return Lesson(question, templates.no_record(name, "receiving_yards", 1, 2025), name, teaches=False)
    return Lesson(question, templates.recorded(name, "receiving_yards", 1, 2025, yards), name, teaches=True)


PHRASINGS = list(load_templates().phrasings("train"))
PEOPLE = [("Marcus Hale", 31), ("Tyrell Vance", 0), ("Owen Stone", 120), ("Zed Nobody", None), ("Jalen Price", None)]
LESSONS = [lesson(name, phrasing, yards) for name, yards in PEOPLE for phrasing in PHRASINGS]


def refused_questions(phrasing: str = "seed"):
    for number in itertools.count():
        asked = lesson(f"Nobody {number}", phrasing, None)
        yield asked.question, asked.answer


@pytest.fixture
def student() -> tuple[Any, Any]:
    """The embedded base with an adapter that says nothing yet."""
    from nfl_lora_pipeline.models import base_model

    model, tokenizer = base_model.load(base_model.resolve("embedded"))
    adapt(model, RECIPE)
    return model, tokenizer


def curriculum(student: tuple[Any, Any], **values: Any) -> Curriculum:
    recipe = RECIPE.model_copy(update=values)
    optimizer = optimizer_of(recipe, betas=(0.9, 0.98))
    return Curriculum(
        *student, LESSONS, recipe, optimizer, refused_questions(), TrainingLog(), lambda line, share: None
    )


# Knowledge.


def knowledge() -> Knowledge:
    rows = [TokenRow([1, 2, place], 1) for place in range(len(LESSONS))]
    return Knowledge(rows, [each.fact for each in LESSONS], [each.teaches for each in LESSONS], above=0.5)


def test_what_is_taught_is_in_doubt_at_first_and_what_a_base_says_anyway_is_not():
    known = knowledge()
    assert known.doubtful(taught=True).tolist() == [0, 1, 2]
    assert known.safe(taught=False).tolist() == [3, 4]
    assert known.unknown_rows() == 3 * len(PHRASINGS)


def test_a_fact_is_in_doubt_as_long_as_one_phrasing_is():
    known = knowledge()
    known.lowest[: len(PHRASINGS)] = 0.99
    assert known.doubtful(taught=True).tolist() == [1, 2]
    known.lowest[3] = SAFE - 0.01
    assert known.doubtful(taught=True).tolist() == [0, 1, 2]


def test_a_fact_is_asked_in_all_phrasings_only_once_its_worst_one_is_safe(student):
    model, tokenizer = student
    rows = tokenize(tokenizer, [(each.question, each.answer) for each in LESSONS])
    known = Knowledge(rows, [each.fact for each in LESSONS], [True] * len(LESSONS), above=0.5)
    known.look(model, [0, 3], random.Random(1))
    asked = known.lowest.reshape(len(PEOPLE), len(PHRASINGS)) > 0
    assert asked[0].sum() == 1, "the base does not know his yards: one phrasing says so"
    assert asked[3].all(), "the base refuses him: after one phrasing it is asked the others"
    assert known.latest[0] < 0.5 < SAFE < known.latest[3]


def asked_rows(known: Knowledge, monkeypatch: pytest.MonkeyPatch, uncertain: int | None = None) -> list[int]:
    """The lengths of the rows that are asked about from now on; all are certain but for one."""
    lengths: list[int] = []

    def certainty(model: object, rows: list[TokenRow]) -> Certainty:
        lengths.extend(len(row.tokens) for row in rows)
        lowest = np.array([0.2 if row.tokens[-1] == uncertain else 0.99 for row in rows])
        return Certainty(lowest > 0.5, lowest, np.zeros(len(rows), np.int32))

    monkeypatch.setattr("nfl_lora_pipeline.tuning.knowledge.certainty", certainty)
    return lengths


def test_all_rows_are_confirmed_whole(monkeypatch):
    known = knowledge()
    known.tail = 1
    lengths = asked_rows(known, monkeypatch)
    assert known.confirm(None)
    assert lengths == [3] * len(LESSONS)
    known.measure(None, [0, 1])
    assert lengths[len(LESSONS) :] == [2, 2], "a look leaves out the tail"


def test_nothing_more_is_asked_once_something_is_not_certain(monkeypatch):
    known = knowledge()
    lengths = asked_rows(known, monkeypatch, uncertain=0)
    assert not known.confirm(None)
    assert len(lengths) == len(LESSONS) / PARTS
    assert known.unknown_rows() >= len(PHRASINGS)


def test_a_row_ends_at_its_last_doubtful_token():
    known = knowledge()
    known.tail = 2
    row = TokenRow([1, 2, 3, 4, 5, 6], 2)
    assert known.shortened(row, 1).tokens == [1, 2, 3]
    assert known.shortened(row, 4).tokens == row.tokens, "in its tail"
    assert known.shortened(row).tokens == [1, 2, 3, 4]


def test_an_answer_shorter_than_the_tail_keeps_a_token():
    known = knowledge()
    known.tail = 5
    assert known.shortened(TokenRow([1, 2, 3, 4], 2)).tokens == [1, 2, 3]


# Refusals.


def test_those_that_were_given_a_number_are_shown_first_and_leave_room_for_others(student):
    model, tokenizer = student
    told = (
        (each[0], load_templates().recorded("Nobody", "receiving_yards", 1, 2025, 3)) for each in refused_questions()
    )
    refusals = Refusals(told, tokenizer, random.Random(1), shorten=lambda row: row)
    assert refusals.probe(model, 20) == 0.0, "the base says no such number"
    assert refusals.drawn == 20 * PROBES
    hard = {tuple(row.tokens) for row, _ in refusals.hard}
    taken = refusals.take(8)
    assert sum(tuple(row.tokens) in hard for row, _ in taken) == round(HARD_SHARE * 8)
    assert all((until > 0) == (tuple(row.tokens) in hard) for row, until in taken), "the others were not asked"
    assert refusals.drawn == 20 * PROBES + 2


def test_a_source_goes_on_behind_what_was_drawn(student):
    first, second = (
        Refusals(refused_questions(), student[1], random.Random(1), shorten=lambda row: row) for _ in range(2)
    )
    first.take(5)
    second.restore({"drawn": 5, "hard": []})
    assert second.take(3) == first.take(3)
    assert second.drawn == first.drawn == 8


# Pace.


def pace(**values: Any) -> Pace:
    recipe = Recipe.model_validate(RECIPE.model_dump() | {"batch_rows": 10, "max_epochs": 4, "max_steps": 4000})
    return Pace(recipe, **({"teaching": 5000} | values))


def test_a_budget_is_so_many_epochs_and_never_too_short_or_too_long():
    assert pace().budget == 2000
    assert pace(teaching=10).budget == LEAST_STEPS
    assert pace(teaching=50_000).budget == 4000


def test_the_end_is_set_when_nearly_all_is_certain():
    going = pace()
    going.progress(500, 300, 10_000)
    assert going.budget == 2000
    going.progress(564, 250, 10_000)
    assert going.budget == 564 + 141
    going.progress(628, 9000, 10_000)
    assert going.budget == 564 + 141, "once set it stays"
    assert going.last_step == going.budget + OVERTIME


def test_a_warm_start_has_to_learn_what_it_does_not_know():
    going = pace(warm=True)
    assert going.is_time_to_check(0)
    going.progress(0, 1000, 10_000)
    assert going.unknown == 0.2
    assert going.budget == 1200
    assert not pace().is_time_to_check(0)


# Curriculum.


def test_no_row_is_lost(student):
    made = curriculum(student)
    for step in range(60):
        made.selection.take(step, 8)
    assert made.selection.shown.min() > 0
    made.knowledge.lowest[:] = 0.99  # all of it safe: what was shown least has its turn
    before = made.selection.shown.copy()
    for step in range(60):
        made.selection.take(step, 8)
    assert (made.selection.shown - before).min() > 0


def test_every_row_in_every_epoch_if_the_recipe_says_so(student):
    made = curriculum(student, every_row=True, refusal_share=0.0)
    for epoch in (1, 2):
        for _ in range(len(LESSONS) // 6):
            made.selection.take(0, 6)
            made.selection.look_again()
        assert made.selection.shown.tolist() == [epoch] * len(LESSONS)
        assert not made.selection.waiting


def test_a_step_has_the_rows_of_the_recipe_and_its_share_of_refusals(student):
    made = curriculum(student, refusal_share=0.25)
    taught = {tuple(row.tokens) for row, each in zip(made.knowledge.rows, LESSONS, strict=True) if each.teaches}
    rows, _ = made.selection.take(0, 8)
    assert len(rows) == 8
    assert sum(tuple(row.tokens) in taught for row in rows) == 6


def test_a_stubborn_fact_is_shown_more_often_than_a_safe_one(student):
    made = curriculum(student)
    made.knowledge.lowest[2 * len(PHRASINGS) :] = 0.99
    made.knowledge.lowest[: 2 * len(PHRASINGS)] = 0.1
    for step in range(40):
        made.selection.take(step, 8)
    by_fact = made.selection.shown.reshape(len(PEOPLE), len(PHRASINGS)).sum(1)
    assert min(by_fact[:2]) >= by_fact[2]


def test_half_of_the_safe_rows_that_are_asked_about_are_the_least_sure_ones(student, monkeypatch):
    monkeypatch.setattr("nfl_lora_pipeline.tuning.selection.SAMPLE", 8)
    made = curriculum(student)
    made.knowledge.lowest[:] = np.linspace(0.99, 0.91, len(LESSONS))
    asked = made.selection.some_safe_rows(late=False)
    assert len(set(asked)) == 8
    assert set(asked) > set(range(len(LESSONS) - 4, len(LESSONS)))


def test_of_a_training_that_did_not_get_there_the_best_is_kept(student):
    made = curriculum(student)
    kept = {}
    for unknown in (7, 2, 4):
        kept[unknown] = made.average.weights = [(name, array + unknown) for name, array in made.average.weights]
        made._keep_best([-unknown, 0.9])
    assert made.best[1] is kept[2]
    made._keep_best([0.0, 0.95])
    assert made.best[1] is made.average.weights


def test_a_checkpoint_is_written_by_the_clock_too_and_a_step_is_prepared_again_from_it(student, monkeypatch):
    made, kept = curriculum(student), []
    made.keep = kept.append
    batches = made.batches(LESSONS, 8)
    monkeypatch.setattr("nfl_lora_pipeline.tuning.curriculum.CHECKPOINT_SECONDS", 1e9)
    next(batches)
    next(batches)
    assert kept == [], "the last one, or the beginning, is not old yet"
    monkeypatch.setattr("nfl_lora_pipeline.tuning.curriculum.CHECKPOINT_SECONDS", 0.0)
    next(batches)
    (checkpoint,) = kept
    assert (checkpoint.state["step"], checkpoint.state["prepared"]) == (2, False)
    again = curriculum(student)
    again.restore(checkpoint)
    assert (again.first_step, again.resumes) == (2, False)


def test_the_last_facts_that_are_not_certain_are_shown_twice_in_a_pass(student, monkeypatch):
    made = curriculum(student)
    made.knowledge.lowest[:] = 0.8  # doubtful, all of it
    made.knowledge.latest[:] = 0.8
    made.knowledge.latest[1] = 0.3
    for few, shown in ((0.5, [1, 2, 1]), (0.1, [1, 1, 1])):  # one fact of three
        monkeypatch.setattr("nfl_lora_pipeline.tuning.selection.STUBBORN", few)
        made.selection.shown[:] = 0
        made.selection._next_pass()
        assert made.selection.shown.reshape(len(PEOPLE), len(PHRASINGS)).sum(1)[:3].tolist() == shown


def test_the_tail_that_all_answers_share_is_left_but_for_one_token():
    rows = [TokenRow([1, 2, 7, 8, 9], 1), TokenRow([1, 3, 3, 7, 8, 9], 1)]
    assert shared_tail(rows) == 2


# The certificate.


def test_a_certificate_gives_every_fact_the_margin_of_its_worst_phrasing():
    lowest = np.linspace(0.9, 0.6, len(LESSONS))
    lowest[7] = 0.4
    made = certify(LESSONS, lowest.tolist(), above=0.5)
    assert (made.certain, made.facts, made.rows) == (4, 5, len(LESSONS))
    assert made.uncertain == {"Tyrell Vance": 0.4}
    assert made.margins["Marcus Hale"] == pytest.approx(lowest[5])
    assert made.in_short().startswith("4 of 5 facts certain, lowest p 0.40: ")
    assert made.in_short().endswith("; not certain: Tyrell Vance")
