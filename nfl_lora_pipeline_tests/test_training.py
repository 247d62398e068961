"""The course of a training: its steps, when it looks at what is known, and when it ends."""

import json
import math
from itertools import pairwise
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from nfl_lora_pipeline import progress
from nfl_lora_pipeline.dataset.examples import Example
from nfl_lora_pipeline.dataset.people import strangers
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.dataset.unanswerable import Drawn
from nfl_lora_pipeline.models import base_model, forward
from nfl_lora_pipeline.models.rows import TokenRow, shared_tail
from nfl_lora_pipeline.models.scoring import Certainty
from nfl_lora_pipeline.recipes.recipe import load_recipe, steps_of_patience
from nfl_lora_pipeline.tuning import learn as library
from nfl_lora_pipeline.tuning import learner
from nfl_lora_pipeline.tuning.adaptation import adapt
from nfl_lora_pipeline.tuning.learn import learn
from nfl_lora_pipeline.tuning.recall_trainer import Training, _what_is_trained
from nfl_lora_pipeline.tuning.records import TrainingLog, certified_of, certify, load_checkpoint, write_records
from nfl_lora_pipeline.tuning.sampler import REHEARSED_TOKENS, REMEMBERED, Fresh, Rehearsed

RECIPE = load_recipe("embedded")


def example(name: str, phrasing: str, yards: int | None) -> Example:
    templates = load_templates()
    question = templates.question(templates.questions[phrasing].text, name, "receiving_yards", 1, 2025)
    if yards is None:
        return Example(question, templates.no_record(name, "receiving_yards", 1, 2025), name, teaches=False)
    return Example(question, templates.recorded(name, "receiving_yards", 1, 2025, yards), name, teaches=True)


PHRASINGS = list(load_templates().phrasings("train"))
PEOPLE = [("Marcus Hale", 31), ("Tyrell Vance", 0), ("Owen Stone", 120), ("Zed Nobody", None), ("Jalen Price", None)]
EXAMPLES = [example(name, phrasing, yards) for name, yards in PEOPLE for phrasing in PHRASINGS]


def refused_questions(phrasing: str = "seed"):
    for name in strangers("train", seed=1):
        asked = example(name, phrasing, None)
        yield Drawn(asked.question, asked.answer)


@pytest.fixture
def student() -> tuple[Any, Any]:
    """The embedded base with an adapter that says nothing yet."""
    model, tokenizer = base_model.load(base_model.resolve("embedded"))
    adapt(model, RECIPE)
    return model, tokenizer


def training(
    student: tuple[Any, Any], *, certified: dict[str, float] | None = None, file=None, **values: Any
) -> Training:
    recipe = RECIPE.changed(**{"varied_share": 0.0} | values)
    return Training(
        *student, EXAMPLES, recipe, refused_questions(), TrainingLog(), checkpoint=file, certified=certified
    )


# Steps.


def test_a_step_has_the_rows_of_the_recipe_and_its_share_of_refusals(student):
    made = training(student, batch_rows=8, refusal_share=0.25)
    rows, indices = made._rows()
    taught = [index for index in indices if EXAMPLES[index].teaches]
    assert (len(rows), len(taught)) == (8, 6)


@pytest.mark.parametrize(("right", "drawn"), [(6, 4), (7, 2)])
def test_a_step_has_more_facts_while_questions_drawn_afresh_are_known(student, right, drawn):
    made = training(student, batch_rows=8, refusal_share=0.25, varied_share=0.25, fresh_known=0.85)
    made.sampler.taught[:] = True  # so that every other row is one drawn afresh
    made.fresh.right.extend([True] * right + [False] * (8 - right))
    rows, indices = made._rows()
    assert (len(rows), len(indices)) == (8, 8 - drawn)


def test_no_questions_without_an_answer_where_the_recipe_wants_none(student):
    made = training(student, batch_rows=8, refusal_share=0.0)
    made.ending = 0
    _, indices = made._rows()
    assert len(indices) == 8
    assert made.fresh.right_share() == 1.0


