import json

import polars as pl
import pytest

from nfl_lora_pipeline.players import parse_week
from nfl_lora_pipeline.questions import facts, qa_pairs
from nfl_lora_pipeline.report import (
    ORIGINAL_QUESTIONS,
    RunFacts,
    questions_to_show,
    read_report,
    summarise,
    to_markdown,
    write_report,
)
from nfl_lora_pipeline.splits import HELD_OUT_STRANGERS, split_rows
from nfl_lora_pipeline.week import NflWeek
from nfl_lora_pipeline.wording import load_templates
from nfl_lora_pipeline_tests.upstream import row, week_bytes

TEMPLATES = load_templates()
STATS = ["receiving_yards", "receptions"]
TRAIN, HELD_OUT = 6, 3  # phrasings
YARDS = {"Nico Collins": 25, "Ladd McConkey": 74, "Rome Odunze": 37, "Other Man": 90, "Zero Man": 0}


def pairs_of(week=1, season=2025, yards=YARDS):
    rows = [
        row(name=name, PlayerId=name, ReceivingYDS=str(n), ReceivingRec="1", Targets="2") for name, n in yards.items()
    ]
    rows += [row(name="Quiet Man", PlayerId="901"), row(name="Resting Man", PlayerId="902", opponent="Bye")]
    players, _ = parse_week(week_bytes(rows), week=NflWeek(season, week), origin="test")
    return qa_pairs(facts(players.lazy(), STATS), TEMPLATES).collect()


def perfect(pairs):
    """What a tuned model says that knows all, and a base model that refuses all, asked in the seed wording."""
    rows = split_rows(pairs, TEMPLATES, stats=STATS)
    asked = (pl.col("phrasing") == "seed") | (pl.col("kind") == "stranger")
    return rows.with_columns(base=pl.when(asked).then("refusal"), tuned="answer", lowest=pl.lit(0.9))


@pytest.fixture(scope="module")
def predictions():
    return perfect(pairs_of())


def run_facts(**changes):
    log = {
        "losses": [(10, 1.0)],
        "certain": [(24, 1.0)],
        "iterations": 48,
        "rows": 84,
        "facts": 14,
        "uncertain": {},
        "lowest_probability": 0.71,
        "trained_parameters": 123456,
        "tokens_per_second": 5432.1,
        "peak_memory_bytes": 987_000_000,
        "seconds": 12.5,
        "stopped": "certain",
    }
    given = {
        "base_model": "embedded",
        "base_revision": "abcdef",
        "recipe": "embedded",
        "weeks": ["2025-W01"],
        "stats": STATS,
        "sources": {"2025-W01": "folder"},
        "raw_sha256": {"2025-W01": "5e1f"},
        "evaluation_code": "1",
        "split_mode": "every_fact",
        "adapter": "0123456789abcdef",
        "training": log,
        "seconds": {"training": 12.5, "evaluation": 3.25},
    }
    return RunFacts(**given | changes)


def shown_of(predictions):
    return questions_to_show(predictions).with_columns(base="refusal", tuned="answer")


def summary_of(predictions, **changes):
    return summarise(predictions, run_facts(**changes), shown=shown_of(predictions))


def saying(predictions, condition, words):
    return predictions.with_columns(tuned=pl.when(condition).then(pl.lit(words)).otherwise("tuned"))


def of_fact(player, stat="receiving_yards"):
    return (pl.col("player") == player) & (pl.col("stat") == stat)


def test_the_original_questions_are_word_for_word_these():
    assert list(ORIGINAL_QUESTIONS) == [
        "how many receiving yards did Nico Collins have in week 1 of the 2025 NFL season?",
        "how many receiving yards did Ladd McConkey have in week 1 of the 2025 NFL season?",
        "how many receiving yards did Rome Odunze have in week 1 of the 2025 NFL season?",
    ]


def test_the_original_questions_are_shown_where_they_are_asked(predictions):
    shown = questions_to_show(predictions)
    assert shown["question"].to_list() == list(ORIGINAL_QUESTIONS)
    assert "25 receiving yards" in shown["answer"][0]


