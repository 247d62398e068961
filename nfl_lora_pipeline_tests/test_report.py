import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from markdown_it import MarkdownIt

from nfl_lora_pipeline.adapters import verify
from nfl_lora_pipeline.dataset.splits import HELD_OUT_STRANGERS
from nfl_lora_pipeline.evaluation.baselines import Comparison, Way
from nfl_lora_pipeline.evaluation.gates import GATES, Gate, judge
from nfl_lora_pipeline.evaluation.grading import with_verdict
from nfl_lora_pipeline.evaluation.metrics import (
    BeforeAndAfter,
    ChangedAnswer,
    FailingFact,
    GeneralPrompts,
    HeldBack,
    measured,
    share_of,
)
from nfl_lora_pipeline.evaluation.probes import ALTERED, GROUPS
from nfl_lora_pipeline.evaluation.regressions import CoverageLoss, Lost, Part, Regression, Regressions
from nfl_lora_pipeline.evaluation.summary import ORIGINAL_QUESTIONS, Misses, Summary, key_figures, questions_to_show
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.reports import page_sections as alternatives_text
from nfl_lora_pipeline.reports.page import to_markdown
from nfl_lora_pipeline.reports.page_sections import USES, WORDS
from nfl_lora_pipeline.reports.report import is_whole, read_report, ways_to_ask, write_report
from nfl_lora_pipeline.season.checks import SAMPLE_WARNING
from nfl_lora_pipeline.stored import Miss, json_bytes, read_json, to_json
from nfl_lora_pipeline_tests.evaluations import (
    HELD_OUT,
    STATS,
    TEMPLATES,
    TRAIN,
    YARDS,
    of_fact,
    pairs_of,
    perfect,
    perfect_answers,
    run_facts,
    saying,
    shown_of,
    summarised,
    summary_of,
)


@pytest.fixture(scope="module")
def predictions():
    return perfect(pairs_of())


@pytest.fixture(scope="module")
def answers():
    return perfect_answers(pairs_of())


def test_the_original_questions_are_word_for_word_these():
    assert list(ORIGINAL_QUESTIONS) == [
        "how many receiving yards did Nico Collins have in week 1 of the 2025 NFL season?",
        "how many receiving yards did Ladd McConkey have in week 1 of the 2025 NFL season?",
        "how many receiving yards did Rome Odunze have in week 1 of the 2025 NFL season?",
    ]


def test_the_original_questions_are_shown_where_they_are_asked(predictions):
    shown = questions_to_show(predictions)
    assert shown["question"].to_list() == list(ORIGINAL_QUESTIONS)
    assert shown["answer"][0].endswith("the receiving yards of Nico Collins were 25.")


def test_another_season_shows_its_largest_numbers_in_lower_case():
    shown = questions_to_show(pairs_of(season=2024))
    assert [answer.split(" of ")[-1] for answer in shown["answer"]] == [
        "Other Man were 90.",
        "Ladd McConkey were 74.",
        "Rome Odunze were 37.",
    ]
    assert all(question[0].islower() for question in shown["question"])


def test_what_is_shown_does_not_depend_on_the_order_of_rows():
    pairs = pairs_of(season=2024)
    assert questions_to_show(pairs.reverse()).equals(questions_to_show(pairs))


def test_fewer_facts_than_three_show_fewer_questions():
    assert questions_to_show(pairs_of(season=2024, yards={}).filter(pl.col("kind") == "recorded")).is_empty()


def test_a_model_that_knows_all_has_full_recall(predictions):
    summary = summary_of(predictions)
    assert summary.recall == {"trained": 1, "heldout_phrasings": 1, "nonzero": 1, "refused_strangers": 1}
    assert summary.misses.count == 0
    assert summary.facts == (len(YARDS) + 2) * len(STATS)


def test_trained_recall_is_over_all_facts_in_trained_phrasings(predictions):
    wrong = saying(predictions, of_fact("Quiet Man") & (pl.col("phrasing") == "seed"), "25")
    recall = summary_of(wrong).recall
    assert recall["trained"] == 1 - 1 / (14 * TRAIN)
    assert (recall["heldout_phrasings"], recall["nonzero"]) == (1, 1)


def test_heldout_recall_is_over_recorded_facts_and_byes_alone(predictions):
    held_out = pl.col("split") != "train"
    assert summary_of(saying(predictions, held_out & of_fact("Quiet Man"), "25")).recall["heldout_phrasings"] == 1
    wrong = saying(predictions, held_out & of_fact("Resting Man"), "25")
    assert summary_of(wrong).recall["heldout_phrasings"] == pytest.approx(1 - HELD_OUT / (12 * HELD_OUT))


