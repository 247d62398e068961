import polars as pl
import pytest
import yaml

from nfl_lora_pipeline.dataset.qa_pairs import qa_pairs
from nfl_lora_pipeline.dataset.templates import TEMPLATES_FILE, load_templates, number_text
from nfl_lora_pipeline.dataset.typed import possessive

TEMPLATES = load_templates()


def changed(tmp_path, *path, to):
    """A copy of the shipped templates with one entry set."""
    content = yaml.safe_load(TEMPLATES_FILE.read_text())
    *parents, last = path
    entry = content
    for parent in parents:
        entry = entry[parent]
    entry[last] = to
    file = tmp_path / "templates.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def a_fact(stat: str, value: float) -> pl.LazyFrame:
    at = {"fact": "f", "season": 2025, "week": 1, "player_id": "1", "player": "Rome Odunze", "stat": stat}
    return pl.LazyFrame(at | {"status": "recorded", "kind": "recorded", "value": float(value)})


@pytest.mark.parametrize(
    ("stat", "value", "words"),
    [
        ("receptions", 1, "1 reception"),
        ("receptions", 0, "0 receptions"),
        ("receiving_yards", 1, "1 receiving yard"),
        ("receiving_yards", -1, "-1 receiving yards"),
        ("receiving_yards", -3, "-3 receiving yards"),
        ("fantasy_points", 24.6, "24.6 fantasy points"),
        ("fantasy_points", 4.0, "4 fantasy points"),
        ("fantasy_points", 1.0, "1 fantasy point"),
    ],
)
def test_an_answer_counts_in_singular_and_plural(stat, value, words):
    text = "{player} had {n} {noun} in week {week} of the {season} NFL season."
    templates = TEMPLATES.model_copy(update={"answers": TEMPLATES.answers.model_copy(update={"recorded": text})})
    answer = templates.recorded("Rome Odunze", stat, 1, 2025, value)
    assert answer == f"Rome Odunze had {words} in week 1 of the 2025 NFL season."
    pairs = qa_pairs(a_fact(stat, value), templates).collect()
    assert set(pairs["answer"]) == {answer}, "polars and Python say the same"


def test_an_answer_says_first_what_was_asked_however_it_was_asked_and_then_what_is_known_of_it():
    known, unknown, bye = (
        TEMPLATES.recorded("Rome Odunze", "receptions", 1, 2025, 6),
        TEMPLATES.no_record("Rome Odunze", "receptions", 1, 2025),
        TEMPLATES.bye("Rome Odunze", "receptions", 1, 2025),
    )
    asked = "In week 1 of the 2025 NFL season, the receptions of Rome Odunze "
    assert [text.removeprefix(asked) for text in (known, unknown, bye)] == [
        "were 6.",
        "are not recorded.",
        "are none: his team had no game.",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(25.0, "25"), (24.6, "24.6"), (10.0, "10"), (0.0, "0"), (-2.0, "-2"), (7.25, "7.25"), (100, "100")],
)
def test_a_number_is_spoken_without_needless_zeros(value, text):
    assert number_text(value) == text


def test_a_name_that_ends_in_s_takes_an_apostrophe_alone():
    assert possessive("Nico Collins") == "Nico Collins'"
    assert possessive("Rome Odunze") == "Rome Odunze's"
    assert possessive("Marvin Harrison Jr.") == "Marvin Harrison Jr.'s"


def test_a_bye_says_that_there_was_no_game():
    assert (
        TEMPLATES.bye("Nico Collins", "targets", 6, 2025)
        == "In week 6 of the 2025 NFL season, the targets of Nico Collins are none: his team had no game."
    )


def test_the_original_wording_is_a_trained_one():
    texts = [
        TEMPLATES.question(text, "Nico Collins", "receiving_yards", 1, 2025)
        for text in TEMPLATES.phrasings("train").values()
    ]
    assert "how many receiving yards did Nico Collins have in week 1 of the 2025 NFL season?" in texts


def test_every_split_has_a_wording_and_no_wording_is_in_two():
    texts = [set(TEMPLATES.phrasings(split).values()) for split in ("train", "valid", "test")]
    assert all(texts)
    assert len(set.union(*texts)) == sum(map(len, texts)) == len(TEMPLATES.questions)


def test_a_stat_that_is_never_taught_can_be_asked_about():
    question = TEMPLATES.question(
        "How many {stats} did {player} have in week {week} of {season}?", "Ann", "carries", 1, 2025
    )
    assert question == "How many carries did Ann have in week 1 of 2025?"


@pytest.mark.parametrize(
    ("path", "to", "problem"),
    [
        (("questions", "seed", "text"), "How many {stats} did {team} have in {week} of {season}?", "{team}"),
        (("questions", "seed", "text"), "How many {stats} did {player} have in week {week}?", "{season}"),
        (("questions", "seed", "text"), "How many {stats} in week {week} of {season}?", "names nobody"),
        (("questions", "seed", "text"), "How many {stats} did {player", "expected '}'"),
        (("questions", "seed", "split"), "dev", "'train', 'valid' or 'test'"),
        (("answers", "recorded"), "{player} had some {noun} in week {week} of {season}.", "{n}"),
        (("answers", "bye"), "{player} had {n} in week {week} of {season}.", "{n}"),
        (("answers", "maybe"), "Perhaps.", "not permitted"),
    ],
)
def test_a_bad_entry_is_named_with_its_file(tmp_path, path, to, problem):
    with pytest.raises(ValueError, match=r"templates\.yaml") as caught:
        load_templates(changed(tmp_path, *path, to=to))
    assert ".".join(path) in str(caught.value)
    assert problem in str(caught.value)


def test_a_file_that_is_not_yaml_is_named(tmp_path):
    file = tmp_path / "templates.yaml"
    file.write_text("answers: [1")
    with pytest.raises(ValueError, match=r"templates\.yaml: not valid YAML"):
        load_templates(file)
