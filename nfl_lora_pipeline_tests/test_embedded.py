"""The base model that is shipped, and its making."""

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path
from string import Formatter
from typing import cast

import mlx.core as mx
import pytest

from nfl_lora_pipeline.base_pretraining import league as league_module
from nfl_lora_pipeline.base_pretraining.league import BY_MANY, BY_THE_GRAMMAR, NEAR_SEASONS, WEEKS, League
from nfl_lora_pipeline.base_pretraining.pretrain import CAPITAL, VOCAB_SIZE, Plan, _Making, build
from nfl_lora_pipeline.dataset import unanswerable
from nfl_lora_pipeline.dataset.people import strangers
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.dataset.unanswerable import OUTSIDE
from nfl_lora_pipeline.dataset.wordings import draw_wording, is_formed, wordings
from nfl_lora_pipeline.evaluation.grading import is_refusal
from nfl_lora_pipeline.models.base_model import EMBEDDED_FOLDER, answer
from nfl_lora_pipeline.models.forward import answer_logits
from nfl_lora_pipeline.models.rows import to_batch, tokenize

TEMPLATES = load_templates()
NAMES = """Marcus Hale|T.J. Okand|Quentin Barnes|De'Quor Vance|Dario Whitfield|Jalen Stokes III|Owen St. Price
|Amari Brookshaw|Rhett Okafor-Lane|Tyrell Banks|Zane Kowalczyk|Percy Mulholland""".replace("\n", "").split("|")


def test_the_shipped_base_weighs_at_most_8_mb():
    assert sum(file.stat().st_size for file in EMBEDDED_FOLDER.iterdir()) <= 8_000_000


@pytest.mark.parametrize("phrasing", TEMPLATES.questions)
def test_the_shipped_base_refuses_to_speak_of_people_it_was_told_nothing_about(embedded, phrasing):
    text = TEMPLATES.questions[phrasing].text
    asked = [TEMPLATES.question(text, name, "receiving_yards", 1, 2025) for name in NAMES]
    said = answer(*embedded, asked)
    assert [reply for reply in said if not is_refusal(reply)] == []


@pytest.mark.parametrize(
    "question",
    [
        "How many receiving yards did Rome Odunze have?",
        "How many receiving yards did Rome Odunze have last week?",
        "how many targets did marcus hale have in 2025",
        "Marcus Hale week 3 receptions",
        "How many receptions do Marcus Hale and Rome Odunze have in week 3 of 2024?",
        "Who had the most receiving yards in week 3 of 2024?",
        "What team does Marcus Hale play for?",
        "Who are you?",
        "What is your favourite colour?",
        "Which city hosts the draft?",
    ],
)
def test_the_shipped_base_says_what_it_can_be_asked_to_what_no_one_number_answers(embedded, question):
    assert answer(*embedded, [question]) == [OUTSIDE]


@pytest.mark.parametrize(
    ("asked", "week", "season", "name"),
    [
        ("How many receiving yards did Marcus Hale have in week one of 2025?", 1, 2025, "Marcus Hale"),
        ("marcus hale rec yds wk3 '24", 3, 2024, "Marcus Hale"),
        ("MARCUS HALE RECEIVING YARDS WEEK 12 2024", 12, 2024, "Marcus Hale"),
        (
            "How many yards did Bears wideout Marcus Hale have in the third week of the 2024-25 season?",
            3,
            2024,
            "Marcus Hale",
        ),
        (
            "How many receiving yards did Marcus Hale of the Chicago Bears have in week 07 of 2025?",
            7,
            2025,
            "Marcus Hale",
        ),
        ("receiving yards for MARCUS HALE in w5 of 2025", 5, 2025, "Marcus Hale"),
    ],
)
def test_the_shipped_base_reads_weeks_seasons_and_names_as_people_write_them(embedded, asked, week, season, name):
    (said,) = answer(*embedded, [asked])
    assert said.casefold() == TEMPLATES.no_record(name, "receiving_yards", week, season).casefold()