def test_nonzero_recall_leaves_out_zeros(predictions):
    assert summary_of(saying(predictions, of_fact("Zero Man"), "none")).recall["nonzero"] == 1
    assert summary_of(saying(predictions, of_fact("Nico Collins"), "none")).recall["nonzero"] == pytest.approx(8 / 9)


def test_a_right_number_in_other_words_is_not_right(predictions):
    assert summary_of(saying(predictions, of_fact("Nico Collins"), "25")).recall["trained"] < 1


def test_blanks_around_an_answer_do_not_count(predictions):
    padded = predictions.with_columns(tuned=pl.format(" {}\n", "tuned"))
    assert summary_of(padded).recall["trained"] == 1


def test_a_stranger_may_be_refused_in_any_words(predictions):
    stranger = pl.col("kind") == "stranger"
    assert summary_of(saying(predictions, stranger, "I don't know.")).recall["refused_strangers"] == 1
    assert summary_of(saying(predictions, stranger, "He had 12.")).recall["refused_strangers"] == 0


def test_a_share_of_nothing_is_none(predictions):
    summary = summary_of(predictions.filter(pl.col("kind") == "no_record", pl.col("split") == "train"))
    assert summary.recall == {"trained": 1, "heldout_phrasings": None, "nonzero": None, "refused_strangers": None}


def test_recall_is_broken_down_by_stat_and_phrasing(predictions):
    summary = summary_of(saying(predictions, of_fact("Nico Collins") & (pl.col("phrasing") == "seed"), "?"))
    by_stat = {group.name: group.exact.asked - group.exact.right for group in summary.by_stat}
    assert by_stat == {"receiving_yards": 1, "receptions": 0}
    by_phrasing = {group.name: group for group in summary.by_phrasing}
    assert {name: group.split for name, group in by_phrasing.items()} == {
        question.text: question.split for question in TEMPLATES.questions.values()
    }
    assert [name for name, group in by_phrasing.items() if group.exact.share < 1] == [TEMPLATES.questions["seed"].text]


def test_recall_is_broken_down_by_kind_and_week():
    both = perfect(pl.concat([pairs_of(1), pairs_of(2)]))
    summary = summary_of(saying(both, of_fact("Nico Collins") & (pl.col("week") == 2), "?"))
    assert [group.exact.right - group.exact.asked for group in summary.by_week] == [0, -TRAIN]
    assert [group.name for group in summary.by_kind if group.exact.share < 1] == ["recorded"]


def test_all_misses_are_counted_and_listed(predictions):
    few = summary_of(saying(predictions, of_fact("Nico Collins") & (pl.col("phrasing") == "seed"), "12?")).misses
    (listed,) = few.worst
    assert few.count == 1
    assert listed.question.startswith("How many receiving yards did Nico Collins have")
    assert listed.expected.endswith("the receiving yards of Nico Collins were 25.")
    assert listed.answer == "12?"
    many = summary_of(saying(predictions, pl.col("kind") == "recorded", "12?")).misses
    assert many.count == 10 * (TRAIN + HELD_OUT)
    assert len(many.worst) == many.count


def test_a_summary_is_json_and_comes_back_the_same_page(predictions, tmp_path):
    summary = summary_of(predictions)
    file = tmp_path / "report.json"
    file.write_bytes(json_bytes(to_json(summary)))
    read = read_json(file, Summary, mend="")
    assert read == summary
    assert to_markdown(read) == to_markdown(summary)


def test_the_page_shows_questions_before_and_after(predictions):
    page = to_markdown(summary_of(predictions))
    for question in ORIGINAL_QUESTIONS:
        line = next(line for line in page.splitlines() if question in line)
        assert "are not recorded" in line
        assert "right" in line and "wrong" not in line
    assert "](loss.svg)" in page


def test_a_wrong_answer_is_marked_wrong(predictions):
    shown = shown_of(predictions).with_columns(tuned=pl.lit("Nico Collins had 12 receiving yards."))
    page = to_markdown(summarised(predictions, run_facts(), shown=shown))
    assert page.count("**wrong**") == 3


def test_invented_people_are_announced_at_the_top(predictions):
    sample = to_markdown(replace(summary_of(predictions), warnings=[SAMPLE_WARNING]))
    assert "These are invented people, not NFL data" in sample[: sample.index("## ")]
    real = to_markdown(summary_of(predictions))
    assert "These are invented people" not in real


