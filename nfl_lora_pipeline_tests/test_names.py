"""One person under several names is one person; one name of several people is nobody's."""

import json
import re
import unicodedata
from itertools import islice

import polars as pl
import pytest
from click.testing import CliRunner

from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.dataset.examples import by_last_names, fresh_questions
from nfl_lora_pipeline.dataset.people import strangers
from nfl_lora_pipeline.dataset.qa_pairs import facts, qa_pairs
from nfl_lora_pipeline.dataset.splits import shared_names, split_rows
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.dataset.typed import CAREFUL
from nfl_lora_pipeline.dataset.unanswerable import Mixture
from nfl_lora_pipeline.evaluation.grading import number_right
from nfl_lora_pipeline.evaluation.probes import probe_questions
from nfl_lora_pipeline.season.checks import check_players
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.names import as_typed, name_key, plain_name, plain_names
from nfl_lora_pipeline.weeks.players import names_beside, parse_week
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests.upstream import row, week_bytes

TEMPLATES = load_templates()
STATS = ["receiving_yards"]
TYPED = {  # as published, as one types it
    "De\u2019Quor Vance": "De'Quor Vance",
    "De\u2018Quor Vance": "De'Quor Vance",
    "De\u02bcQuor Vance": "De'Quor Vance",
    "Amari  Stone": "Amari Stone",
    "Amari\u00a0Stone": "Amari Stone",
    "Amari\u2009Stone": "Amari Stone",
    "Amari\u202f Stone": "Amari Stone",
    "Jalen\u200b Banks": "Jalen Banks",
    "\ufeffJalen Ba\u00adnks": "Jalen Banks",
    "Ja\u200dlen\u2060 Banks\u200c": "Jalen Banks",
    "Rene\u0301 Price": "Ren\u00e9 Price",
    "Ren\u00e9 Price": "Ren\u00e9 Price",
    "Amon\u2011Ra Brown": "Amon-Ra Brown",
    "T.J. Okand III": "T.J. Okand III",
}


@pytest.mark.parametrize(("published", "typed"), TYPED.items())
def test_a_name_is_the_same_however_it_is_typed(published, typed):
    assert plain_name(published) == typed == plain_name(typed)
    assert pl.select(pl.lit(published).alias("player")).select(plain_names()).item() == typed
    assert name_key(published) == name_key(typed)


def test_an_expression_and_a_function_make_names_plain_alike():
    names = [
        *TYPED,
        *TYPED.values(),
        " \u3000A\u2003B ",
        "Zde\u030cnek  \u017dik\u200bmund\u2019s",
        "\u1100\u1161 \ufb01n",
    ]
    assert pl.DataFrame({"player": names}).select(plain_names()).to_series().to_list() == list(map(plain_name, names))


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("D.J. Moore", "DJ Moore", True),
        ("D.J. Moore", "dj moore", True),
        ("Amon-Ra St. Brown", "AmonRa St Brown", True),
        ("Gabe Davis", "Gabriel Davis", False),
        ("Marvin Harrison", "Marvin Harrison Jr.", False),
    ],
)
def test_dots_and_capitals_do_not_tell_people_apart(one, other, alike):
    assert (name_key(one) == name_key(other)) == alike


def test_a_text_keeps_its_lines_and_everything_that_is_plain():
    assert as_typed("How  many\u00a0yards\n  did\tNico\u2019s?") == "How many yards\n  did\tNico's?"
    assert as_typed("plain ascii, - and 'quoted'") == "plain ascii, - and 'quoted'"


# Frames of small weeks.


def week_pairs(people, week=1):
    """Pairs of a week; `people` are (id, name, yards), None for nobody recorded."""
    rows = [
        row(name=name, PlayerId=person, **({} if yards is None else {"ReceivingYDS": str(yards), "Targets": "1"}))
        for person, name, yards in people
    ]
    players, _ = parse_week(week_bytes(rows), week=NflWeek(2025, week), origin="test")
    return qa_pairs(facts(players.lazy(), STATS), TEMPLATES).collect()


def rows_of(*weeks):
    """Splits of weeks 1, 2, ..."""
    return split_rows(
        pl.concat([week_pairs(people, week) for week, people in enumerate(weeks, 1)]), TEMPLATES, stats=STATS
    )


def told(rows):
    """(name, week) to the number in train, None for a refusal."""
    train = rows.filter(pl.col("split") == "train").unique("fact")
    return {(name, week): value for name, week, value in train.select("player", "week", "value").iter_rows()}


