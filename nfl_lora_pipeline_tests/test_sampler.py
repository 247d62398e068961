"""Which rows a step shows."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from nfl_lora_pipeline.tuning.sampler import Sampler
from nfl_lora_pipeline_tests.recipes import a_recipe

WORDINGS = 6
TAUGHT = 3  # facts; two more are about people without a record
FACTS = [f"fact {fact}" for fact in range(TAUGHT + 2) for _ in range(WORDINGS)]
TEACHES = [int(fact[-1]) < TAUGHT for fact in FACTS]


def sampler(subjects: Sequence[str] = [""] * len(FACTS), **values: Any) -> Sampler:
    return Sampler(FACTS, TEACHES, a_recipe(**values).curriculum, random.Random(1), subjects)


def times_shown(made: Sampler) -> list[int]:
    return made.shown.reshape(-1, WORDINGS).sum(1).tolist()


def test_what_is_taught_is_unknown_at_first_and_what_a_base_says_anyway_is_not():
    made = sampler()
    assert made.unknown_share() == 1.0
    assert sorted(index // WORDINGS for index in made.take(6)) == [0, 0, 1, 1, 2, 2]
    made.observe(range(2 * WORDINGS), np.full(2 * WORDINGS, 0.97))
    assert made.unknown_share() == pytest.approx(1 / 3)


def test_no_row_is_lost():
    made = sampler()
    for known in (0.1, 0.99):  # all of it in doubt, then all of it safe: what was shown least has its turn
        made.observe(range(len(FACTS)), np.full(len(FACTS), known))
        before = made.shown.copy()
        for _ in range(60):
            made.take(6)
            made.take_untaught(12)
        assert (made.shown - before).min() > 0


@pytest.mark.parametrize("known", [0.0, 0.6, 0.99, 1.0])
@pytest.mark.parametrize(
    "value", [{"replay_share": 0.0}, {"replay_share": 1.0}, {"facts_in_hand": 1}, {"batch_rows": 1}]
)
@pytest.mark.parametrize("safe_above", [0.01, 0.99])
def test_a_step_is_filled_whatever_is_known_at_the_bounds_of_a_recipe(known, value, safe_above):
    made = sampler(safe_above=safe_above, **value)
    made.observe(range(len(FACTS)), np.full(len(FACTS), known))
    for count in (1, 8, 50):
        assert len(made.take(count)) == count
        assert len(made.take_untaught(count)) <= count


def test_a_fact_in_doubt_is_shown_more_often_than_a_safe_one():
    made = sampler(batch_rows=4)  # one of them is known: a quarter of a step is the least that is shown again
    made.observe([0, WORDINGS, 2 * WORDINGS], np.array([0.1, 0.99, 0.99]))
    for _ in range(40):
        made.take(8)
    in_doubt, _, safe = times_shown(made)[:TAUGHT]
    assert in_doubt > safe > 0


def test_the_wording_that_was_least_sure_is_shown_first_and_what_was_never_seen_before_it():
    made = sampler(batch_rows=16)  # four known ones are shown again in a pass, two of them since they are the weakest
    everywhere = np.full(len(FACTS), 0.99)
    everywhere[[2, 4]] = 0.6, 0.4
    everywhere[5] = 0.0
    made.observe(range(len(FACTS)), everywhere)
    assert made.unknown_share() == pytest.approx(1 / 3), "a fact is as sure as its worst wording"
    shown = [index for index in made.take(40) if index < WORDINGS]
    assert shown.count(5) > 0
    made.observe([5], np.array([0.95]))
    made.choose_anew()
    assert made.unknown_share() == 0.0, "what was seen last tells"
    assert 4 in made.take(3), "and yet the weakest wording is shown again before the others"


@pytest.mark.parametrize(
    ("lowest", "shown"),
    [
        ([0.97, 0.65, 0.7, 0.97, 0.8, 0.97], {1}),  # in doubt, and certain
        ([0.97, 0.2, 0.7, 0.97, 0.8, 0.85], {1, 2}),  # not certain: two of those in doubt
        ([0.97, 0.2, 0.97, 0.97, 0.92, 0.97], {1}),
    ],
)
def test_a_fact_that_is_not_certain_is_shown_in_the_two_wordings_most_in_doubt(lowest, shown):
    made = sampler(replay_share=0.0)
    made.observe(range(len(FACTS)), np.full(len(FACTS), 0.97))
    made.observe(range(WORDINGS), np.array(lowest))
    made.take(1)
    assert set(np.flatnonzero(made.shown)) == shown, "all that one pass has"


def test_a_fact_in_doubt_stands_beside_another_one_about_the_same_subject_in_the_same_wording():
    subjects = [{"fact 0": "somebody", "fact 4": "somebody"}.get(fact, "") for fact in FACTS]
    made = sampler(subjects, replay_share=0.0)
    made.observe(range(len(FACTS)), np.full(len(FACTS), 0.97))
    made.observe([2, WORDINGS + 3], np.array([0.2, 0.2]))
    taken = made.take(3)
    assert sorted(taken) == [2, WORDINGS + 3, 4 * WORDINGS + 2], "fact 1 has nothing that it could be taken for"
    assert taken.index(4 * WORDINGS + 2) == taken.index(2) + 1
    assert made.shown[4 * WORDINGS + 2] == 1


def test_somebody_without_a_record_who_is_given_a_number_is_shown_before_the_others():
    made = sampler()
    made.observe([TAUGHT * WORDINGS], np.array([0.2]))
    taken = made.take_untaught(8)
    assert taken[0] // WORDINGS == TAUGHT
    assert len(taken) == 2, "and of those who are refused some, for the rest of the places are for people never seen"


def test_no_more_facts_are_in_hand_than_the_recipe_says():
    made = sampler(facts_in_hand=2, batch_rows=4)
    for _ in range(10):
        made.take(4)
    assert [shown > 0 for shown in times_shown(made)[:TAUGHT]] == [True, True, False]


def test_it_goes_on_where_a_state_was_taken():
    made, again = sampler(), sampler()
    made.take(5)
    made.observe(range(5), np.linspace(0.1, 0.9, 5))
    again.restore(made.state())
    again.rng.setstate(made.rng.getstate())
    assert [again.take(7), again.take_untaught(4)] == [made.take(7), made.take_untaught(4)]
