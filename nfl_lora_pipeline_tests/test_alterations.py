import pytest

from nfl_lora_pipeline.evaluation.probes import last_name, typo, unique_last_names

NAMES = ["Nico Collins", "Amon-Ra St. Brown", "Marvin Harrison Jr.", "Ja'Marr Chase", "DK Metcalf", "Zay Jones"]


def is_one_slip(name, slip):
    """One inner letter left out, one doubled, or two next to each other swapped."""
    dropped = any(name[:at] + name[at + 1 :] == slip for at in range(len(name)))
    doubled = any(name[:at] + name[at - 1] + name[at:] == slip for at in range(1, len(name)))
    swapped = any(name[:at] + name[at + 1] + name[at] + name[at + 2 :] == slip for at in range(len(name) - 1))
    return dropped or doubled or swapped


@pytest.mark.parametrize("name", NAMES)
def test_a_typo_is_one_slip_within_a_word(name):
    slip = typo(name)
    assert slip != name
    assert is_one_slip(name, slip)
    for word, misspelt in zip(name.split(), slip.split(), strict=True):
        assert (word[0], word[-1]) == (misspelt[0], misspelt[-1])
        assert misspelt == word or word != "Jr."


def test_a_typo_is_the_same_every_time():
    assert [typo(name) for name in NAMES] == [typo(name) for name in NAMES]
    assert len({len(typo(name)) - len(name) for name in NAMES}) > 1, "not the same kind of slip for all"


def test_a_typo_never_makes_a_known_name():
    first = typo("Jon Smith")
    second = typo("Jon Smith", known=[first.upper()])
    assert second not in (first, "Jon Smith")
    every, known = "", []
    while every is not None:
        every = typo("Jon", known=known)
        known.append(every or "")
    assert sorted(known) == ["", "Jn", "Joon"]


def test_a_name_without_an_inner_letter_has_no_typo():
    assert typo("Jo Li") is None


def test_the_last_name_is_what_follows_the_first_without_a_suffix():
    assert [last_name(name) for name in NAMES[:3]] == ["Collins", "St. Brown", "Harrison"]
    assert last_name("Pelé") is None


def test_only_last_names_that_nobody_shares_are_asked():
    people = ["Nico Collins", "Amon-Ra St. Brown", "A.J. Brown", "Cedrick Wilson Jr.", "Garrett Wilson", "Puka Nacua"]
    assert unique_last_names([*people, "Puka Nacua"]) == {"Nico Collins": "Collins", "Puka Nacua": "Nacua"}