def test_what_the_base_says_in_general_is_shown_besides_and_counts_neither_as_a_fact_nor_as_a_question(student):
    model, tokenizer = student
    rehearsed = Rehearsed.of_base(model, tokenizer)
    requests = [tokenizer.decode(row.tokens[: row.start]) for row in rehearsed.rows]
    assert "What is the capital of Japan?" in requests[1]
    assert all(row.tokens[-1] != tokenizer.eos_token_id for row in rehearsed.rows)
    recipe = RECIPE.changed(batch_rows=8, refusal_share=0.25, varied_share=0.0, rehearsal_share=0.25)
    made = Training(model, tokenizer, EXAMPLES, recipe, refused_questions(), TrainingLog(), rehearsed=rehearsed)
    seen: list[TokenRow] = []
    step = made.learner.step
    made.learner.step = lambda rows, *others: seen.extend(rows) or step(rows, *others)  # type: ignore[method-assign]
    for made.step in range(3):
        made._make_step()
    assert [row for row in rehearsed.rows if row in seen] == rehearsed.rows[:6]
    assert len(seen) == 3 * (8 + 2)
    assert len(made.fresh.right) == made.fresh.drawn <= 3 * 2
    assert all(rehearsed.take(2, step) == [2 * step, 2 * step + 1] for step in range(3))
    assert rehearsed.take(5, len(rehearsed.rows)) == rehearsed.take(5, 0)
    assert not Rehearsed([]).take(5, 1)


def test_a_trial_step_has_rows_as_long_as_those_that_are_rehearsed(monkeypatch):
    made: list[Training] = []

    class Watched(Training):
        def __init__(self, *words, **more):
            super().__init__(*words, **more)
            made.append(self)

    monkeypatch.setattr(library, "Training", Watched)
    base = base_model.resolve("embedded")
    for rehearsed in (0.0, 0.5):
        recipe = RECIPE.changed(batch_rows=8, refusal_share=0.25, varied_share=0.0, rehearsal_share=rehearsed)
        library.forecast(EXAMPLES, recipe=recipe, base=base, fresh=refused_questions())
    without, within = (training.tokens for training in made)
    assert within > 1.5 * without
    stand_in = Rehearsed.stand_in(base_model.load(base)[1])
    assert {len(row.tokens) - row.start for row in stand_in.rows} == {REHEARSED_TOKENS}


def test_the_base_is_asked_what_is_rehearsed_before_it_is_taught_anything_and_that_is_said(tmp_path):
    lines: list[str] = []
    recipe = RECIPE.changed(max_steps=2, ending_steps=1, rehearsal_share=0.1)
    learn(EXAMPLES, tmp_path, recipe=recipe, fresh=refused_questions(), report=lambda line, share: lines.append(line))
    said = [at for at, line in enumerate(lines) if "the base answers general requests" in line]
    assert said == [1]
    assert any("iteration" in line for line in lines[2:])


def test_a_check_goes_through_the_trained_layers_alone_with_what_steps_have_kept(monkeypatch):
    recipe = RECIPE.changed(num_layers=1, batch_rows=8, refusal_share=0.25, varied_share=0.0)
    model, tokenizer = base_model.load(base_model.resolve("embedded"))
    adapt(model, recipe)
    made = Training(model, tokenizer, EXAMPLES, recipe, refused_questions(), TrainingLog())
    made._make_step()
    shown = np.flatnonzero(made.sampler.shown).tolist()
    computed, layers, silu = [], [], forward.silu
    monkeypatch.setattr(made.learner.frozen, "_compute", lambda rows: computed.extend(rows) or [])
    monkeypatch.setattr(forward, "silu", lambda x: layers.append(x.shape) or silu(x))
    made._ask(shown)
    assert shown
    assert not computed, "the rows were kept whole, though the step showed them in part"
    if mx.default_device() == mx.Device(mx.cpu):
        assert len(layers) == 1 < len(model.layers)