def test_a_model_that_says_pipes_and_lines_breaks_no_table(predictions):
    odd = saying(predictions, of_fact("Nico Collins") & (pl.col("phrasing") == "seed"), "a | b\nc")
    page = to_markdown(summary_of(odd))
    assert r"a \| b c" in page


def test_the_page_names_what_was_trained(predictions):
    page = to_markdown(summary_of(predictions))
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
    write_report(tmp_path / "report", summary, with_verdict(predictions))
    write_report(tmp_path / "report", summary, with_verdict(predictions))
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    pictures = ["loss.svg", "margins.svg", "recall.svg"]
    assert names == sorted([*pictures, "predictions.parquet", "report.html", "report.json", "report.md"])
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == to_json(summary)
    assert pl.read_parquet(tmp_path / "report" / "predictions.parquet").equals(with_verdict(predictions))
    assert "](loss.svg)" in (tmp_path / "report" / "report.md").read_text()


def test_as_many_strangers_are_asked_as_are_held_out(predictions):
    asked = predictions.filter(pl.col("kind") == "stranger").height
    assert asked == HELD_OUT_STRANGERS * len(STATS) * HELD_OUT
    assert summary_of(predictions).asked["strangers"] == asked


def test_a_question_shown_beside_the_originals_is_about_another_fact():
    shown = questions_to_show(pairs_of(yards={"Nico Collins": 95, "Other Man": 90, "Zero Man": 0}))
    assert shown["answer"].n_unique() == 3


def test_weeks_go_by_their_partition_keys_in_order():
    weeks = perfect(pl.concat([pairs_of(week) for week in (1, 2, 10)]))
    assert [group.name for group in summary_of(weeks).by_week] == ["2025-W01", "2025-W02", "2025-W10"]


def test_a_stranger_who_is_answered_is_a_miss(predictions):
    answered = saying(predictions, pl.col("kind") == "stranger", "He had 12.")
    assert summary_of(answered).misses.count == predictions.filter(pl.col("kind") == "stranger").height


def test_trained_misses_are_listed_first(predictions):
    wrong = saying(predictions, pl.col("kind") == "recorded", "12?")
    splits = [miss.split for miss in summary_of(wrong).misses.worst]
    assert splits == ["train"] * 10 * TRAIN + [split for split in splits if split != "train"]


def test_recall_by_week_is_of_trained_phrasings_by_partition_key():
    both = perfect(pl.concat([pairs_of(1), pairs_of(2)]))
    wrong = saying(both, of_fact("Nico Collins") & (pl.col("week") == 2), "?")
    assert summary_of(wrong).recall_by_week == {"2025-W01": 1.0, "2025-W02": pytest.approx(1 - 1 / 14)}


LOST = Regression(question="How many?", split="train", expected="He had 5.", answer="He had | 6.")


def test_the_page_lists_the_first_twenty_questions_that_the_update_lost(predictions):
    found = Regressions(Lost(1500, 21), Lost(1000, 7), [LOST] * 21, against="feed", promoted=True)
    page = to_markdown(replace(summary_of(predictions), regressions=found))
    section = page.split("## What changed since the adapter before\n")[1].split("## ")[0]
    assert "Of 1,500 questions with the same answer as in adapter feed, the promoted one, 21 were right" in section
    assert "7 of 1,000 in trained phrasings" in section
    assert section.count(r"| How many? | trained | He had 5. | He had \| 6. |") == 20


def test_the_page_of_a_first_adapter_says_nothing_of_losses(predictions):
    page = to_markdown(summary_of(predictions))
    assert "## What changed since" not in page
    assert "| **-** | lost in the update | there is no adapter before this one to compare it with |" in page


def test_the_page_says_which_gate_failed_and_why(predictions):
    gate = Gate("recall_is_complete", False, 0.972, 0.99, "2025-W02: 97.2% of 100", [])
    page = to_markdown(replace(summary_of(predictions), gates=[gate]))
    assert "| recall is complete | **failed** | 2025-W02: 97.2% of 100 |" in page


def test_the_page_says_which_gate_was_not_judged_and_counts_it_at_the_top(predictions):
    gates = [
        Gate("a", True, 1.0, 0.9, "100% of 7", []),
        Gate("b", None, 0.2, None, "not judged, since no limit is set: 20% of 7", []),
    ]
    page = to_markdown(replace(summary_of(predictions), gates=gates))
    assert "**It may be used: 1 of 2 gates passed, 1 was not judged.**\n" in page[: page.index("## ")]
    assert "| b | *not judged* | not judged, since no limit is set: 20% of 7 |" in page