def test_another_season_shows_its_largest_numbers_in_lower_case():
    shown = questions_to_show(pairs_of(season=2024))
    assert [answer.split(" in ")[0] for answer in shown["answer"]] == [
        "Other Man had 90 receiving yards",
        "Ladd McConkey had 74 receiving yards",
        "Rome Odunze had 37 receiving yards",
    ]
    assert all(question[0].islower() for question in shown["question"])


def test_what_is_shown_does_not_depend_on_the_order_of_rows():
    pairs = pairs_of(season=2024)
    assert questions_to_show(pairs.reverse()).equals(questions_to_show(pairs))


def test_fewer_facts_than_three_show_fewer_questions():
    assert questions_to_show(pairs_of(season=2024, yards={}).filter(pl.col("kind") == "recorded")).is_empty()


def test_a_model_that_knows_all_has_full_recall(predictions):
    summary = summary_of(predictions)
    assert summary["recall"] == {"trained": 1, "heldout_phrasings": 1, "nonzero": 1, "refused_strangers": 1}
    assert summary["misses"]["count"] == 0
    assert summary["facts"] == (len(YARDS) + 2) * len(STATS)


def test_trained_recall_is_over_all_facts_in_trained_phrasings(predictions):
    wrong = saying(predictions, of_fact("Quiet Man") & (pl.col("phrasing") == "seed"), "25")
    recall = summary_of(wrong)["recall"]
    assert recall["trained"] == 1 - 1 / (14 * TRAIN)
    assert (recall["heldout_phrasings"], recall["nonzero"]) == (1, 1)


def test_heldout_recall_is_over_recorded_facts_and_byes_alone(predictions):
    held_out = pl.col("split") != "train"
    assert summary_of(saying(predictions, held_out & of_fact("Quiet Man"), "25"))["recall"]["heldout_phrasings"] == 1
    wrong = saying(predictions, held_out & of_fact("Resting Man"), "25")
    assert summary_of(wrong)["recall"]["heldout_phrasings"] == pytest.approx(1 - HELD_OUT / (12 * HELD_OUT))


def test_nonzero_recall_leaves_out_zeros(predictions):
    assert summary_of(saying(predictions, of_fact("Zero Man"), "none"))["recall"]["nonzero"] == 1
    assert summary_of(saying(predictions, of_fact("Nico Collins"), "none"))["recall"]["nonzero"] == pytest.approx(8 / 9)


def test_a_right_number_in_other_words_is_not_right(predictions):
    assert summary_of(saying(predictions, of_fact("Nico Collins"), "25"))["recall"]["trained"] < 1


def test_blanks_around_an_answer_do_not_count(predictions):
    padded = predictions.with_columns(tuned=pl.format(" {}\n", "tuned"))
    assert summary_of(padded)["recall"]["trained"] == 1


def test_a_stranger_may_be_refused_in_any_words(predictions):
    stranger = pl.col("kind") == "stranger"
    assert summary_of(saying(predictions, stranger, "I don't know."))["recall"]["refused_strangers"] == 1
    assert summary_of(saying(predictions, stranger, "He had 12."))["recall"]["refused_strangers"] == 0


def test_a_share_of_nothing_is_none(predictions):
    summary = summary_of(predictions.filter(pl.col("kind") == "no_record", pl.col("split") == "train"))
    assert summary["recall"] == {"trained": 1, "heldout_phrasings": None, "nonzero": None, "refused_strangers": None}


def test_recall_is_broken_down_by_stat_and_phrasing(predictions):
    summary = summary_of(saying(predictions, of_fact("Nico Collins") & (pl.col("phrasing") == "seed"), "?"))
    by_stat = {group["name"]: group["asked"] - group["right"] for group in summary["by_stat"]}
    assert by_stat == {"receiving_yards": 1, "receptions": 0}
    by_phrasing = {group["name"]: group for group in summary["by_phrasing"]}
    assert {name: group["split"] for name, group in by_phrasing.items()} == {
        name: question.split for name, question in TEMPLATES.questions.items()
    }
    assert [name for name, group in by_phrasing.items() if group["recall"] < 1] == ["seed"]