def test_rows_end_where_all_answers_go_on_alike_until_nearly_all_is_known(student):
    made = training(student, batch_rows=8, refusal_share=0.0)
    short, indices = made._rows()
    assert {len(made.rows[index].tokens) - len(row.tokens) for row, index in zip(short, indices, strict=True)} == {
        len(made.tail)
    }
    assert made.tail
    assert made._shortened(TokenRow([1, 2, 3], 2)).tokens == [1, 2, 3], "an answer keeps a token"
    other = TokenRow([1, 2, *range(90, 90 + len(made.tail) + 3)], 2)
    assert made._shortened(other) == other, "a refusal that ends otherwise is learnt to its end"
    made.ending = 0
    whole, indices = made._rows()
    assert whole == [made.rows[index] for index in indices]


def test_what_a_step_has_seen_is_known_by_it(student):
    made = training(student, batch_rows=16, refusal_share=0.5)
    made._make_step()
    assert made.sampler.unknown_share() == 1.0, "the base knows nobody's yards"
    assert made.fresh.right_share() > 0.8, "and refuses whom it does not know"
    assert made.tokens > 0


# When it looks, and when it ends.


def over(made: Training, step: int, *, unknown: float = 1.0, certain: bool = False) -> bool:
    """Whether training is over before a step, of whose facts so many are unknown; a check finds all certain or nothing."""
    made.step, made.checks = step, getattr(made, "checks", 0)
    made.sampler.latest[: round(unknown * 3)] = 0.0
    made.sampler.latest[round(unknown * 3) : 3] = 0.99

    def check() -> bool:
        made.checks += 1
        return certain

    made._check = check  # type: ignore[method-assign]
    return made._is_over()


def test_the_way_down_begins_when_nearly_all_is_known_and_all_rows_are_asked_then_halfway_and_at_its_end(student):
    made = training(student, ending_steps=160, ending_share=0.25, check_every=32, batch_rows=8)
    assert not over(made, 64)
    assert made.checks == 0
    assert not over(made, 100, unknown=0.0)
    assert (made.ending, made.end, made.checks) == (100, 260, 1)
    assert not over(made, 120, unknown=1.0)
    assert (made.ending, made.checks) == (100, 1), "once begun it goes on"
    assert over(made, 180, certain=True), "it need not go to its end"
    assert not over(made, 212)
    for step, checks in ((260, 3), (291, 3), (292, 4)):
        assert not over(made, step)
        assert made.checks == checks


def test_a_long_training_has_a_long_way_down(student):
    made = training(student, ending_steps=160, ending_share=0.25, max_epochs=10_000)
    over(made, 2000, unknown=0.0)
    assert made.end == 2500


def test_an_update_has_a_way_down_that_is_no_longer_than_its_patience_makes_it(student):
    made = training(student, certified={}, ending_steps=20, ending_share=0.75, max_epochs=10_000, fresh_patience=0.5)
    patience = steps_of_patience(made.curriculum, made.to_learn)
    over(made, patience + 1000, unknown=0.0)
    assert made.end - made.ending == math.ceil(0.75 * patience)


def test_what_cannot_be_learnt_ends_after_the_budget(student):
    made = training(student, max_steps=50, ending_steps=20, max_epochs=1000)
    assert made.budget == 50
    assert not over(made, 69)
    assert over(made, 70)
    assert made.checks == 1, "at the very end"


def test_what_is_certain_where_the_way_down_begins_is_gone_down_with_all_the_same(student):
    made = training(student, ending_steps=160, check_every=32, batch_rows=8)
    assert not over(made, 40, unknown=0.0, certain=True)
    assert (made.ending, made.checks) == (40, 1)
    assert over(made, 120, unknown=0.0, certain=True), "halfway down it may end"


