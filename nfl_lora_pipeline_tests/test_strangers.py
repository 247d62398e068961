import re
from dataclasses import replace
from itertools import islice, pairwise
from types import SimpleNamespace

import pytest

from nfl_lora_pipeline.dataset.people import last_name, person_split, share, strangers
from nfl_lora_pipeline.dataset.templates import NOUNS, load_templates
from nfl_lora_pipeline.dataset.typed import CAREFUL
from nfl_lora_pipeline.dataset.unanswerable import COMMON_SHARE, CROSSED_SHARE, SEASONS_AWAY, FreshQuestions, Mixture
from nfl_lora_pipeline.stats import STATS

TEMPLATES = load_templates()
KNOWN = {
    f"{first} {last}": frozenset({(2025, 1), (2025, 2)})
    for first in ("Nico", "Ladd", "Rome", "Marvin", "Tank", "Puka")
    for last in ("Collins", "McConkey", "Odunze")
    if (first, last) not in {("Nico", "Odunze"), ("Ladd", "Collins"), ("Rome", "McConkey"), ("Tank", "Odunze")}
} | {"Keon Coleman": frozenset({(2025, 1), (2025, 2)})}
AT, STAT = (2025, 2), "receiving_yards"
TOLD = {
    name: {(AT, STAT): TEMPLATES.recorded(name, STAT, 2, 2025, place)}
    for place, name in enumerate([*sorted(KNOWN)[:5], "Keon Coleman"])
}
TAUGHT = ["receiving_yards", "receptions"]
DRAWN, ELSEWHERE, OTHER_STATS, WEIGHT = 2000, 0.3, 0.2, 2.5
REFUSAL = re.compile(r"In week (\d+) of the (\d+) NFL season, the (.+) of (.+) are not recorded\.")


def drawn(seed=17, count=DRAWN, *, varied=0.0, other_stats=OTHER_STATS, typing=CAREFUL, told=TOLD):
    mixture = Mixture(varied, ELSEWHERE, other_stats, typing, refusal_weight=WEIGHT)
    return list(islice(FreshQuestions(KNOWN, told, TAUGHT, TEMPLATES, mixture).draw(seed=seed), count))


def pairs(*args, **values):
    """Questions and answers of what is drawn."""
    return [(question, answer) for question, answer, _ in drawn(*args, **values)]


def stat(refusal):
    """The words for the stat that a refusal is about."""
    return REFUSAL.fullmatch(refusal)[3]


def subject(refusal):
    """Name, season and week that a refusal is about."""
    week, season, _, name = REFUSAL.fullmatch(refusal).groups()
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


def test_no_refusal_is_about_what_its_person_is_taught():
    for _, refusal in pairs():
        name, season, week = subject(refusal)
        assert not ((season, week) == AT and name in TOLD and stat(refusal) == NOUNS[STAT].plural)


def test_refusals_are_about_known_people_crossed_names_and_strangers():
    names = [subject(refusal)[0] for _, refusal in pairs()]
    parts = {part for name in KNOWN for part in name.split(" ")}
    known = sum(name in KNOWN for name in names)
    crossed = sum(name not in KNOWN and set(name.split(" ")) <= parts for name in names)
    assert known / DRAWN == pytest.approx(ELSEWHERE + OTHER_STATS, abs=0.04)
    assert crossed > 0
    assert DRAWN - known - crossed > DRAWN / 4


def test_a_refusal_weighs_more_and_nothing_else_does():
    weights = {bool(REFUSAL.fullmatch(answer)): weight for _, answer, weight in drawn(varied=0.3)}
    assert weights == {True: WEIGHT, False: 1}


def test_a_known_person_is_asked_about_in_other_weeks_and_other_seasons_the_next_week_above_all():
    about_known = [subject(refusal) for _, refusal in pairs(other_stats=0.0) if subject(refusal)[0] in KNOWN]
    other_seasons = [(season, week) for _, season, week in about_known if season != 2025]
    assert {season for season, _ in other_seasons} == {2025 + away for away in SEASONS_AWAY}
    assert {week for _, week in other_seasons} == {2}, "the very week that is known"
    assert len(other_seasons) / len(about_known) == pytest.approx(0.5, abs=0.05)
    other_weeks = [week for _, season, week in about_known if season == 2025]
    assert set(other_weeks) == set(range(3, 19))
    assert other_weeks.count(3) > 3 * other_weeks.count(9)
    assert {name for name, *_ in about_known} == set(TOLD), "who holds no number is refused anyway"


def test_who_is_taught_something_is_asked_about_other_stats_at_the_same_time():
    taught = {NOUNS[name].plural for name in TAUGHT}
    others = [refusal for _, refusal in pairs() if stat(refusal) not in taught]
    assert {subject(refusal) for refusal in others} == {(name, *AT) for name in TOLD}
    said = {stat(refusal) for refusal in others}
    assert {"targets", "receiving touchdowns", "fantasy points"} < said
    assert {noun.plural for noun in STATS if noun.refused == "train"} < said
    assert said.isdisjoint(noun.plural for noun in STATS if noun.refused == "test"), "the exam alone asks for them"