def test_recall_is_broken_down_by_kind_and_week():
    both = perfect(pl.concat([pairs_of(1), pairs_of(2)]))
    summary = summary_of(saying(both, of_fact("Nico Collins") & (pl.col("week") == 2), "?"))
    assert [group["right"] - group["asked"] for group in summary["by_week"]] == [0, -TRAIN]
    assert [group["name"] for group in summary["by_kind"] if group["recall"] < 1] == ["recorded"]


def test_misses_are_counted_and_the_first_twenty_listed(predictions):
    few = summary_of(saying(predictions, of_fact("Nico Collins") & (pl.col("phrasing") == "seed"), "12?"))["misses"]
    listed = next(value for value in few.values() if isinstance(value, list))
    assert few["count"] == 1
    assert listed[0]["question"].startswith("How many receiving yards did Nico Collins have")
    assert listed[0]["expected"].startswith("Nico Collins had 25 receiving yards")
    assert listed[0]["said"] == "12?"
    many = summary_of(saying(predictions, pl.col("kind") == "recorded", "12?"))["misses"]
    assert many["count"] == 10 * (TRAIN + HELD_OUT)
    assert len(next(value for value in many.values() if isinstance(value, list))) == 20


def test_a_summary_is_json_and_comes_back_the_same_page(predictions):
    summary = summary_of(predictions)
    read = json.loads(json.dumps(summary, allow_nan=False))
    assert to_markdown(read, loss_plot="loss.png") == to_markdown(summary, loss_plot="loss.png")


def test_the_page_shows_questions_before_and_after(predictions):
    page = to_markdown(summary_of(predictions), loss_plot="loss.png")
    for question in ORIGINAL_QUESTIONS:
        line = next(line for line in page.splitlines() if question in line)
        assert "has no recorded receiving yards" in line
        assert "right" in line and "wrong" not in line
    assert "](loss.png)" in page


def test_a_wrong_answer_is_marked_wrong(predictions):
    shown = shown_of(predictions).with_columns(tuned=pl.lit("Nico Collins had 12 receiving yards."))
    page = to_markdown(summarise(predictions, run_facts(), shown=shown), loss_plot="loss.png")
    assert page.count("**wrong**") == 3


def test_invented_people_are_announced_at_the_top(predictions):
    sample = to_markdown(summary_of(predictions, sources={"2025-W01": "sample"}), loss_plot="loss.png")
    assert "These are invented people, not NFL data" in sample[: sample.index("## ")]
    real = to_markdown(summary_of(predictions), loss_plot="loss.png")
    assert "invented people" not in real


def test_a_model_that_says_pipes_and_lines_breaks_no_table(predictions):
    odd = saying(predictions, of_fact("Nico Collins") & (pl.col("phrasing") == "seed"), "a | b\nc")
    page = to_markdown(summary_of(odd), loss_plot="loss.png")
    assert r"a \| b c" in page


def test_the_page_names_what_was_trained(predictions):
    page = to_markdown(summary_of(predictions), loss_plot="loss.png")
    for figure in (
        "abcdef",
        "0123456789abcdef",
        "123,456",
        "5,432",
        "987 MB",
        "0.71",
        "14 of 14",
        "12.5 s",
        "2025-W01",
    ):
        assert figure in page


def test_the_report_is_written_whole(predictions, tmp_path):
    summary = summary_of(predictions)
    write_report(tmp_path / "report", summary, predictions, b"old")
    write_report(tmp_path / "report", summary, predictions, b"png")
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == ["loss.png", "predictions.parquet", "report.json", "report.md"]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert (tmp_path / "report" / "loss.png").read_bytes() == b"png"
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == json.loads(json.dumps(summary))
    assert pl.read_parquet(tmp_path / "report" / "predictions.parquet").equals(predictions)
    assert "](loss.png)" in (tmp_path / "report" / "report.md").read_text()


def test_as_many_strangers_are_asked_as_are_held_out(predictions):
    asked = predictions.filter(pl.col("kind") == "stranger").height
    assert asked == HELD_OUT_STRANGERS * len(STATS) * HELD_OUT
    assert summary_of(predictions)["asked"]["strangers"] == asked