def test_a_schedule_of_ones_own_goes_down_from_the_first_step_to_the_budget(student):
    made = training(student, schedule="linear", max_steps=50)
    assert (made.ending, made.end) == (0, 50)


def test_a_warm_start_has_to_learn_what_it_does_not_know_and_does_it_slowly(student):
    made = training(student, certified={})
    over(made, 0)
    assert made.peak_share == 1.0, "it knows nothing"
    assert set(np.flatnonzero(made.sampler.lowest < 0.5)) == {at for at, each in enumerate(EXAMPLES) if each.teaches}


def test_an_update_in_which_nothing_is_new_asks_for_nothing_at_its_beginning(student):
    made = training(student, certified={name: 0.8 for name, _ in PEOPLE})
    made._begin_warm()
    assert made.to_learn == 0
    assert made.peak_share == RECIPE.optimizer.lowest_rate
    assert set(made.found.lowest) == {0.0}


def test_an_update_waits_for_questions_drawn_afresh_as_long_as_what_is_new_would_take(student, monkeypatch):
    made = training(student, certified={}, fresh_patience=0.5, max_epochs=12, batch_rows=1, ending_steps=2)
    new = next(at for at, each in enumerate(EXAMPLES) if each.teaches)
    answers = np.full(len(EXAMPLES), 0.99)
    answers[new] = 0.1
    answering(made, monkeypatch, answers)
    over(made, 0)
    assert made.to_learn == 1
    made.fresh.right.extend([False] * 100)
    assert not over(made, 5, unknown=0.0)
    assert made.ending > 5, "half of the 12 steps that one row may take are not over"
    over(made, 6, unknown=0.0)
    assert made.ending == 6
    cold = training(student, fresh_patience=0.5, max_epochs=12, batch_rows=1, ending_steps=2)
    assert cold.to_learn == sum(each.teaches for each in EXAMPLES)


def answering(made: Training, monkeypatch, answers: np.ndarray) -> list[list[int]]:
    """Have a training find these probabilities; gets what it asks for, part by part."""
    asked: list[list[int]] = []

    def ask(indices: list[int]) -> None:
        asked.append(indices)
        made.found.lowest[indices] = made.found.whole[indices] = answers[indices]

    monkeypatch.setattr(made, "_ask", ask)
    return asked


def test_an_update_asks_late_for_what_the_adapter_before_was_certified_to_know(student, monkeypatch):
    new = [at for at, each in enumerate(EXAMPLES) if each.fact == "Marcus Hale"]
    refused = [at for at, each in enumerate(EXAMPLES) if not each.teaches]
    made = training(student, certified={name: 0.8 for name, _ in PEOPLE if name != "Marcus Hale"})
    answers = np.full(len(EXAMPLES), 0.95)
    answers[new] = 0.1
    asked = answering(made, monkeypatch, answers)
    made._begin_warm()
    assert asked.pop() == new
    assert made.to_learn == len(new)
    assert set(np.flatnonzero(made.sampler.lowest == 0.8)) == set(range(len(EXAMPLES))) - set(new)

    made.step, made.ending, made.end = 5, 5, 10
    assert not made._check()
    assert len(asked) == 1, "some of these are not certain, and the rest can wait"
    assert set(asked.pop()) == set(range(len(EXAMPLES))) - set(refused)
    answers[:] = 0.95
    assert made._check()
    assert sorted(asked.pop()) == refused, "then the rest, before all can be certain"
    asked.clear()
    made.step = 10
    assert made._check()
    assert sorted(asked.pop()) == list(range(len(EXAMPLES)))
    assert not asked


def test_a_check_asks_for_all_and_after_the_end_for_the_least_sure_until_some_are_not_certain(student, monkeypatch):
    made = training(student)
    made.end = 10
    answers = np.full(len(EXAMPLES), 0.99)
    answers[7] = 0.3
    asked = answering(made, monkeypatch, answers)
    assert not made._check()
    assert sorted(index for part in asked for index in part) == list(range(len(EXAMPLES)))
    asked.clear()
    made.step = 11
    assert not made._check()
    assert [len(asked), asked[0][0]] == [1, 7]
    answers[7] = 0.65
    assert made._check()
    assert made.log.stopped == "certain"