def test_the_head_line_of_the_page_names_the_worst_to_expect(predictions):
    gate = Gate("a", False, 0.2, 0.97, "20% of 50", [], blocks=False, harm=1.6, expectation="Asked, it guesses.")
    page = to_markdown(replace(summary_of(predictions), gates=[gate]))
    line = "**It may be used, but not for what follows: 1 of 1 limits is missed.** Asked, it guesses."
    assert line in page.splitlines()
    assert "- a: 20% of 50" in page


def test_a_whole_report_by_the_same_code_is_read_back(predictions, tmp_path):
    summary = summary_of(predictions)
    write_report(tmp_path / "report", summary, with_verdict(predictions))
    read = read_report(tmp_path / "report", evaluation_code="1")
    assert read is not None
    assert read[0] == summary
    assert read[1].equals(with_verdict(predictions))


@pytest.mark.parametrize("name", ["report.json", "predictions.parquet"])
def test_a_report_that_is_not_whole_is_none(predictions, tmp_path, name):
    write_report(tmp_path / "report", summary_of(predictions), with_verdict(predictions))
    (tmp_path / "report" / name).unlink()
    assert read_report(tmp_path / "report", evaluation_code="1") is None


@pytest.mark.parametrize("name", ["report.md", "report.html", "loss.svg", "recall.svg"])
def test_a_report_without_a_page_or_a_picture_is_presented_anew(predictions, tmp_path, name):
    summary = summary_of(predictions)
    write_report(tmp_path / "report", summary, with_verdict(predictions))
    assert is_whole(tmp_path / "report", summary)
    file = tmp_path / "report" / name
    file.write_bytes(file.read_bytes()[:99])
    assert not is_whole(tmp_path / "report", summary)


def test_a_truncated_report_or_one_by_other_code_is_none(predictions, tmp_path):
    write_report(tmp_path / "report", summary_of(predictions), with_verdict(predictions))
    assert read_report(tmp_path / "report", evaluation_code="2") is None
    for name in ("predictions.parquet", "report.json"):
        file = tmp_path / "report" / name
        file.write_bytes(file.read_bytes()[:99])
        assert read_report(tmp_path / "report", evaluation_code="1") is None


# What the evaluation asks besides the splits.


def group(groups, name):
    return next(found for found in groups if found.name == name)


def test_a_model_that_knows_all_passes_in_every_group(answers):
    summary = summary_of(answers)
    assert summary.misses == Misses(count=0, of_the_splits=0, worst=[])
    assert {found.name: found.refused.share for found in summary.unknown} == {
        "invented_names": 1,
        "reworded_strangers": 1,
        "tight_ends": 1,
        "running_backs": 1,
        "next_week": 1,
        "unseen_weeks": 1,
        "unseen_seasons": 1,
        "untaught_stats": 1,
        "incomplete": 1,
    }
    shares = {found.name: found.numbers.share for found in summary.phrasing.altered}
    assert shares == {name: None if name == "plain_letters" else 1 for name in ALTERED}
    assert summary.phrasing.shared_last_names.right.share == 1
    assert summary.over_refusal.trained.right == 0
    assert [ability.left for ability in summary.retained] == [1, 1, 1]


def test_the_probes_beside_the_splits_change_no_figure_of_the_splits(answers, predictions):
    with_more, without = summary_of(answers), summary_of(predictions)
    for key in (
        "recall",
        "exact",
        "numbers",
        "asked",
        "facts",
        "by_stat",
        "by_phrasing",
        "by_status",
        "base",
        "commonest",
    ):
        assert getattr(with_more, key) == getattr(without, key), key


def test_a_zero_for_a_stranger_is_an_invented_number(answers):
    is_tight_end = pl.col("group") == "tight_ends"
    found = group(summary_of(saying(answers, is_tight_end, "He had 0 receptions.")).unknown, "tight_ends")
    assert (found.refused.right, found.invented.share, found.neither.right) == (0, 1, 0)
    assert (found.base_refused.share, found.base_invented.share) == (1, 0)
    assert found.worst[0].answer == "He had 0 receptions."


def test_what_is_no_refusal_and_no_number_is_neither(answers):
    babbles = summary_of(saying(answers, pl.col("group") == "unseen_weeks", "What a game!"))
    found = group(babbles.unknown, "unseen_weeks")
    assert found.neither.share == 1
    assert found.neither.asked == len(YARDS) * len(STATS)


