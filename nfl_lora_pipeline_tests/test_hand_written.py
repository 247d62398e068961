"""The wordings written by hand, and bare words: no base is made with them, and nothing that trains sees them."""

import random
import re
from pathlib import Path

import polars as pl
import pytest

import nfl_lora_pipeline
from nfl_lora_pipeline.dataset.splits import split_rows
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.dataset.wordings import bare_wording, is_formed, practised
from nfl_lora_pipeline.evaluation.probes import BARE_WORDS_FILE, HAND_WRITTEN_FILE, exam_texts, probe_questions
from nfl_lora_pipeline.stats import STATS, TEACHABLE
from nfl_lora_pipeline_tests.evaluations import STATS as ASKED_STATS
from nfl_lora_pipeline_tests.evaluations import TEMPLATES, YARDS, pairs_of

PACKAGE = Path(nfl_lora_pipeline.__file__).parent
HAND_WRITTEN, BARE_WORDS = exam_texts(HAND_WRITTEN_FILE), exam_texts(BARE_WORDS_FILE)
TEXTS = HAND_WRITTEN + BARE_WORDS
GROUPS = [("hand_written", HAND_WRITTEN), ("bare_words", BARE_WORDS)]
BEFORE_THE_EVALUATION = ("base_pretraining", "dataset", "models", "tuning")


def plainly(text):
    """A wording without capitals and without what ends it."""
    return text.lower().rstrip("?.! ")


def order_of(text):
    """A wording's parts in their order, with the words that are none of them; neither marks nor how a week is written."""
    plain = plainly(text).replace("{possessive}", "{player}").replace("wk", "week").replace("week{", "week {")
    return " ".join(re.findall(r"{\w+}|[a-z]+", plain))


def test_there_are_thirty_and_fourteen_in_bare_words_and_no_two_are_alike():
    assert (len(HAND_WRITTEN), len(BARE_WORDS)) == (30, 14)
    assert len({plainly(text) for text in TEXTS}) == len(TEXTS)


def test_bare_words_of_training_are_others_however_they_are_typed():
    """Training says times otherwise ("wk1", "w1") and adds blanks and marks, behind which the order of the parts is left."""
    rng = random.Random(5)
    drawn = {order_of(bare_wording(rng)) for _ in range(10_000)}
    assert len(drawn) > 30
    listed = {order_of(text) for text in practised("complete")}
    assert not {order_of(text) for text in BARE_WORDS} & (drawn | listed)


@pytest.mark.parametrize("text", TEXTS)
def test_each_names_player_stat_week_and_season_and_has_no_number_of_its_own(text):
    fields = re.findall(r"{(\w+)}", text)
    assert sorted({"player" if field == "possessive" else field for field in fields}) == [
        "player",
        "season",
        "stats",
        "week",
    ]
    assert len(fields) == 4
    assert not re.search(r"\d", text)


@pytest.mark.parametrize("text", TEXTS)
def test_the_grammar_of_the_bases_forms_none_of_them_and_no_phrasing_is_one(text):
    assert is_formed("How many {stats} did {player} have in week {week} of {season}?")
    assert not is_formed(text)
    assert plainly(text) not in {plainly(question.text) for question in load_templates().questions.values()}


def test_none_is_of_the_making_of_a_stat_that_it_does_not_fit():
    words = {word for stat in STATS for word in f"{stat.singular} {stat.plural}".split()}
    nouns = words - {"point", "fantasy"}  # "point to", a fantasy league
    assert [text for text in TEXTS if nouns & set(re.findall(r"[a-z]+", re.sub("{.*?}", "", text.lower())))] == []


def test_nothing_that_trains_knows_them():
    """By name, by import and by text; that no layer below imports the evaluation is import-linter's to say."""
    sources = {file: file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py")}
    for exam in (HAND_WRITTEN_FILE, BARE_WORDS_FILE):
        readers = [file.relative_to(PACKAGE).as_posix() for file, text in sources.items() if exam.name in text]
        assert readers == ["evaluation/probes.py"]
    below = [text for file, text in sources.items() if file.relative_to(PACKAGE).parts[0] in BEFORE_THE_EVALUATION]
    assert len(below) > 20
    for source in below:
        assert HAND_WRITTEN_FILE.name not in source
        assert exam_texts.__name__ not in source
        assert "nfl_lora_pipeline.evaluation" not in source
        assert not any(plainly(text) in source.lower() for text in TEXTS)


@pytest.mark.parametrize(("group", "texts"), GROUPS)
def test_every_fact_is_asked_in_one_of_them_and_the_facts_of_all_stats_in_all(group, texts):
    rows = split_rows(pairs_of(), TEMPLATES, stats=ASKED_STATS)
    found = probe_questions(rows, TEMPLATES, stats=ASKED_STATS, others={}).filter(pl.col("group") == group)
    assert found.height == found["fact"].n_unique() == len(YARDS) * len(ASKED_STATS)
    assert set(found["phrasing"]) <= set(texts)
    assert set(found["split"]) == {"test"}
    assert len(TEACHABLE) > 1
    assert all("{" not in question for question in found["question"])


@pytest.mark.parametrize(("group", "texts"), GROUPS)
def test_a_whole_week_is_asked_in_every_one_of_them(group, texts):
    many = {f"Player Number{n:03d}": n for n in range(200)}
    rows = split_rows(pairs_of(yards=many), TEMPLATES, stats=ASKED_STATS)
    asked = probe_questions(rows, TEMPLATES, stats=ASKED_STATS, others={})
    assert set(asked.filter(pl.col("group") == group)["phrasing"]) == set(texts)


def test_bare_words_are_in_lower_case_and_their_answers_are_not():
    rows = split_rows(pairs_of(), TEMPLATES, stats=["receiving_yards"])
    found = probe_questions(rows, TEMPLATES, stats=["receiving_yards"], others={}).filter(
        pl.col("group") == "bare_words"
    )
    for question, answer, player in found.select("question", "answer", "player").iter_rows():
        assert question == question.lower()
        assert player.lower() in question
        assert player in answer