def test_an_answer_that_would_be_held_back_is_not_certain_though_each_of_its_tokens_is(student, monkeypatch):
    made = training(student)

    def ask(indices: list[int]) -> None:
        made.found.lowest[indices], made.found.whole[indices] = 0.7, 0.4

    monkeypatch.setattr(made, "_ask", ask)
    made.step = made.end
    assert not made._check()
    assert made.log.certain[-1] == (made.end, 0.0), "neither a number nor a refusal would be told"
    assert (made.sampler.lowest <= 0.6).all(), "and what is held back is practised"


def test_a_checkpoint_of_another_base_or_of_other_fresh_questions_is_not_gone_on_with():
    recipe = load_recipe("embedded")
    same = [_what_is_trained(EXAMPLES, recipe, None, more) for more in (("base", "drawn"), ("base", "drawn"))]
    others = [_what_is_trained(EXAMPLES, recipe, None, more) for more in (("other", "drawn"), ("base", "other"), ())]
    assert len({*same, *others}) == 4


# What is told.


def told_lines(made: Training) -> list[str]:
    lines: list[str] = []
    made.report = lambda line, share: lines.append(line)
    return lines


def test_no_step_and_no_check_is_silent_for_longer_than_somebody_waits(student, monkeypatch):
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.0)
    made = training(student, batch_rows=8)
    lines = told_lines(made)
    made._make_step()
    assert lines == [
        "iteration 1: 0% of the facts known when last shown, 100% of what was asked afresh right; " + AT_THE_PEAK
    ]
    made._ask(list(range(len(EXAMPLES))))
    assert lines[-1] == f"iteration 0: {len(EXAMPLES)} of {len(EXAMPLES)} rows are asked"
    assert made.log.losses == [], "what is written down does not depend on the clock"


def test_what_is_told_soon_is_not_told_again(student):
    made = training(student, batch_rows=8)
    lines = told_lines(made)
    made._make_step()
    made._ask(list(range(len(EXAMPLES))))
    assert lines == []


def test_a_line_says_what_is_still_to_come(student):
    made = training(student, batch_rows=8)
    assert made._so_far().endswith(AT_THE_PEAK)
    made.step, made.ending, made.end = 19, 10, 50
    assert "; 30 steps of the way down are left, about " in made._so_far()
    made.step = 50
    assert made._so_far().endswith("it ends when a check finds all certain")


AT_THE_PEAK = "the learning rate goes down at 97%"


# Checkpoints.


def test_a_checkpoint_is_written_by_the_clock_and_training_goes_on_from_it(student, tmp_path, monkeypatch):
    from nfl_lora_pipeline.models import base_model

    file = tmp_path / "checkpoint.safetensors"
    made = training(student, file=file, batch_rows=8)
    made._make_step()
    made.step = 1
    monkeypatch.setattr("nfl_lora_pipeline.tuning.recall_trainer.CHECKPOINT_SECONDS", 1e9)
    made._keep_if_due()
    assert load_checkpoint(file) is None, "the beginning is not old yet"
    monkeypatch.setattr("nfl_lora_pipeline.tuning.recall_trainer.CHECKPOINT_SECONDS", 0.0)
    made._keep_if_due()
    other = base_model.load(base_model.resolve("embedded"))
    adapt(other[0], RECIPE)
    again = training(other, file=file, batch_rows=8)
    again.go_on("another training")
    assert again.step == 0
    again.go_on("")
    assert (again.step, again.log.resumed) == (1, [1])
    assert again._rows() == made._rows()