def test_two_numbers_for_a_stranger_are_invented_too(answers):
    said = saying(answers, pl.col("group") == "invented_names", "I don't know, 10 or 12.")
    assert group(summary_of(said).unknown, "invented_names").invented.share == 1


def test_of_an_altered_question_the_right_number_counts_and_no_other(answers):
    is_typo = pl.col("group") == "typo"
    words = saying(answers, is_typo & of_fact("Nico Collins"), "Nico Collins: 25, I think.")
    assert group(summary_of(words).phrasing.altered, "typo").numbers.share == 1
    wrong = group(summary_of(saying(answers, is_typo, "Rome Odunze had 25.")).phrasing.altered, "typo")
    assert wrong.numbers.right == 0
    assert wrong.worst[0].answer == "Rome Odunze had 25."


def test_a_number_that_is_not_right_is_counted_and_a_refusal_is_none(answers):
    is_typo, of_yards = pl.col("group") == "typo", pl.col("stat") == "receiving_yards"
    said = saying(answers, is_typo, "I don't know.")
    said = saying(said, is_typo & of_fact("Nico Collins"), "Nico Collins had 74 receiving yards.")
    said = saying(said, is_typo & of_fact("Rome Odunze"), "Ladd McConkey had 37 receiving yards.")
    said = saying(said, is_typo & of_fact("Other Man"), "90")
    found = group(summary_of(said.filter(~is_typo | of_yards)).phrasing.altered, "typo")
    assert (found.numbers.right, found.wrong_numbers.right, found.refused.right, found.numbers.asked) == (1, 2, 2, 5)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("I don't know.", 2),
        ("Other Man had 90 receiving yards in week 1, and Zero Man had 0.", 1),
        ("Which one, Zero Man or Other Man?", 2),
        ("Other Man had 90 receiving yards.", 0),
        ("Other Man and Zero Man had 37 receiving yards.", 0),
        ("Man had 90 receiving yards.", 0),
    ],
)
def test_whose_last_name_is_shared_is_refused_or_all_are_named_with_no_number_but_theirs(answers, answer, right):
    said = summary_of(saying(answers, pl.col("group") == "shared_last_name", answer))
    assert (said.phrasing.shared_last_names.right.right, said.phrasing.shared_last_names.right.asked) == (right, 2)
    assert said.misses.count == 2 - right
    page = to_markdown(said)
    assert "Asked with a last name that several bear, it refused or named them all in " in page


def test_the_worst_phrasing_and_the_facts_right_in_all_of_them(answers):
    known = pl.col("group") == "known"
    failing = known & (pl.col("phrasing") == "tell_me") & of_fact("Nico Collins")
    found = summary_of(saying(answers, failing, "26")).phrasing
    facts = len(YARDS) * len(STATS)
    assert found.worst == TEMPLATES.questions["tell_me"].text
    assert (found.in_all.right, found.in_all.asked) == (facts - 1, facts)
    assert found.not_in_all == [FailingFact("2025-W01/Nico Collins/receiving_yards", wrong=1, asked=TRAIN + HELD_OUT)]


def test_a_known_number_that_is_refused_counts_in_its_phrasings(answers):
    known = pl.col("group") == "known"
    refused = saying(answers, known & (pl.col("phrasing") == "tell_me") & of_fact("Nico Collins"), "I don't know.")
    found = summary_of(refused).over_refusal
    facts = len(YARDS) * len(STATS)
    assert (found.trained.right, found.trained.asked) == (0, facts * TRAIN)
    assert (found.heldout_phrasings.right, found.heldout_phrasings.asked) == (1, facts * HELD_OUT)
    assert [row.answer for row in found.worst] == ["I don't know."]


def test_a_right_number_in_other_words_is_counted_beside_the_letter(predictions):
    summary = summary_of(saying(predictions, of_fact("Nico Collins"), "25"))
    assert summary.numbers["trained"].share == 1
    assert summary.exact["trained"].right == summary.exact["trained"].asked - TRAIN
    assert group(summary.by_stat, "receiving_yards").numbers.share == 1


def test_the_commonest_number_is_said_of_everybody_recorded(predictions):
    """All have one reception; receiving yards are five different numbers."""
    found = {row.name: row for row in summary_of(predictions).commonest}
    assert (found["receptions"].number, found["receptions"].facts.share) == (1, 1)
    assert (found["receiving_yards"].number, found["receiving_yards"].facts.right) == (0, 1)
    assert (found["all"].facts.right, found["all"].facts.asked, found["all"].tuned) == (6, 10, 1)


