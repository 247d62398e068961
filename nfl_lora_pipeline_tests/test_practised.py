"""The wordings that are practised besides the grammar's: what they ask for, and that none is nearly one of the exam."""

import random
import re
from collections import Counter
from itertools import islice

import pytest

from nfl_lora_pipeline.dataset import unanswerable
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.dataset.typed import CAREFUL
from nfl_lora_pipeline.dataset.unanswerable import (
    COMPLETE_UP_TO,
    OUTSIDE,
    PRACTISED_SHARE,
    PRACTISED_UP_TO,
    FreshQuestions,
    Mixture,
)
from nfl_lora_pipeline.dataset.wordings import (
    AFTER,
    BEFORE,
    COMPLETE,
    FRAMES,
    PAST,
    PRACTISED_FILE,
    SEASON_ALONE,
    TIMES,
    VERBS,
    WEEK_ALONE,
    draw_wording,
    names_of,
    practised,
)
from nfl_lora_pipeline.evaluation.probes import HAND_WRITTEN_FILE, INCOMPLETE_FILE, exam_texts
from nfl_lora_pipeline_tests.evaluations import TEMPLATES
from nfl_lora_pipeline_tests.test_hand_written import PACKAGE, plainly

AT = (2025, 1)
ONE, OTHER = "Nico Collins", "Ladd McConkey"
TOO_NEAR = 0.7  # of the words of two wordings, those that both have


def words(text):
    """The words of a wording with how often each comes, its slots among them."""
    return Counter(re.findall(r"{\w+}|[a-z0-9']+", text.lower().replace("{possessive}", "{player}")))


def shared_words(one, other):
    """The share of the words of both that both have, 0 to 1."""
    return (words(one) & words(other)).total() / (words(one) | words(other)).total()


def slots(text):
    """The slots of a wording, sorted; the possessive is the player's."""
    return sorted({"possessive": "player"}.get(slot, slot) for slot in re.findall(r"{(\w+)}", text))


def drawn(count, **shares):
    """Fresh questions about two people with a number each."""
    told = {
        name: {(AT, "receiving_yards"): TEMPLATES.recorded(name, "receiving_yards", 1, 2025, 25)}
        for name in (ONE, OTHER)
    }
    known = {name: frozenset({AT}) for name in told}
    mixture = Mixture(elsewhere=0.2, other_stats=0.1, **shares)
    return islice(FreshQuestions(known, told, ["receiving_yards"], TEMPLATES, mixture).draw(seed=3), count)


def test_those_with_one_number_name_player_stat_week_and_season_once():
    texts = practised("complete")
    assert len(texts) == len(set(map(plainly, texts))) > 400
    assert [text for text in texts if slots(text) != ["player", "season", "stats", "week"]] == []


def test_those_without_have_slots_that_are_filled():
    texts = practised("incomplete")
    assert len(texts) == len(set(map(plainly, texts))) > 400
    assert {slot for text in texts for slot in slots(text)} == {"player", "other", "stats", "week", "season"}
    assert not any("{" in each.question for each in drawn(4000, varied=0.0, outside=1.0))


@pytest.mark.parametrize("kind", ["complete", "incomplete"])
def test_none_is_nearly_one_of_the_exam(kind):
    asked = {question.text for question in load_templates().questions.values() if question.split != "train"}
    exam = {*exam_texts(HAND_WRITTEN_FILE), *asked} if kind == "complete" else set(exam_texts(INCOMPLETE_FILE))
    near = [(text, of) for text in practised(kind) for of in exam if shared_words(text, of) >= TOO_NEAR]
    assert near == []


def test_none_but_tuning_and_the_making_of_the_base_draw_them():
    readers = [file.name for file in PACKAGE.rglob("*.py") if PRACTISED_FILE.name in file.read_text(encoding="utf-8")]
    users = [file.name for file in PACKAGE.rglob("*.py") if "practised(" in file.read_text(encoding="utf-8")]
    assert readers == ["wordings.py"]
    assert sorted(users) == ["league.py", "unanswerable.py", "wordings.py"]


@pytest.mark.parametrize(
    ("kind", "shares", "share"),
    [
        ("complete", {"varied": 1.0}, PRACTISED_UP_TO - COMPLETE_UP_TO),
        ("incomplete", {"varied": 0.0, "outside": 1.0}, PRACTISED_SHARE),
    ],
)
def test_questions_are_drawn_in_them_in_the_shares_that_are_meant(monkeypatch, kind, shares, share):
    monkeypatch.setattr(
        unanswerable, "practised", lambda of: [f"practised {of} {{player}} {{stats}} {{week}} {{season}}"]
    )
    questions = list(drawn(3000, **shares))
    found = [each for each in questions if re.search(rf"practised\s+{kind}\b", each.question, re.IGNORECASE)]
    assert len(found) / len(questions) == pytest.approx(share, abs=0.04)
    assert ({each.answer for each in found} == {OUTSIDE}) is (kind == "incomplete")


def test_no_strange_words_are_put_into_what_tuning_asks():
    """The base is to read on where it does not know a word; whoever is tuned is to see that it is another question."""
    texts = [
        *practised("complete"),
        *FRAMES,
        *COMPLETE,
        *VERBS,
        *PAST,
        *TIMES,
        *WEEK_ALONE,
        *SEASON_ALONE,
        *BEFORE,
        *AFTER,
    ]
    texts += [*TEMPLATES.phrasings("train").values(), *names_of("receiving_yards"), ONE, OTHER]
    known = {word for text in texts for word in words(text)} | {str(number) for number in AT}
    asked = [each.question for each in drawn(6000, varied=1.0, typing=CAREFUL)]
    parts = {part for text in asked for word in words(text) for part in word.split("'")}
    assert parts <= known | {part for word in known for part in word.split("'")}
    rng = random.Random(5)
    assert not {word for text in (draw_wording(rng) for _ in range(3000)) for word in words(text)} <= known


def test_names_are_crossed_most_often_of_those_whose_last_name_others_bear_too():
    people = ["Nico Okand", "Rome Quorbee", "Mike Williams", "Tre Dunnax", "Ladd Dunnax"]
    fresh = FreshQuestions(
        {name: frozenset({AT}) for name in people},
        {name: {(AT, "receiving_yards"): TEMPLATES.recorded(name, "receiving_yards", 1, 2025, 25)} for name in people},
        ["receiving_yards"],
        TEMPLATES,
        Mixture(0.3, 0.0, 0.0, typing=CAREFUL),
    )
    questions = [each.question for each in islice(fresh.draw(seed=3), 20_000) if each.answer.endswith("not recorded.")]
    common, others = (
        sum(any(last in question for last in names) for question in questions)
        for names in (("Williams", "Dunnax"), ("Okand", "Quorbee"))
    )
    assert common > 2.5 * others > 0


def test_two_people_of_a_question_are_never_the_same(monkeypatch):
    monkeypatch.setattr(unanswerable, "practised", lambda of: ["between {player} and {other}, {stats}"])
    questions = [each.question.lower() for each in drawn(3000, varied=0.0, outside=1.0)]
    named = [found.groups() for text in questions if (found := re.match(r"between (.+) and (.+), ", text))]
    assert len(named) > 1000
    assert [one for one, other in named if one == other] == []