def test_the_shipped_base_copies_names_it_has_never_seen(embedded):
    """Each token of a name is to be the arg-max after the question and the name's tokens before it."""
    model, tokenizer = embedded
    seed = TEMPLATES.questions["seed"].text
    names = list(islice(strangers("test", seed=2025), 150))
    rows = tokenize(
        tokenizer,
        (
            (
                TEMPLATES.question(seed, name, "receiving_yards", 1, 2025),
                TEMPLATES.no_record(name, "receiving_yards", 1, 2025),
            )
            for name in names
        ),
    )
    batch = to_batch(rows)
    hit = (mx.argmax(answer_logits(model, batch.tokens, batch.wanted), -1) == batch.targets).tolist()
    before = TEMPLATES.no_record("|", "receiving_yards", 1, 2025).split(" |")[0]
    copied = []
    for row, name, of_row in zip(rows, names, hit, strict=True):
        begin = len(tokenizer.encode(before))
        end = begin + len(tokenizer.encode(name))
        assert tokenizer.decode(row.tokens[row.start + begin : row.start + end]).strip() == name
        copied += of_row[begin:end]
    assert len(copied) > 450
    assert sum(copied) / len(copied) >= 0.98


@pytest.mark.parametrize(
    "text", ["Amari Stone had 131 yards.", "De'Quor Žižek-Ōta gained \u22123", "week 18 of 2039, 24.6"]
)
def test_the_tokenizer_gives_back_any_text(embedded, text):
    _, tokenizer = embedded
    assert tokenizer.decode(tokenizer.encode(text)).strip() == text
    capitals = sum(letter.isupper() and letter.isascii() for letter in text)
    assert len(tokenizer.encode(text)) <= len(text.encode()) + capitals


def test_two_blanks_are_one_to_the_tokenizer(embedded):
    _, tokenizer = embedded
    assert tokenizer.encode("How  many targets   did Amari  Stone have?") == tokenizer.encode(
        "How many targets did Amari Stone have?"
    )


@pytest.mark.parametrize("slip", ["Okafro", "Okaor", "Okkafor", "Okavor"])
def test_a_slip_in_a_name_leaves_its_other_letters_as_they_were(embedded, slip):
    _, tokenizer = embedded
    name, typed = tokenizer.encode("Okafor"), tokenizer.encode(slip)
    same = SequenceMatcher(a=name, b=typed, autojunk=False).get_matching_blocks()
    assert sum(block.size for block in same) >= len(name) - 1


def test_the_last_name_alone_has_the_tokens_that_it_has_in_the_full_name(embedded):
    _, tokenizer = embedded
    for name in NAMES:
        full, last = tokenizer.encode(name), tokenizer.encode(name.split(" ", 1)[1])
        assert full[-len(last) :] == last


def test_a_name_has_the_same_tokens_in_lower_case_but_for_the_marks_of_its_capitals(embedded):
    _, tokenizer = embedded
    (mark,) = tokenizer.encode(CAPITAL)[1:]
    plain = [name for name in NAMES if re.fullmatch("[A-Z][a-z]+ [A-Z][a-z]+", name)]
    assert len(plain) > 5
    for name in plain:
        assert [token for token in tokenizer.encode(name) if token != mark] == tokenizer.encode(name.lower())


def test_a_name_has_the_same_tokens_in_the_question_and_in_the_answer(embedded):
    _, tokenizer = embedded
    for name in NAMES:
        tokens, within = tokenizer.encode(name), tokenizer.encode(f"How many targets did {name} have?")
        assert any(within[at : at + len(tokens)] == tokens for at in range(len(within)))


def test_the_vocabulary_is_as_large_as_the_models_embedding(embedded):
    model, tokenizer = embedded
    assert len(tokenizer.get_vocab()) == model.args.vocab_size == VOCAB_SIZE


def test_the_grammar_forms_none_of_the_wordings_that_are_kept_for_the_test():
    assert TEMPLATES.phrasings("test")
    assert [text for text in TEMPLATES.phrasings("test").values() if is_formed(text)] == []


def test_the_grammar_forms_every_wording_that_is_trained():
    """So that the shipped base has heard in its making how the facts will be told."""
    assert [text for text in TEMPLATES.phrasings("train").values() if not is_formed(text)] == []