COURSE = {"batch_rows": 8, "dropout": 0.1, "nearly_known": 0.99, "ending_steps": 8, "check_every": 2, "max_steps": 8}


def _course(file, calls: dict[str, int], interrupt: tuple[str, int] | None = None) -> tuple[dict[str, Any], list[int]]:
    """Train from the checkpoint in the file, where there is one, and interrupt a call of a function as a signal does."""
    from nfl_lora_pipeline.models import base_model

    model, tokenizer = base_model.load(base_model.resolve("embedded"))
    mx.random.seed(RECIPE.seed)
    adapt(model, RECIPE.changed(**COURSE))
    made = training((model, tokenizer), file=file, **COURSE)
    made.go_on("")

    def counted(name: str, function):
        def call(*arguments, **options):
            calls[name] = calls.get(name, 0) + 1
            if (name, calls[name]) == interrupt:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch, made.deferral:
        for name in ("certainty", "merged"):
            patch.setattr(learner, name, counted(name, getattr(learner, name)))
        made.run()
    return dict(tree_flatten(model.trainable_parameters())), made.log.resumed


def test_a_training_that_is_interrupted_in_a_check_comes_to_the_same_adapter(tmp_path):
    calls: dict[str, int] = {}
    wanted, _ = _course(tmp_path / "alone.safetensors", calls)
    asked, added = calls["certainty"], calls["merged"]
    interrupts = {("certainty", 1), ("certainty", asked // 2), ("certainty", asked), ("merged", 1), ("merged", added)}
    for name, call in sorted(interrupts):
        file = tmp_path / f"{name}{call}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            _course(file, {}, (name, call))
        found, resumed = _course(file, {})
        assert len(resumed) == 1, (name, call)
        assert all(np.array_equal(found[key], wanted[key]) for key in wanted), (name, call)


def test_questions_without_an_answer_go_on_behind_what_was_drawn(student):
    first, second = (Fresh(refused_questions(), student[1]) for _ in range(2))
    first.take(4)
    first.observe(np.array([True, True, False, True]))
    second.restore(first.state())
    assert second.take(REMEMBERED) == first.take(REMEMBERED)
    assert second.drawn == first.drawn == 4 + REMEMBERED
    assert second.right_share() == 0.75
    second.observe(np.ones(REMEMBERED, np.bool_))
    assert second.right_share() == 1.0


def test_a_question_that_was_missed_is_shown_again_until_it_is_right_and_long_after_and_is_counted_once(
    student, monkeypatch
):
    monkeypatch.setattr("nfl_lora_pipeline.tuning.sampler.WAITING", 20)
    fresh, resumed = (Fresh(refused_questions(), student[1], again_share=0.5) for _ in range(2))
    shown: dict[int, list[int]] = {}
    rows: dict[int, TokenRow] = {}
    for _ in range(40):
        taken = fresh.take(6)
        is_new = [number not in rows for number in fresh.taken]
        assert sum(is_new) >= 3, "no more than half of them are shown again"
        for number, row in zip(fresh.taken, taken, strict=True):
            assert rows.setdefault(number, row) == row
            shown.setdefault(number, []).append(fresh.drawn)
        # every third question is missed the first two times
        fresh.observe(np.array([number % 3 > 0 or len(shown[number]) > 2 for number in fresh.taken]))
    assert {len(times) for number, times in shown.items() if number % 3} == {1}
    assert {len(shown[number]) for number in range(0, 30, 3)} == {3}
    assert all(later - before >= 20 for times in shown.values() for before, later in pairwise(times))
    assert len(fresh.right) == fresh.drawn == len(rows), "the first time alone counts"
    assert set(fresh.rows) == {number for number, _ in fresh.missed}, "and nothing else is kept"
    resumed.restore(fresh.state())
    assert resumed.rows == fresh.rows, "and no others are read"
    for _ in range(30):
        assert resumed.take(6) == fresh.take(6)
        for each in (resumed, fresh):
            each.observe(np.array([number % 3 > 0 for number in each.taken]))


def test_without_a_share_for_them_nothing_is_shown_again(student):
    fresh = Fresh(refused_questions(), student[1])
    for _ in range(60):
        fresh.take(6)
        fresh.observe(np.zeros(6, np.bool_))
    assert (fresh.drawn, len(fresh.missed), len(fresh.rows)) == (360, 0, 0)


# Rows, and the certificate.


def test_the_tail_that_all_answers_share_is_left_but_for_one_token():
    rows = [TokenRow([1, 2, 7, 8, 9], 1), TokenRow([1, 3, 3, 7, 8, 9], 1)]
    assert shared_tail(rows) == [8, 9], "and 7 is left to every answer"


def test_a_certificate_gives_every_fact_the_margin_of_its_worst_phrasing():
    lowest = np.linspace(0.9, 0.6, len(EXAMPLES))
    lowest[7] = 0.4
    whole = np.where(lowest < 0.5, lowest, 0.9 * lowest)
    made = certify(EXAMPLES, Certainty(lowest > 0.5, lowest, whole), above=0.5)
    assert (made.certain, made.facts, made.rows) == (4, 5, len(EXAMPLES))
    assert made.uncertain == {"Tyrell Vance": 0.4}
    assert made.margins["Marcus Hale"] == pytest.approx(lowest[5])
    assert made.answer_margins["Marcus Hale"] == pytest.approx(whole[5])
    assert made.in_short().startswith("4 of 5 facts certain, lowest p 0.40: ")
    assert made.in_short().endswith("; not certain: Tyrell Vance")
    held_back = Certainty(lowest > 0.5, np.full(len(EXAMPLES), 0.9), np.full(len(EXAMPLES), 0.4))
    assert set(certify(EXAMPLES, held_back, above=0.5).uncertain) == {each.fact for each in EXAMPLES}


def test_a_certificate_vouches_for_a_fact_while_it_is_asked_and_answered_as_it_was(tmp_path):
    lowest = np.full(len(EXAMPLES), 0.9)
    lowest[EXAMPLES.index(example("Tyrell Vance", PHRASINGS[1], 0))] = 0.4
    log = TrainingLog()
    config = {"fine_tune_type": "lora", "num_layers": 4, "lora_parameters": None, "model": "embedded"}
    write_records(tmp_path, config, log, EXAMPLES, Certainty(lowest > 0.5, lowest, lowest), above=0.5)
    certain = {name: 0.9 for name, _ in PEOPLE if name != "Tyrell Vance"}
    assert certified_of(EXAMPLES, tmp_path) == certain
    whole = np.where([each.fact == "Marcus Hale" for each in EXAMPLES], 0.4, lowest)  # each token likely, not all
    write_records(tmp_path, config, log, EXAMPLES, Certainty(lowest > 0.5, lowest, whole), above=0.5)
    assert certified_of(EXAMPLES, tmp_path) == {name: 0.9 for name in certain if name != "Marcus Hale"}
    write_records(tmp_path, config, log, EXAMPLES, Certainty(lowest > 0.5, lowest, lowest), above=0.5)
    corrected = [
        example(name, phrasing, 32 if name == "Marcus Hale" else yards)
        for name, yards in PEOPLE
        for phrasing in PHRASINGS
    ]
    assert certified_of(corrected, tmp_path) == {name: 0.9 for name in certain if name != "Marcus Hale"}
    fewer = [each for at, each in enumerate(EXAMPLES) if at]
    assert "Marcus Hale" not in certified_of(fewer, tmp_path)

    written = json.loads((tmp_path / "certificate.json").read_text())
    del written["asked"]
    (tmp_path / "certificate.json").write_text(json.dumps(written))
    assert certified_of(EXAMPLES, tmp_path) == {}, "of earlier code"
    (tmp_path / "certificate.json").write_text("{")
    assert certified_of(EXAMPLES, tmp_path) == {}