OTHERS = [("8", "Nico Hale", 11), ("9", "Rome Carter", None)]


def test_every_spelling_that_an_id_has_had_is_taught_in_every_week_and_phrasing():
    rows = rows_of([("1", "Gabe Davis", 70), *OTHERS], [("1", "Gabriel Davis", 5), *OTHERS])
    assert {key: value for key, value in told(rows).items() if "Davis" in key[0]} == {
        ("Gabe Davis", 1): 70,
        ("Gabriel Davis", 1): 70,
        ("Gabe Davis", 2): 5,
        ("Gabriel Davis", 2): 5,
    }
    asked = rows.filter(pl.col("player") == "Gabriel Davis", pl.col("week") == 1)
    assert set(asked["phrasing"]) == set(TEMPLATES.questions)
    assert all("Gabriel Davis" in text for column in ("question", "answer") for text in asked[column])
    assert not rows.select("fact", "phrasing").is_duplicated().any()
    assert not rows["question"].is_duplicated().any()


@pytest.mark.parametrize("published", TYPED)
def test_another_way_to_type_a_name_is_no_other_name(published):
    typed = TYPED[published]
    rows = rows_of([("1", published, 70), *OTHERS], [("1", typed, 5), *OTHERS])
    assert {key for key in told(rows) if key[0] not in ("Nico Hale", "Rome Carter")} == {(typed, 1), (typed, 2)}


def test_a_name_stands_as_published_in_the_players_frame():
    players, _ = parse_week(week_bytes([row(name="De\u2019Quor  Vance")]), week=NflWeek(2025, 1), origin="test")
    assert players["player"].to_list() == ["De\u2019Quor  Vance"]


def test_a_new_weeks_spelling_leaves_all_rows_of_others_as_they_were():
    one = [("1", "Gabe Davis", 70), *OTHERS]
    before, after = rows_of(one), rows_of(one, [("1", "Gabriel Davis", 5), *OTHERS])
    kept = after.join(before.select("fact", "phrasing"), on=["fact", "phrasing"], how="semi", maintain_order="left")
    assert kept.equals(before)
    new = after.join(before.select("fact", "phrasing"), on=["fact", "phrasing"], how="anti").filter(pl.col("week") == 1)
    assert set(new["player"]) == {"Gabriel Davis"}


SHARED = [("1", "Mike Sharp", 70), ("2", "Mike\u00a0sharp", 5), *OTHERS]


@pytest.mark.parametrize(
    "second",
    [("2", "Mike Sharp", 5), ("2", "mike  Sharp", 5), ("2", "Mike Sharp", None)],
    ids=["same", "typed otherwise", "without a record"],
)
def test_nothing_is_taught_of_a_name_that_two_people_bear(second):
    people = [("1", "Mike Sharp", 70), second, *OTHERS]
    assert {name for name, _ in told(rows_of(people))} == {"Nico Hale", "Rome Carter"}
    assert set(shared_names(week_pairs(people), stats=STATS)) == {"2025-W01"}


def test_two_people_with_one_name_and_one_answer_are_taught_it():
    people = [("1", "Mike Sharp", None), ("2", "Mike Sharp", None), *OTHERS]
    assert told(rows_of(people))["Mike Sharp", 1] is None
    assert shared_names(week_pairs(people), stats=STATS) == {}


def test_a_name_is_shared_also_by_who_bears_it_in_another_week_only():
    """In week 1 Gabriel has nobody beside him, but his name of week 2 is somebody else's."""
    weeks = [("1", "Gabriel Davis", 70), ("2", "Gabe Davis", 5)], [("1", "Gabe Davis", 7)]
    pairs = pl.concat([week_pairs([*people, *OTHERS], week) for week, people in enumerate(weeks, 1)])
    found = told(split_rows(pairs, TEMPLATES, stats=STATS))
    assert ("Gabe Davis", 1) not in found
    assert (found["Gabriel Davis", 1], found["Gabriel Davis", 2], found["Gabe Davis", 2]) == (70, 7, 7)
    assert shared_names(pairs, stats=STATS) == {"2025-W01": ["Gabe Davis"]}