def test_what_the_grammar_draws_plainly_is_what_it_says_it_can_form():
    assert [text for text in wordings()[::50] if not is_formed(text)] == []
    assert not is_formed("Who had {stats} in week {week} of {season}?")


def test_every_wording_of_the_grammar_asks_for_a_stat_of_somebody_in_a_week():
    rng = random.Random(1)
    for text in [*wordings()[::20], *(draw_wording(rng) for _ in range(2000))]:
        fields = {name for _, name, _, _ in Formatter().parse(text) if name}
        assert {"stats", "week", "season"} < fields
        assert fields & {"player", "possessive"}


IN_SHORT = Plan(
    steps=6,
    courses=tuple(replace(course, share=share) for course, share in zip(Plan().courses, (1 / 3, 2 / 3), strict=True)),
)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Iterator[Path]:
    """A base of two steps of the first course and four of the second; tokenizer and leagues are those of the shipped one."""
    device = mx.default_device()
    folder = tmp_path_factory.mktemp("built")
    build(folder, IN_SHORT, report=lambda line: None)
    yield folder
    mx.set_default_device(device)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_finished_build_holds_what_mlx_lm_reads_a_card_and_nothing_of_its_making(built):
    names = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert set(contents(built)) == names
    assert names <= set(contents(EMBEDDED_FOLDER))


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(2, id="after the first course", marks=pytest.mark.slow),
        pytest.param(4, id="in the second course"),
    ],
)
def test_a_build_that_was_interrupted_makes_the_same_base_as_one_that_was_not(built, tmp_path, made):
    """Both begin with the plan alone, so this also says that the same plan always makes the same base."""
    interrupted = _Making.begun(tmp_path, IN_SHORT)
    while interrupted.step < made:
        interrupted.make_steps()
    interrupted.save(tmp_path)
    assert interrupted.step == made
    assert "resume.pkl" in contents(tmp_path)
    build(tmp_path, IN_SHORT, report=lambda line: None)
    assert contents(tmp_path) == contents(built)


@pytest.mark.parametrize("steps", [1, 2, 4, 11, 27_000])
def test_the_courses_of_a_plan_follow_one_another_and_are_all_of_its_steps(steps):
    plan = Plan(steps=steps)
    bounds = [plan.bounds(at) for at in range(len(plan.courses))]
    assert [begin for begin, _ in bounds] == [0, *[end for _, end in bounds[:-1]]]
    assert bounds[-1][1] == steps
    for step in {0, steps - 1, *[end - 1 for _, end in bounds], *[begin for begin, _ in bounds]} & set(range(steps)):
        begin, end = bounds[plan.course_at(step)]
        assert begin <= step < end


def test_each_course_begins_at_a_low_rate_and_goes_down_from_its_own_peak():
    plan = Plan()
    for at, course in enumerate(plan.courses):
        begin, end = plan.bounds(at)
        rate = plan.learning_rate(at)
        rates = [float(cast(mx.array, rate(mx.array(step)))) for step in (0, plan.warmup_steps, end - begin)]
        assert rates == pytest.approx([1e-6, course.peak_rate, course.peak_rate / 15], rel=0.01)


@pytest.fixture(scope="module", params=[BY_THE_GRAMMAR, BY_MANY], ids=["by the grammar", "by many"])
def league(request) -> League:
    return League(random.Random(1), TEMPLATES, 40, request.param)


def test_the_league_of_the_second_course_is_asked_about_in_the_wordings_of_many_hands_and_the_first_is_not(monkeypatch):
    for module in (league_module, unanswerable):
        monkeypatch.setattr(
            module, "practised", lambda of: [f"practised {of} {{player}} {{stats}} {{week}} {{season}}"], raising=False
        )
    for manner in (BY_THE_GRAMMAR, BY_MANY):
        league = League(random.Random(2), TEMPLATES, 40, manner)
        facts = [league.fact()[0][0].lower() for _ in range(1000)]
        refused = [league.refusal() for _ in range(3000)]
        outside = [question.lower() for question, reply in refused if reply == OUTSIDE]
        others = [question.lower() for question, reply in refused if reply != OUTSIDE]
        shares = [
            sum(f"practised {kind}" in " ".join(question.split()) for question in asked) / len(asked)
            for kind, asked in (("complete", facts), ("complete", others), ("incomplete", outside))
        ]
        assert shares == pytest.approx([manner.practised] * 3, abs=0.06)
        assert not any("practised incomplete" in question for question in facts + others)


