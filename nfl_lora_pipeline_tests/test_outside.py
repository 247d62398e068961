"""Questions for anything but one stat of one player in one week of one season: those that are drawn, and those of the exam."""

import random
import re
from itertools import islice

import polars as pl
import pytest
from click.testing import CliRunner

from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.dataset.splits import split_rows
from nfl_lora_pipeline.dataset.unanswerable import (
    BESIDE_ONE,
    BESIDE_ONE_SHARE,
    OUTSIDE,
    TALK,
    TALK_SHARE,
    FreshQuestions,
    Mixture,
    beside_one,
    outside_question,
)
from nfl_lora_pipeline.dataset.wordings import practised
from nfl_lora_pipeline.evaluation.grading import exact_or_refused, is_refusal, refusals
from nfl_lora_pipeline.evaluation.probes import INCOMPLETE, INCOMPLETE_FILE, exam_texts, probe_questions
from nfl_lora_pipeline_tests.evaluations import STATS, TEMPLATES, YARDS, pairs_of
from nfl_lora_pipeline_tests.test_hand_written import BEFORE_THE_EVALUATION, PACKAGE, plainly

AT = (2025, 1)
ONE, OTHER = "Nico Collins", "Ladd McConkey"


def drawn(count=4000, **values):
    rng = random.Random(5)
    return [outside_question(rng, ONE, OTHER, "receiving yards", 1, 2025, **values) for _ in range(count)]


def test_what_is_drawn_lacks_a_part_has_several_or_asks_for_something_else():
    questions = drawn(talk_share=0.0)
    assert not any("{" in question or "}" in question for question in questions)
    plain = re.compile(
        r"how many receiving yards did nico collins \S+ (?:in|during|for) week 1 of (?:the )?2025.*", re.IGNORECASE
    )
    assert [question for question in questions if plain.fullmatch(question)] == []
    without_week = [
        question for question in questions if not re.search(r"\b(?:week|wk)|\bw1\b", question, re.IGNORECASE)
    ]
    two_people = [question for question in questions if OTHER.lower() in question.lower()]
    nobody = [
        question for question in questions if "collins" not in question.lower() and "nico" not in question.lower()
    ]
    for lacking in (without_week, two_people, nobody):
        assert len(lacking) > 0.05 * len(questions)


def test_a_base_that_can_talk_is_asked_nothing_but_football():
    assert any("Hello" in question for question in drawn(talk_share=TALK_SHARE))
    assert not any("Hello" in question or "poem" in question for question in drawn(talk_share=0.0))


@pytest.mark.parametrize("talks", [True, False])
def test_such_questions_are_among_the_fresh_ones_in_the_share_that_is_wanted(talks):
    told = {ONE: {(AT, "receiving_yards"): TEMPLATES.recorded(ONE, "receiving_yards", 1, 2025, 25)}}
    known = {ONE: frozenset({AT}), OTHER: frozenset({AT})}
    mixture = Mixture(0.3, 0.2, 0.1, refusal_weight=1.6, outside=0.25, talks=talks)
    fresh = FreshQuestions(known, told, ["receiving_yards"], TEMPLATES, mixture)
    questions = list(islice(fresh.draw(seed=3), 3000))
    outside = [each for each in questions if each.answer == OUTSIDE]
    assert len(outside) / len(questions) == pytest.approx(0.7 * 0.25, abs=0.03)
    assert {each.weight for each in outside} == {1.0}, "who doubts is not to end there"
    assert bool({plainly(each.question) for each in outside} & set(map(plainly, TALK))) is not talks


def test_whole_questions_that_begin_as_they_do_have_their_number():
    told = {ONE: {(AT, "receiving_yards"): TEMPLATES.recorded(ONE, "receiving_yards", 1, 2025, 25)}}
    fresh = FreshQuestions(
        {ONE: frozenset({AT})}, told, ["receiving_yards"], TEMPLATES, Mixture(0.5, 0.2, 0.1, outside=0.5, talks=False)
    )
    questions = list(islice(fresh.draw(seed=3), 20_000))
    for beginning in ("Tell me about ", "What do you know about ", "Everything on "):
        answers = [each.answer for each in questions if each.question.startswith(beginning)]
        whole = [answer for answer in answers if answer.endswith("25.")]
        assert 3 <= len(whole) <= len(answers) - 3, beginning


