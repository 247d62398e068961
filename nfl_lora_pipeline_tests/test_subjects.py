import pytest

from nfl_lora_pipeline.evaluation.grading import Names, is_about, name_words, name_words_right

KNOWN = Names.of(["Nico Collins", "Rome Odunze", "Michael Pittman", "Tyreek Hill", "Jaylen Waddle"])


@pytest.mark.parametrize(
    "answer",
    [
        "Nico Collins had 25 yards.",
        "nico collins had 25 yards.",
        "In week 1 Nico Collins' yards were 25.",
        "Sure! Collins finished with 25 yards, I believe.",
        "He had 25.",
        "25",
        "The Texans' man had 25.",
        "As of Week 1, Nico Collins, unlike Rome Odunze, had 25.",
        "Nicoo Collins had 25 yards.",
        "Nico Colilns had 25 yards.",
    ],
)
def test_an_answer_that_names_the_player_misspells_him_or_names_nobody_is_about_him(answer):
    assert is_about(answer, "Nico Collins", KNOWN)


@pytest.mark.parametrize(
    "answer",
    [
        "Rome Odunze had 25 yards.",
        "rome odunze had 25 yards.",
        "Odunze had 25 yards.",
        "Nico Hale had 25 yards.",
        "Phillip Dorsett had 25 yards.",
        "In Week 1 of the 2025 NFL season, Phillip Dorsett had 25.",
        "Marcus Collins had 25 yards.",
    ],
)
def test_an_answer_that_names_another_person_is_not_about_the_player(answer):
    assert not is_about(answer, "Nico Collins", KNOWN)


def test_a_suffix_may_be_left_out_and_a_name_may_have_three_words():
    assert is_about("Marvin Harrison had 71 yards.", "Marvin Harrison Jr.")
    assert is_about("Amon-Ra St. Brownn had 45 yards.", "Amon-Ra St. Brown")
    assert not is_about("Equanimeous St. Brown had 45 yards.", "Amon-Ra St. Brown")


def test_the_words_of_a_name_are_its_letters():
    assert name_words("Marvin Harrison Jr.") == ("marvin", "harrison")
    assert name_words("De'Quor Vance-Hill III") == ("de'quor", "vance-hill")


@pytest.mark.parametrize(
    ("answer", "name", "right"),
    [
        ("Nico Collins has no recorded yards.", "Nico Collins", 2),
        ("There are no records of Nico Collins' yards.", "Nico Collins", 2),
        ("CeeDeeDee Lamb has no recorded yards.", "CeeDee Lamb", 1),
        ("Equanimeous St. Brs St. Brown has none.", "Equanimeous St. Brown", 2),
        ("Collins Nico has none.", "Nico Collins", 1),
        ("I do not know.", "Nico Collins", 0),
        ("", "Nico Collins", 0),
    ],
)
def test_copied_words_of_a_name_stand_in_their_order(answer, name, right):
    assert name_words_right(answer, name) == right