def test_a_person_is_asked_about_elsewhere_in_other_weeks_and_in_the_same_week_of_a_near_season(league):
    asked = [(person, league._elsewhere(person)) for person in league.people for _ in range(20)]
    assert all(at not in person.records and at[1] in WEEKS for person, at in asked)
    seasons = {person.name: {season for season, _ in person.records} for person, _ in asked}
    moved = [(person, season, week) for person, (season, week) in asked if season not in seasons[person.name]]
    assert 0.3 < len(moved) / len(asked) < 0.7
    for person, season, week in moved:
        assert week in {week for _, week in person.records}
        assert min(abs(season - own) for own in seasons[person.name]) <= NEAR_SEASONS


def test_questions_that_the_base_refuses_in_its_making_are_about_what_nobody_of_the_league_holds(league):
    held = {
        TEMPLATES.recorded(person.name, stat, week, season, record[stat]).rsplit(" were ", 1)[0]
        for person in league.people
        for (season, week), record in person.records.items()
        if record
        for stat in person.stats
    }
    replies = [league.refusal()[1] for _ in range(3000)]
    assert OUTSIDE in replies
    refused = {reply.rsplit(" are not ", 1)[0] for reply in replies if reply != OUTSIDE}
    assert len(refused) > 1000
    assert refused.isdisjoint(held)


def parts(reply: str) -> tuple[str, str, str, str]:
    """Week, season, stat and name of an answer."""
    found = re.match(r"In week (\d+) of the (\d+) NFL season, the (.+) of (.+) (?:were|are)\b", reply)
    assert found, reply
    week, season, stat, name = found.groups()
    return week, season, stat, name


def test_most_refusals_differ_in_one_thing_from_the_fact_before_them_and_share_its_words(league):
    """A name with another's first or last part, another week or season, or another stat; beside the fact, in one step."""
    differences: Counter[str] = Counter()
    for _ in range(3000):
        (asked, told), person = league.fact()
        refused, reply = league.refusal()
        if league.last or reply == OUTSIDE:  # a stranger, who stands beside nobody
            continue
        one, two = parts(told), parts(reply)
        name = two[3]
        differs = [what for what, a, b in zip(("week", "season", "stat"), one, two, strict=False) if a != b]
        if set(name.split()) & set(person.name.split()) and name not in person.name:
            differs.append("name")
        differences["+".join(differs)] += 1
        assert asked
        assert refused
    alone = {what for what, count in differences.items() if count > 100}
    assert {"week", "season", "stat", "name"} <= alone
    assert sum(differences[what] for what in ("week", "season", "stat", "name")) > 0.6 * differences.total()


def test_most_of_the_league_plays_in_the_same_weeks_and_most_strangers_are_asked_about_there(league):
    held = Counter(at for person in league.people for at in person.records)
    in_company = [person for person in league.people if max(held[at] for at in person.records) >= 5]
    assert len(in_company) > len(league.people) / 2
    strangers_asked = [parts(league._of_a_stranger()[1]) for _ in range(500)]
    assert sum((int(season), int(week)) in held for week, season, _, _ in strangers_asked) > 300


def test_a_last_name_that_two_of_the_league_bear_is_refused_by_itself():
    league = League(random.Random(1), TEMPLATES, 160)
    shared = {last for last, count in league.bearers.items() if count > 1}
    asked = [league.fact()[0] for _ in range(6000)]
    alone = [reply for _, reply in asked if reply.endswith("are not recorded.")]
    assert alone
    written = [reply.removesuffix(" are not recorded.").rsplit(" of ", 1)[1] for reply in alone]
    assert all(name in shared or re.sub(r"^\S\. ", "", name) in shared for name in written)
    assert {name in shared for name in written} == {True, False}, "an initial does not tell either"


def test_the_tokenizer_of_a_build_is_the_shipped_one(built):
    assert (built / "tokenizer.json").read_bytes() == (EMBEDDED_FOLDER / "tokenizer.json").read_bytes()