def test_a_shared_name_is_warned_of_and_fails_a_check_however_it_is_typed():
    rows = [row(name="Mike Sharp", ReceivingYDS="7"), row(name="Mike\u00a0sharp")]
    players, warnings = parse_week(week_bytes(rows), week=NflWeek(2025, 1), origin="test")
    assert [line for line in warnings if "more than one player is called 'Mike Sharp'" in line]
    assert not next(check for check in check_players(players) if check.name == "names_are_unique").passed


def refused(rows, shared, count=3000):
    mixture = Mixture(0.0, elsewhere=0.4, other_stats=0.2, typing=CAREFUL)
    answers = [
        answer
        for _, answer, _ in islice(fresh_questions(rows, TEMPLATES, STATS, mixture, seed=1, shared=shared), count)
    ]
    return {about(answer) for answer in answers}


def about(refusal):
    """The name that a refusal is about, and the week and season in its words."""
    at, name = re.fullmatch(r"In week (.+), the .+ of (.+) are not recorded\.", refusal).groups()
    return name, at


def test_nobody_is_refused_under_any_name_in_a_week_that_he_holds_facts_for():
    rows = rows_of([("1", "D.J. Moore", 70), *OTHERS], [("1", "DJ Moore", 5), *OTHERS])
    found = {at for name, at in refused(rows, {}) if name_key(name) == "dj moore" and "2025" in at}
    assert found
    weeks = {at.split(" ")[0] for at in found}
    assert weeks <= {"1", "2", *map(str, range(3, 19))}
    asked = [
        answer
        for _, answer, _ in islice(
            fresh_questions(rows, TEMPLATES, STATS, Mixture(0.0, 0.8, 0.0, CAREFUL), seed=2), 3000
        )
        if name_key(about(answer)[0]) == "dj moore"
    ]
    assert asked
    assert not [answer for answer in asked if " week 1 of the 2025" in answer or " week 2 of the 2025" in answer]


def test_a_shared_name_is_not_refused_in_its_week():
    people = [("1", "Mike Sharp", 70), ("2", "Mike Sharp", 5), *OTHERS]
    shared = shared_names(week_pairs(people), stats=STATS)
    rows = rows_of(people)
    assert ("Mike Sharp", "1 of the 2025 NFL season.") not in refused(rows, shared)
    asked = probe_questions(rows, TEMPLATES, stats=STATS, others={}, shared=shared)
    assert "Mike Sharp" not in set(asked["player"])


def test_a_stranger_is_nobody_who_is_known_by_another_spelling():
    first = next(name for name in strangers("test", seed=1) if "." in name or "'" in name)
    spelt = first.replace(".", "").replace("'", "\u2019")
    assert first not in islice(strangers("test", seed=1, known=frozenset({spelt})), 2000)


def test_who_plays_two_positions_is_known_by_his_id_under_whatever_name(tmp_path):
    file = tmp_path / "WR.json"
    (tmp_path / "TE.json").write_bytes(
        week_bytes([row(name="Gabriel Davis", PlayerId="1"), row(name="Travis\u00a0Tight", PlayerId="2")])
    )
    found, _ = names_beside(file, NflWeek(2025, 1), known_ids=frozenset({"1"}))
    assert found["tight_ends"] == ["Travis Tight"]


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("DJ Moore had 70 receiving yards.", True),
        ("Gabriel Davis had 70 receiving yards.", True),
        ("Gabe Davis had 70 receiving yards.", True),
        ("Gabe\u00a0Davis had 70 receiving yards.", True),
        ("Nico Hale had 70 receiving yards.", False),
    ],
)
def test_an_answer_may_call_a_person_by_any_of_his_names(said, right):
    person = "D.J. Moore" if "Moore" in said else "Gabe Davis"
    asked = pl.DataFrame(
        {
            "player_id": ["1", "1", "2"],
            "player": [person, "DJ Moore" if "Moore" in said else "Gabriel Davis", "Nico Hale"],
            "value": [70.0, 70.0, 11.0],
            "answer": ["", "", ""],
            "tuned": [said, said, "Nico Hale had 11."],
        }
    )
    assert number_right(asked, "tuned").to_list() == [right, right, True]


# The whole job.

WEEKS = {
    1: {"1": ("Gabe Hale", 70), "2": ("D.J. Carter", 31), "3": ("De\u2019Quor Vance", 66), "4": ("Amari  Stone", 131)},
    2: {"1": ("Gabriel Hale", 5), "2": ("DJ Carter", 44), "3": ("De'Quor Vance", 12), "4": ("Amari\u00a0Stone", 9)},
}
BOTH = {"5": ("Jalen Price", 47), "6": ("Mike Sharp", 25), "7": ("Mike Sharp", 99), "8": ("Sam Bench", None)}