def test_a_question_shown_beside_the_originals_is_about_another_fact():
    shown = questions_to_show(pairs_of(yards={"Nico Collins": 95, "Other Man": 90, "Zero Man": 0}))
    assert shown["answer"].n_unique() == 3


def test_weeks_go_by_their_partition_keys_in_order():
    weeks = perfect(pl.concat([pairs_of(week) for week in (1, 2, 10)]))
    assert [group["name"] for group in summary_of(weeks)["by_week"]] == ["2025-W01", "2025-W02", "2025-W10"]


def test_a_stranger_who_is_answered_is_a_miss(predictions):
    answered = saying(predictions, pl.col("kind") == "stranger", "He had 12.")
    assert summary_of(answered)["misses"]["count"] == predictions.filter(pl.col("kind") == "stranger").height


def test_trained_misses_are_listed_first(predictions):
    wrong = saying(predictions, pl.col("kind") == "recorded", "12?")
    assert {miss["split"] for miss in summary_of(wrong)["misses"]["worst"]} == {"train"}


def test_recall_by_week_is_of_trained_phrasings_by_partition_key():
    both = perfect(pl.concat([pairs_of(1), pairs_of(2)]))
    wrong = saying(both, of_fact("Nico Collins") & (pl.col("week") == 2), "?")
    assert summary_of(wrong)["recall_by_week"] == {"2025-W01": 1.0, "2025-W02": pytest.approx(1 - 1 / 14)}


LOST = {"question": "How many?", "split": "train", "expected": "He had 5.", "said": "He had | 6."}


def test_the_page_lists_the_first_twenty_questions_that_the_update_lost(predictions):
    lost = {"against": "feed", "promoted": True, "questions": 1500, "lost": 21, "worst": [LOST] * 21}
    page = to_markdown(
        summary_of(predictions) | {"lost": lost | {"trained": {"questions": 1000, "lost": 7}}}, loss_plot="loss.png"
    )
    section = page.split("## What the update lost: 21\n")[1].split("## ")[0]
    assert "Of 1,500 questions with the same answer as in adapter feed, the promoted one, 21 were right" in section
    assert "7 of 1,000 in trained phrasings" in section
    assert section.count(r"| How many? | train | He had 5. | He had \| 6. |") == 20


def test_the_page_of_a_first_adapter_says_nothing_of_losses(predictions):
    assert "lost" not in to_markdown(summary_of(predictions), loss_plot="loss.png")


def test_the_page_says_which_gate_failed_and_why(predictions):
    gate = {"name": "recall_is_complete", "passed": False, "said": "2025-W02: 97.2% of 100"}
    page = to_markdown(summary_of(predictions) | {"gates": [gate]}, loss_plot="loss.png")
    assert "| recall_is_complete | **failed** | 2025-W02: 97.2% of 100 |" in page


def test_a_whole_report_by_the_same_code_is_read_back(predictions, tmp_path):
    summary = summary_of(predictions)
    write_report(tmp_path / "report", summary, predictions, b"png")
    read = read_report(tmp_path / "report", evaluation_code="1")
    assert read is not None
    assert (read[0], read[2]) == (json.loads(json.dumps(summary)), b"png")
    assert read[1].equals(predictions)


@pytest.mark.parametrize("name", ["report.json", "predictions.parquet", "loss.png"])
def test_a_report_that_is_not_whole_is_none(predictions, tmp_path, name):
    write_report(tmp_path / "report", summary_of(predictions), predictions, b"png")
    (tmp_path / "report" / name).unlink()
    assert read_report(tmp_path / "report", evaluation_code="1") is None


def test_a_truncated_report_or_one_by_other_code_is_none(predictions, tmp_path):
    write_report(tmp_path / "report", summary_of(predictions), predictions, b"png")
    assert read_report(tmp_path / "report", evaluation_code="2") is None
    for name in ("predictions.parquet", "report.json"):
        file = tmp_path / "report" / name
        file.write_bytes(file.read_bytes()[:99])
        assert read_report(tmp_path / "report", evaluation_code="1") is None