def test_where_nobody_is_taught_anything_only_strangers_are_asked_about():
    names = {subject(refusal)[0] for _, refusal in pairs(count=200, told={})}
    assert names.isdisjoint(KNOWN)


def test_a_taught_fact_is_asked_about_in_other_words_and_beside_it_what_differs_in_one_thing():
    answers = {answer: name for name, told in TOLD.items() for answer in told.values()}
    questions = pairs(varied=0.5)
    varied = [place for place, (_, answer) in enumerate(questions) if answer in answers]
    assert len(varied) / DRAWN == pytest.approx(0.5, abs=0.04)
    assert len({questions[place][0] for place in varied}) > 0.6 * len(varied)
    beside = alike = 0
    for (asked, answer), (other, refusal) in pairwise(questions):
        if answer not in answers or refusal in answers or subject(refusal)[0] not in KNOWN:
            continue
        beside += 1
        name = answers[answer]
        assert subject(refusal)[0] == name
        differs = [subject(refusal)[1] != AT[0], subject(refusal)[2] != AT[1], stat(refusal) != NOUNS[STAT].plural]
        assert sum(differs) == 1, refusal
        alike += asked.split()[:1] == other.split()[:1]
    assert beside > DRAWN / 10
    assert alike > 0.9 * beside, "in the same words, but for what the stat is called"


def test_beside_a_taught_fact_somebody_who_shares_a_name_with_him_is_refused_in_the_same_words():
    answers = {answer: name for name, told in TOLD.items() for answer in told.values()}
    kept, alike = {"first": 0, "last": 0, "neither": 0}, 0
    for (asked, answer), (other, refusal) in pairwise(pairs(varied=0.5)):
        if answer not in answers or refusal in answers or subject(refusal)[0] in KNOWN:
            continue
        name, (stranger, season, week) = answers[answer], subject(refusal)
        shares = [own == other for own, other in zip(name.split(" ", 1), stranger.split(" ", 1), strict=True)]
        kept["first" if shares[0] else "last" if shares[1] else "neither"] += 1
        if any(shares):
            assert ((season, week), stat(refusal)) == (AT, NOUNS[STAT].plural)
            alike += asked.split()[:1] == other.split()[:1]
    assert alike > 0.9 * (kept["first"] + kept["last"]), "in the same words, but for what the stat is called"
    assert kept["last"] > 1.5 * kept["first"] > 0
    of_others = kept["neither"] / sum(kept.values())  # new people, and crossed names of somebody else
    assert 1 - of_others == pytest.approx(CROSSED_SHARE * (1 - COMMON_SHARE), abs=0.06)


def test_a_last_name_alone_has_the_answer_where_nobody_else_is_called_so_and_is_refused_otherwise():
    questions = pairs(varied=1.0, typing=replace(CAREFUL, last_name=1.0))
    for question, answer in questions:
        name = next(name for name in TOLD if last_name(name) in question and name.split()[0] not in question)
        if last_name(name) == "Coleman":
            told = TOLD["Keon Coleman"].values()
            assert answer in {each.replace("Keon Coleman", "Coleman") for each in told}
        else:
            assert subject(answer) == (last_name(name), 2025, 2)


def test_nobody_who_is_held_out_for_scoring_is_trained_on():
    newcomers = {subject(refusal)[0] for _, refusal in pairs()} - set(KNOWN)
    assert {person_split(name) for name in newcomers} == {"train"}


def test_a_wording_that_the_exam_asks_in_is_drawn_anew(monkeypatch):
    (recorded_for,) = TEMPLATES.phrasings("valid").values()
    draws = iter([recorded_for.lower(), recorded_for, "How many {stats} for {player} in week {week} of {season}?"])
    monkeypatch.setattr("nfl_lora_pipeline.dataset.unanswerable.draw_wording", lambda *_, **__: next(draws))
    rng = SimpleNamespace(random=lambda: 0.9)
    made = FreshQuestions(KNOWN, TOLD, TAUGHT, TEMPLATES, Mixture(0.0, ELSEWHERE, OTHER_STATS, CAREFUL))
    assert made._wording(rng) == "How many {stats} for {player} in week {week} of {season}?"


def test_fresh_questions_are_in_no_held_out_phrasing_of_the_test():
    held_out = TEMPLATES.phrasings("test").values()
    for question, refusal in pairs(count=400):
        name, season, week = subject(refusal)
        for column in TAUGHT:
            assert question not in {TEMPLATES.question(text, name, column, week, season) for text in held_out}


def test_some_are_asked_in_bare_words_with_an_answer_and_without():
    others = re.compile(
        r"\b(?:how|what|did|have|had|of|for|by|tell|give|were|was|to|the|is|in|do|me|total|number)\b", re.IGNORECASE
    )
    asked = pairs(varied=0.5)
    bare = [(question, answer) for question, answer in asked if not others.search(question.replace("of the 2025", ""))]
    refused = [answer for _, answer in bare if REFUSAL.fullmatch(answer)]
    assert len(bare) > 0.04 * len(asked)
    assert 0.3 < len(refused) / len(bare) < 0.7
