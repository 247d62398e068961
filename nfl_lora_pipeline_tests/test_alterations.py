import random

import pytest

from nfl_lora_pipeline.dataset.people import invented_name
from nfl_lora_pipeline.dataset.typed import is_held_out, typed
from nfl_lora_pipeline.dataset.unanswerable import CARELESS as CARELESS_TYPING
from nfl_lora_pipeline.evaluation.alterations import (
    NEIGHBOUR_KEYS,
    abbreviated,
    in_plain_letters,
    last_name,
    shared_last_names,
    typo,
    unique_last_names,
    with_two_blanks,
    without_mark,
)

NAMES = ["Nico Collins", "Amon-Ra St. Brown", "Marvin Harrison Jr.", "Ja'Marr Chase", "DK Metcalf", "Zay Jones"]


KEYS_BESIDE = {"q": "wa", "a": "qwsz", "s": "awedxz", "p": "ol", "l": "kop", "m": "njk", "n": "bhjm", "o": "iklp"}


def kind_of_slip(name, slip):
    """One inner letter left out, one doubled, two next to each other swapped, or another of the keys around it."""
    if any(name[:at] + name[at + 1 :] == slip for at in range(len(name))):
        return "dropped"
    if any(name[:at] + name[at - 1] + name[at:] == slip for at in range(1, len(name))):
        return "doubled"
    if any(name[:at] + name[at + 1] + name[at] + name[at + 2 :] == slip for at in range(len(name) - 1)):
        return "swapped"
    differ = [(one, other) for one, other in zip(name, slip, strict=False) if one != other]
    if len(name) == len(slip) and len(differ) == 1 and differ[0][1].lower() in NEIGHBOUR_KEYS[differ[0][0].lower()]:
        return "neighbour"
    return None


@pytest.mark.parametrize("name", NAMES)
def test_a_typo_is_one_slip_within_a_word(name):
    slip = typo(name)
    assert slip != name
    assert kind_of_slip(name, slip)
    for word, misspelt in zip(name.split(), slip.split(), strict=True):
        assert (word[0], word[-1]) == (misspelt[0], misspelt[-1])
        assert misspelt == word or word != "Jr."


def test_no_slip_of_the_exam_is_one_of_the_tunings():
    asked = {typo(name) for name in NAMES}
    rng = random.Random(3)
    practised = {
        typed(rng, "{player}", name, "yards", 1, 2025, typing=CARELESS_TYPING)[1] for name in NAMES for _ in range(3000)
    }
    assert len(practised) > 20 * len(NAMES), "there are many"
    assert practised.isdisjoint(asked)
    assert not any(is_held_out(slip) for slip in practised - set(NAMES) - {last_name(name) for name in NAMES})


def test_a_typo_is_the_same_every_time():
    assert [typo(name) for name in NAMES] == [typo(name) for name in NAMES]


def test_the_keys_around_a_letter_are_those_of_a_qwerty_keyboard():
    assert {letter: set(NEIGHBOUR_KEYS[letter]) for letter in KEYS_BESIDE} == {
        letter: set(keys) for letter, keys in KEYS_BESIDE.items()
    }
    assert all(one in NEIGHBOUR_KEYS[other] for one, keys in NEIGHBOUR_KEYS.items() for other in keys)


def test_every_kind_of_slip_is_about_as_frequent_as_another():
    rng = random.Random(1)
    names = {invented_name(rng) for _ in range(800)}
    kinds = [kind_of_slip(name, slip) for name in sorted(names) if (slip := typo(name))]
    counts = {kind: kinds.count(kind) / len(kinds) for kind in set(kinds)}
    assert set(counts) == {"dropped", "doubled", "swapped", "neighbour"}
    assert all(0.2 < share < 0.3 for share in counts.values()), counts


def test_no_typo_is_a_name_of_anybody_who_is_known():
    """Of people whose names are a slip from one another, most of all."""
    rng = random.Random(2)
    people = {invented_name(rng) for _ in range(100)}
    known = people | {slip.upper() for name in people if (slip := typo(name))}
    taken = {name.casefold() for name in known}
    slips = [slip for name in sorted(people) if (slip := typo(name, known=known))]
    assert len(slips) > 90
    assert taken.isdisjoint(slip.casefold() for slip in slips)


def test_a_typo_never_makes_a_known_name():
    first = typo("Jon Smith")
    second = typo("Jon Smith", known=[first.upper()])
    assert second not in (first, "Jon Smith")
    every, known = "", []
    while every is not None:
        every = typo("Jon", known=known)
        known.append(every or "")
    assert sorted(known) == ["", *(slip for slip in ("Jin", "Jkn", "Jln", "Jn", "Joon", "Jpn") if is_held_out(slip))]


def test_a_name_without_an_inner_letter_has_no_typo():
    assert typo("Jo Li") is None


def test_the_last_name_is_what_follows_the_first_without_a_suffix():
    assert [last_name(name) for name in NAMES[:3]] == ["Collins", "St. Brown", "Harrison"]
    assert last_name("Pelé") is None


def test_only_last_names_that_nobody_shares_are_asked():
    people = ["Nico Collins", "Amon-Ra St. Brown", "A.J. Brown", "Cedrick Wilson Jr.", "Garrett Wilson", "Puka Nacua"]
    assert unique_last_names([*people, "Puka Nacua"]) == {"Nico Collins": "Collins", "Puka Nacua": "Nacua"}


def test_a_last_name_is_shared_by_all_who_bear_it_and_by_nobody_else():
    people = dict(enumerate(["A.J. Brown", "Amon-Ra St. Brown", "Marquise brown", "Mike Evans", "Pelé", "Ty Hill Jr."]))
    assert shared_last_names(people) == {"Brown": ["A.J. Brown", "Marquise brown"]}


def test_accents_are_typed_as_plain_letters_where_that_is_all_there_is_to_it():
    assert in_plain_letters("Amédée Núñez") == "Amedee Nunez"
    assert in_plain_letters("Nico Collins") is None
    assert in_plain_letters("Søren Hale") is None, "no letter of ASCII has a stroke"


def test_a_question_without_its_mark_ends_with_a_word():
    assert without_mark("How many did Marvin Harrison Jr. have?") == "How many did Marvin Harrison Jr. have"
    assert without_mark("Tell me.") == "Tell me"


@pytest.mark.parametrize("question", [f"How many yards did number {n} have in week {n} of 2025?" for n in range(20)])
def test_two_blanks_stand_in_places_and_nothing_else_is_altered(question):
    typed = with_two_blanks(question)
    assert " ".join(typed.split()) == question
    assert 1 <= len(typed) - len(question) <= question.count(" ")
    assert "   " not in typed
    assert typed == with_two_blanks(question)


def test_a_stat_is_abbreviated_and_a_name_is_not():
    assert (
        abbreviated("How many receiving yards did Ed Backyards have?")
        == "How many receiving yds did Ed Backyards have?"
    )
    assert abbreviated("receiving touchdowns, fantasy points, targets") == "receiving TDs, fantasy pts, targets"