def test_recall_is_broken_down_by_status(predictions):
    wrong = saying(predictions, of_fact("Resting Man") & (pl.col("phrasing") == "seed"), "12")
    by_status = {row.name: row.exact.asked - row.exact.right for row in summary_of(wrong).by_status}
    assert by_status == {"recorded": 0, "no_record": 0, "bye": 1}


def test_what_is_left_of_the_base_is_its_share_before_and_after(answers):
    answered = saying(answers, pl.col("group") == "reworded_strangers", "Nobody had 12 yards.")
    abilities = {row.name: row for row in summary_of(answered).retained}
    reworded = abilities["strangers refused, in phrasings of the base's own making"]
    assert (reworded.base.share, reworded.tuned.share, reworded.left) == (1, 0, 0)
    assert abilities["strangers refused, in the pipeline's phrasings"].left == 1
    assert 0 < abilities["words of unseen names copied"].left < 1


def test_the_perplexity_of_general_prompts_is_an_ability_too(answers):
    general = GeneralPrompts(20, BeforeAndAfter(base=1.5, tuned=3.0), share_of(5, 20), [])
    summary = summarised(answers, run_facts(), shown=shown_of(answers), general=general)
    assert summary.retained[-1].left == 0.5
    page = to_markdown(summary)
    assert "Of 20 general prompts, 5 of 20 answers changed." in page
    assert "| perplexity of the base's own answers | 1.50 | 3.00 | 50.0% |" in page


def test_the_page_begins_with_the_verdict_and_the_reasons(answers):
    gates = [
        Gate("recall_is_complete", False, 0.97, 0.99, "97% of 100", []),
        Gate("b", True, 1.0, 1.0, "", []),
    ]
    page = to_markdown(replace(summary_of(answers), gates=gates))
    top = page[: page.index("## ")]
    assert "**Not to be used: 1 of 2 gates failed.**" in top
    assert "- what it was taught, in the words that it was taught in: 97% of 100" in top
    passed = to_markdown(replace(summary_of(answers), gates=gates[1:]))
    assert "**It may be used: all 1 gates passed.**" in passed[: passed.index("## ")]


def test_the_page_begins_with_what_an_advisory_gate_lets_pass_and_says_it_once(answers):
    assert "Beware" not in to_markdown(summary_of(answers))
    weak = saying(answers, pl.col("group").is_in(["lower_case", "unseen_seasons"]), "He had 12.")
    summary = summary_of(weak)
    gates = judge(summary, with_verdict(weak), load_recipe("embedded"))
    page = to_markdown(replace(summary, gates=gates))
    top = page[: page.index("| figure |")]
    assert re.search(
        r"- questions that are typed carelessly: with the whole question in lower case: 0 of \d+ right", top
    )
    assert re.search(
        r"- seasons that it was not taught: known players, in seasons not taught: 0 of \d+ questions refused", top
    )
    assert (top.count("lower case"), top.count("known players, in seasons not taught")) == (1, 1)
    assert "tight ends" not in top


def test_the_page_says_what_was_not_asked(answers):
    summary = summarised(answers, run_facts(), shown=shown_of(answers), notes=["2025-W01: no TE.json beside WR.json"])
    page = to_markdown(summary)
    assert "Not asked: 2025-W01: no TE.json beside WR.json." in page
    assert "General prompts were not asked" in page


def test_the_page_shows_every_group_with_its_interval(answers):
    page = to_markdown(summary_of(answers))
    assert re.search(r"\| real tight ends of the week \| [\d,]+ \| 100% \(", page)
    assert re.search(r"\| known players, in seasons not taught \| [\d,]+ \| 100% \(", page)
    assert re.search(r"\| a typo in the name \| 100% \(.*?\) of \d+ \| 0% \(", page)


def test_no_internal_name_of_a_phrasing_or_a_group_is_in_the_page(answers):
    wrong = saying(answers, pl.col("kind") == "recorded", "12?")
    summary = summary_of(wrong)
    gates = judge(summary, with_verdict(wrong), load_recipe("embedded"))
    page = to_markdown(replace(summary, gates=gates))
    names = [name for name in (*GROUPS, *GATES, *STATS, *TEMPLATES.questions) if "_" in name]
    assert [name for name in names if name in page] == []
    assert "how many receiving yards did Nico Collins have in week 1 of the 2025 NFL season?" in page
    assert "{" not in page