@pytest.fixture(scope="module")
def job(tmp_path_factory, tiny_recipe):
    folder = tmp_path_factory.mktemp("names")
    for week, people in WEEKS.items():
        rows = [
            row(name=name, PlayerId=f"70000{person}", **({} if yards is None else {"ReceivingYDS": str(yards)}))
            for person, (name, yards) in (people | BOTH).items()
        ]
        file = folder / "2025" / str(week) / "WR.json"
        file.parent.mkdir(parents=True)
        file.write_bytes(week_bytes(rows))
    options = ["--source", "folder", "--data-dir", str(folder), "--weeks", "1-2", "--recipe", tiny_recipe]
    result = CliRunner().invoke(main, ["run", *options, "--store", str(folder / "data")])
    assert result.exit_code == 0, result.output
    return Store(folder / "data")


@pytest.mark.parametrize(
    ("name", "yards"),
    [
        ("Gabe Hale", (70, 5)),
        ("Gabriel Hale", (70, 5)),
        ("D.J. Carter", (31, 44)),
        ("DJ Carter", (31, 44)),
        ("De\u2019Quor Vance", (66, 12)),
        ("De'Quor Vance", (66, 12)),
        ("Amari Stone", (131, 9)),
        ("Amari\u00a0 Stone", (131, 9)),
        (unicodedata.normalize("NFD", "Jalen Price"), (47, 47)),
    ],
)
def test_whatever_a_person_is_called_ask_gives_the_number(job, name, yards):
    for week, number in enumerate(yards, 1):
        question = f"How many receiving yards did {name} have in week {week} of the 2025 NFL season?"
        said = CliRunner().invoke(main, ["ask", question, "--store", str(job.root)]).stdout.splitlines()[-1]
        assert said.startswith(f"tuned: In week {week} of the 2025 NFL season, the receiving yards of ")
        assert said.endswith(f" of {plain_name(name)} were {number}.")


def test_the_report_names_who_is_not_taught_for_sharing_a_name(job):
    report = json.loads((job.report(job.latest()) / "report.json").read_text())
    assert report["shared_names"] == {"2025-W01": ["Mike Sharp"], "2025-W02": ["Mike Sharp"]}
    page = (job.report(job.latest()) / "report.md").read_text()
    beware = page.partition("Beware:")[2].partition("##")[0]
    assert "in 2025-W01 several players bear a name, so that nothing is taught of them: Mike Sharp" in beware
    predictions = pl.read_parquet(job.report(job.latest()) / "predictions.parquet")
    assert "Mike Sharp" not in set(predictions["player"])


def test_each_fact_is_taught_once_more_by_the_last_name_alone_and_refused_where_others_are_called_so():
    rows = rows_of(
        [("1", "D.J. Moore", 70), ("2", "Amon-Ra St. Brown", 45), ("3", "Amari Brown", 9), ("4", "Tom Chris Jr.", 3)]
    )
    numbered = rows.filter(pl.col("kind") == "recorded", pl.col("split") == "train")
    found = {example.fact: example for example in by_last_names(rows, TEMPLATES)}
    assert set(found) == set(numbered["fact"])
    said = {re.search(r"yards of (.+) (?:were|are) ", one.answer)[1]: one for one in found.values()}
    assert set(said) == {"Moore", "St. Brown", "Brown", "Chris"}
    assert said["Moore"].answer.endswith(" of Moore were 70.")
    assert said["Brown"].answer.endswith("are not recorded."), "who is called Brown is not told from a St. Brown"
    assert said["St. Brown"].answer.endswith("are not recorded.")
    texts = TEMPLATES.phrasings("train").values()
    for name, example in said.items():
        assert example.teaches
        assert example.question in {TEMPLATES.question(text, name, "receiving_yards", 1, 2025) for text in texts}


def test_who_is_one_of_several_of_a_name_bears_the_last_name_too():
    rows = rows_of([("1", "D.J. Moore", 70)])
    (alone,) = by_last_names(rows, TEMPLATES)
    (beside,) = by_last_names(rows, TEMPLATES, shared={"2025-W01": ["Mike Moore"]})
    assert alone.answer.endswith("were 70.")
    assert beside.answer == TEMPLATES.no_record("Moore", "receiving_yards", 1, 2025)
