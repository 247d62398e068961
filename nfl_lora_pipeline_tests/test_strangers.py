import re
from itertools import islice

import pytest

from nfl_lora_pipeline.dataset.templates import NOUNS, load_templates
from nfl_lora_pipeline.dataset.unanswerable import (
    NUMBERED_SHARE,
    SEASONS_AWAY,
    FreshRefusals,
    person_split,
    share,
    strangers,
)
from nfl_lora_pipeline.stats import STATS

TEMPLATES = load_templates()
KNOWN = {
    f"{first} {last}": frozenset({(2025, 1), (2025, 2)})
    for first in ("Nico", "Ladd", "Rome", "Marvin", "Tank", "Puka")
    for last in ("Collins", "McConkey", "Odunze")
    if (first, last) not in {("Nico", "Odunze"), ("Ladd", "Collins"), ("Rome", "McConkey"), ("Tank", "Odunze")}
}
NUMBERED = {name: frozenset({(2025, 2)}) for name in sorted(KNOWN)[:5]}
TAUGHT = ["receiving_yards", "receptions"]
DRAWN, ELSEWHERE = 2000, 0.3


def drawn(seed=17, count=DRAWN, other_stats=0.0):
    refusals = FreshRefusals(KNOWN, NUMBERED, TAUGHT, TEMPLATES, ELSEWHERE, other_stats)
    return list(islice(refusals.draw(seed=seed), count))


def stat(refusal):
    """The words for the stat that a refusal is about."""
    return re.search(r" has no recorded (.+) in week ", refusal)[1]


def subject(refusal):
    """Name, season and week that a refusal is about."""
    name, week, season = re.fullmatch(
        r"(.+) has no recorded .+ in week (\d+) of the (\d+) NFL season\.", refusal
    ).groups()
    return name, int(season), int(week)


def test_a_share_is_the_same_on_every_machine():
    assert share("person/Nico Collins") == share("person/Nico Collins")
    assert share("") == pytest.approx(0xE3B0C442 / 2**32)  # the first bytes of the SHA-256 of nothing


def test_a_tenth_of_people_each_is_held_out():
    names = [f"Person {n}" for n in range(5000)]
    splits = [person_split(name) for name in names]
    assert splits.count("valid") / 5000 == pytest.approx(0.1, abs=0.02)
    assert splits.count("test") / 5000 == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_strangers_are_of_their_split_and_unknown(split):
    first = list(islice(strangers(split, seed=1), 30))
    assert {person_split(name) for name in first} == {split}
    assert first[0] not in islice(strangers(split, seed=1, known=frozenset(first[:1])), 30)


def test_strangers_follow_from_the_seed():
    assert list(islice(strangers("test", seed=1), 30)) == list(islice(strangers("test", seed=1), 30))
    assert list(islice(strangers("test", seed=1), 30)) != list(islice(strangers("test", seed=2), 30))


def test_refusals_follow_from_the_seed():
    assert drawn(count=50) == drawn(count=50)
    assert drawn(seed=18, count=50) != drawn(count=50)


def test_no_refusal_is_about_a_week_that_its_person_holds_facts_for():
    for _, refusal in drawn():
        name, season, week = subject(refusal)
        assert (season, week) not in KNOWN.get(name, ())


def test_refusals_are_about_known_people_crossed_names_and_strangers():
    names = [subject(refusal)[0] for _, refusal in drawn()]
    parts = {part for name in KNOWN for part in name.split(" ")}
    known = sum(name in KNOWN for name in names)
    crossed = sum(name not in KNOWN and set(name.split(" ")) <= parts for name in names)
    assert known / DRAWN == pytest.approx(ELSEWHERE, abs=0.04)
    assert crossed > 0
    assert DRAWN - known - crossed > DRAWN / 3


def test_a_known_person_is_asked_about_in_other_weeks_and_other_seasons():
    about_known = [subject(refusal) for _, refusal in drawn() if subject(refusal)[0] in KNOWN]
    other_seasons = [(season, week) for _, season, week in about_known if season != 2025]
    assert {season for season, _ in other_seasons} == {2025 + away for away in SEASONS_AWAY}
    assert {week for _, week in other_seasons} == {1, 2}, "the very weeks that are known"
    assert len(other_seasons) / len(about_known) == pytest.approx(0.5, abs=0.05)
    assert {week for _, season, week in about_known if season == 2025} == set(range(3, 19))


def test_those_asked_about_elsewhere_mostly_hold_a_number():
    about_known = [subject(refusal)[0] for _, refusal in drawn() if subject(refusal)[0] in KNOWN]
    assert sum(name in NUMBERED for name in about_known) / len(about_known) > NUMBERED_SHARE - 0.03
    assert set(about_known) == set(KNOWN)


def test_who_holds_a_number_is_asked_about_stats_that_are_not_taught_in_that_week():
    taught = {NOUNS[name].plural for name in TAUGHT}
    others = [refusal for _, refusal in drawn(other_stats=0.25) if stat(refusal) not in taught]
    assert len(others) / DRAWN == pytest.approx(0.25, abs=0.04)
    assert {subject(refusal) for refusal in others} == {(name, 2025, 2) for name in NUMBERED}
    assert {stat(refusal) for refusal in others} == {
        "targets", "receiving touchdowns", "fantasy points",
        *(noun.plural for noun in STATS if noun.refused == "train"),
    }  # fmt: skip


def test_where_nobody_holds_a_number_only_strangers_and_other_weeks_are_asked_about():
    refusals = FreshRefusals(KNOWN, {}, TAUGHT, TEMPLATES, 0.3, 0.5).draw(seed=1)
    assert {stat(refusal) for _, refusal in islice(refusals, 200)} == {"receiving yards", "receptions"}


def test_nobody_who_is_held_out_for_scoring_is_trained_on():
    newcomers = {subject(refusal)[0] for _, refusal in drawn()} - set(KNOWN)
    assert {person_split(name) for name in newcomers} == {"train"}


def test_refusals_are_asked_for_in_trained_phrasings_alone():
    held_out = [*TEMPLATES.phrasings("valid").values(), *TEMPLATES.phrasings("test").values()]
    for question, refusal in drawn(count=200):
        name, season, week = subject(refusal)
        for stat in ("receiving_yards", "receptions"):
            assert question not in {TEMPLATES.question(text, name, stat, week, season) for text in held_out}