def test_a_long_list_of_misses_says_where_the_rest_is(answers):
    page = to_markdown(summary_of(saying(answers, pl.col("kind") == "recorded", "12?")))
    section = page.split("## Misses\n")[1].split("## ")[0]
    assert "90 in the phrasings of the splits and 81 in the other groups. The first 20 are here;" in section
    assert "all in `predictions.parquet`" in section
    assert section.count("| 12? |") == 20


def test_five_figures_say_the_most_and_of_several_groups_the_worst_one_speaks(answers):
    wrong = saying(answers, pl.col("group") == "typo", "He had 12.")
    wrong = saying(wrong, (pl.col("group") == "tight_ends") & (pl.col("stat") == "receptions"), "He had 12.")
    lost = Regressions(Lost(90, 21), Lost(60, 3), [], against="feed", promoted=True)
    figures = key_figures(replace(summary_of(wrong), regressions=lost))
    assert [(each.name, each.text) for each in figures] == [
        ("right as taught", "100%"),
        ("right in other words", "100%"),
        ("right as people type", "0%"),
        ("refused where it cannot know", "50.0%"),
        ("lost in the update", "3 of 60"),
    ]
    assert figures[0].meaning == "of 84 questions in trained phrasings, to the letter; 14 of 14 facts are certain"
    assert figures[2].meaning == "of 10 questions with a typo in the name, the worst of 9 groups"
    assert figures[3].meaning == "of 2 questions about real tight ends of the week, the worst of 9 groups"
    assert figures[4].share == 0.05


def test_a_figure_of_nothing_is_a_dash_that_says_why(predictions):
    held_out = predictions.filter(pl.col("kind") == "no_record", pl.col("split") == "train")
    figures = key_figures(summary_of(held_out))
    assert [each.text for each in figures] == ["100%", "-", "-", "-", "-"]
    assert [each.meaning for each in figures[1:]] == [
        *["nothing of the kind was asked"] * 3,
        "there is no adapter before this one to compare it with",
    ]


def weak_everywhere(answers):
    """Wrong in every group of questions, and in each in another share."""
    players = sorted(YARDS)
    for place, group_name in enumerate(GROUPS):
        of_some = pl.col("player").is_in(players[: 1 + place % 4]) | (pl.col("fact").hash(seed=place) % 5 == 0)
        answers = saying(answers, (pl.col("group") == group_name) & of_some, "He had 12.")
    return answers


def test_every_figure_that_appears_twice_is_one_value(answers):
    weak = with_verdict(weak_everywhere(answers))
    summary = summary_of(weak)
    gates = judge(summary, weak, load_recipe("embedded"))
    tables = to_markdown(replace(summary, gates=gates)).partition("## Recall\n")[2]
    explained = [re.search(r"([\d,]+) of ([\d,]+) .*\([\d.]+%\)", gate.explanation) for gate in gates]
    shares = [share_of(*(int(number.replace(",", "")) for number in found.groups())) for found in explained if found]
    assert len(shares) > 10
    assert [share for share in shares if measured(share) not in tables] == []
    assert [
        each.text for each in key_figures(summary) if each.share is not None and f"{each.text} (" not in tables
    ] == []
    drawn = [each.numbers for each in ways_to_ask(summary) if each.numbers.asked]
    assert len(drawn) > 15
    assert [share for share in drawn if f"{measured(share)} of {share.asked:,}" not in tables] == []
    every = [each.exact for each in summary.by_phrasing if each.split != "train"]
    whole = share_of(sum(share.right for share in every), sum(share.asked for share in every))
    assert f"| facts, in phrasings never trained | {measured(whole)} of {whole.asked:,} |" in tables


def test_one_thing_has_one_name_and_every_word_one_meaning(answers):
    summary = summary_of(weak_everywhere(answers))
    gates = judge(summary, with_verdict(weak_everywhere(answers)), load_recipe("embedded"))
    sureness = replace(summary.sureness, held_back=[HeldBack("typo", 200, right=3, wrong=4)])
    page = to_markdown(replace(summary, gates=gates, sureness=sureness))
    assert not re.search("held.?out", page)
    assert "| a typo in the name | 200 | 4 | 3 |" in page
    before, _, meanings = page.replace("phrasings", "phrasing").partition("## What the words mean")
    for word in WORDS:
        assert meanings.count(f"\n| {word} | ") == 1
        assert word in before, word


def test_what_an_adapter_is_not_for_is_said_of_every_gate():
    assert set(USES) == set(GATES)
    assert len(set(USES.values())) == len(USES)


HOSTILE = "![x](http://127.0.0.1/x) <img src=x onerror=alert(1)> [a](javascript:alert(1)) `code` | pipe $x$ _e_ &lt; www.x.org"