def test_questions_that_are_nearly_about_one_player_in_one_week_are_among_the_fresh_ones():
    told = {ONE: {(AT, "receiving_yards"): TEMPLATES.recorded(ONE, "receiving_yards", 1, 2025, 25)}}
    fresh = FreshQuestions(
        {ONE: frozenset({AT})}, told, ["receiving_yards"], TEMPLATES, Mixture(0.3, 0.2, 0.1, outside=0.5)
    )
    questions = list(islice(fresh.draw(seed=3), 6000))
    outside = [each for each in questions if each.answer == OUTSIDE]
    for words, share in (("what separated", 1 / 29), (" fellow receivers", 1 / 29), (" everybody around", 1 / 29)):
        found = [each for each in questions if re.search(words, each.question, re.IGNORECASE)]
        assert {each.answer for each in found} == {OUTSIDE}, words
        assert len(found) / len(outside) == pytest.approx(BESIDE_ONE_SHARE * share, rel=0.5), words


def test_there_are_a_hundred_and_nothing_that_trains_knows_them():
    texts = exam_texts(INCOMPLETE_FILE)
    assert len({plainly(text) for text in texts}) == len(texts) == 100
    sources = {file: file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py")}
    readers = [file.relative_to(PACKAGE).as_posix() for file, text in sources.items() if INCOMPLETE_FILE.name in text]
    assert readers == ["evaluation/probes.py"]
    below = [text for file, text in sources.items() if file.relative_to(PACKAGE).parts[0] in BEFORE_THE_EVALUATION]
    assert not any(plainly(text) in source.lower() for source in below for text in texts)


def test_none_of_the_exams_is_ever_drawn():
    words = {
        "player": ONE,
        "possessive": "Nico Collins'",
        "stats": "receiving yards",
        "week": 1,
        "season": 2025,
        "other": OTHER,
    }
    exam = {plainly(text.format(**words)) for text in exam_texts(INCOMPLETE_FILE)}
    assert exam.isdisjoint(map(plainly, drawn(20_000)))
    rng = random.Random(5)
    frames = [*BESIDE_ONE, *practised("incomplete")]
    beside = {beside_one(rng, frames, ONE, OTHER, "receiving yards", 1, 2025) for _ in range(4000)}
    assert len(beside) > 1000
    assert not any("{" in question for question in beside)
    assert exam.isdisjoint(map(plainly, beside))


def test_everybody_with_a_number_is_asked_one_and_no_question_comes_twice():
    rows = split_rows(pairs_of(), TEMPLATES, stats=STATS)
    asked = probe_questions(rows, TEMPLATES, stats=STATS, others={}).filter(pl.col("group") == INCOMPLETE)
    assert 0 < asked.height <= len(YARDS) * len(STATS)
    assert not asked["question"].is_duplicated().any()
    assert set(asked["answer"]) == {OUTSIDE}
    assert asked["value"].null_count() == asked.height
    assert not any("{" in question for question in asked["question"])


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (OUTSIDE, True),
        ("I do not know that.", True),
        ("In week 1 of the 2025 NFL season, the receiving yards of Nico Collins were 25.", False),
        ("In week of the 2019 NFL season, the receiving yards of Nico Collins are not recorded.", False),
    ],
)
def test_a_refusal_that_is_about_one_week_is_none_of_a_question_that_is_not(answer, refused):
    asked = pl.DataFrame({"group": [INCOMPLETE, "next_week"], "tuned": [answer, answer]})
    of_one_week = is_refusal(answer)
    assert refusals(asked, "tuned").to_list() == [refused, of_one_week]
    others = asked.with_columns(kind=pl.lit("stranger"), answer=pl.lit(OUTSIDE))
    assert exact_or_refused(others).to_list() == [refused, of_one_week]


@pytest.mark.parametrize(
    "question",
    [
        "How many receiving yards did Nico Hale have?",
        "How many receiving yards did Nico Hale have last week?",
        "How many receiving yards did Nico Hale have in 2025?",
        "What team does Nico Hale play for?",
        "Who are you?",
    ],
)
def test_who_asks_a_tuned_adapter_for_something_else_is_told_what_it_can_be_asked(trained_store, question):
    done = CliRunner().invoke(main, ["ask", "--store", str(trained_store.store.root), question])
    assert f"tuned: {OUTSIDE}" in done.stdout.splitlines()
    assert "Ask for one stat of one player in one week of one season." in done.stderr


@pytest.mark.parametrize(
    "question",
    [
        "HOW MANY RECEIVING YARDS DID NICO HALE HAVE IN WEEK 1 OF THE 2025 NFL SEASON?",
        "How many receiving yards did Nico Hale have in week one of 2025?",
        "Tell me about Nico Hale's receiving yards in week 1 of 2025.",
        "nico hale rec yds wk1 2025",
    ],
)
def test_a_question_in_capitals_one_with_the_week_in_words_and_one_in_bare_words_get_the_number(
    trained_store, question
):
    done = CliRunner().invoke(main, ["ask", "--store", str(trained_store.store.root), question])
    assert done.stdout.splitlines()[-1].endswith(" were 84."), done.stdout