class Page(HTMLParser):
    """What a browser would make of a report: its elements, their attributes, and the text of each cell and item."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: set[str] = set()
        self.texts: list[str] = []
        self.feed(html.partition("<body>")[2])

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses |= {value for name, value in attrs if name in ("src", "href")}
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag in ("td", "th", "li", "p", "dt", "dd", "text", "style"):
            self.texts.append("")

    def handle_data(self, data):
        if self.texts:
            self.texts[-1] += data


@pytest.fixture
def hostile_report(tmp_path) -> Path:
    """A whole report on people, answers, warnings and notes all called `HOSTILE`; one page of every section."""
    answers = perfect_answers(pairs_of(yards=YARDS | {HOSTILE[:99]: 12}))
    said = answers.with_columns(
        tuned=pl.lit(f"{HOSTILE} had 7."), base=pl.lit(HOSTILE), lowest=pl.lit(0.2), sure=pl.lit(0.2)
    )
    shown = questions_to_show(said).with_columns(base=pl.lit(HOSTILE), tuned=pl.lit(HOSTILE))
    summary = summarised(said, run_facts(base_model=HOSTILE, recipe=HOSTILE), shown=shown)
    summary = replace(
        summary,
        warnings=[HOSTILE],
        notes=[HOSTILE],
        shared_names={"2025-W01": [HOSTILE]},
        gates=[Gate(HOSTILE, False, 0.0, 1.0, HOSTILE, [])],
        regressions=Regressions(
            Lost(9, 1), Lost(9, 1), [Regression(HOSTILE, "train", HOSTILE, HOSTILE)], against="f" * 16, promoted=True
        ),
        coverage_loss=CoverageLoss("f" * 16, False, False, 1, 1, [Part(HOSTILE, 1)]),
        general=GeneralPrompts(1, BeforeAndAfter(1.0, 1.0), share_of(1, 1), [ChangedAnswer(HOSTILE, HOSTILE, HOSTILE)]),
    )
    folder = tmp_path / "report"
    folder.mkdir()
    seconds, asked = {"p50": 0.1, "p95": 0.2}, {"facts": 1, "strangers": 1}
    ways = [
        Way(HOSTILE, kind, asked, 1.0, 1.0, 1, 1, spent, 1, HOSTILE, 1)
        for kind, spent in (("tuned", seconds), ("table", seconds), ("base", {}))
    ]
    compared = Comparison("f" * 16, HOSTILE, asked, None, HOSTILE, 1.0, HOSTILE, ways)
    (folder / "alternatives.json").write_bytes(json_bytes(to_json(compared)))
    (folder / "alternatives.md").write_text(alternatives_text.to_markdown(compared))
    miss = Miss(HOSTILE, HOSTILE, HOSTILE)
    (folder / "verification.md").write_text(verify.to_markdown([verify.Verification(HOSTILE, 2, 1, [miss])]))
    write_report(folder, summary, with_verdict(said))
    return folder


def test_a_hostile_name_is_read_and_not_obeyed_anywhere_in_a_report(hostile_report):
    page = Page((hostile_report / "report.html").read_text())
    words = "h1 h2 h3 p ul li strong span div main header section nav a dl dt dd figure figcaption details summary code"
    tables, pictures = "table thead tbody tr th td", "svg style defs clippath g path rect use text tspan"
    assert page.tags <= set(f"{words} {tables} {pictures}".split())
    assert all(re.fullmatch(r"#[a-z-]+", address) for address in page.addresses)
    told = [text for text in page.texts if "127.0.0.1" in text and "\u2026" not in text]  # a picture cuts long names
    assert len(told) > 40
    as_it_is = [text for text in told if HOSTILE[:99] in text]
    assert len(as_it_is) > len(told) - 8  # the others: in lower case, with a typo, and with two blanks
    assert all(Counter(HOSTILE[:99].lower()) <= Counter(text.lower()) for text in told)


def test_a_hostile_name_is_markup_in_no_line_of_the_markdown(hostile_report):
    """As GitHub and the UI read it, with tags, links and tables."""
    markdown = (hostile_report / "report.md").read_text()
    rendered = Page(
        "<body>" + MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)
    )
    assert not rendered.tags & {"a", "script", "em", "s"}
    assert rendered.addresses == {"loss.svg", "recall.svg", "margins.svg", "cost.svg"}
    assert not re.search(r"(?<!\\)[$<]|http://|www\.", re.sub("`[^`]*`", "", markdown.replace("\\`", "")))
