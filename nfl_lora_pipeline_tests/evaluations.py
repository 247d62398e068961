"""Predictions and summaries of a small week, for tests of what is made of them."""

import polars as pl

from nfl_lora_pipeline.dataset.qa_pairs import facts, qa_pairs
from nfl_lora_pipeline.dataset.splits import split_rows
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.evaluation.gates import Count, Integrity
from nfl_lora_pipeline.evaluation.grading import with_verdict
from nfl_lora_pipeline.evaluation.metrics import share_of, with_shared_last_names
from nfl_lora_pipeline.evaluation.probes import of_the_splits, probe_questions
from nfl_lora_pipeline.evaluation.summary import Exam, RunFacts, questions_to_show, summarise
from nfl_lora_pipeline.stored import TrainingRecord
from nfl_lora_pipeline.weeks.players import parse_week
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests.upstream import row, week_bytes

TEMPLATES = load_templates()
STATS = ["receiving_yards", "receptions"]
TRAIN, HELD_OUT = 6, 3  # phrasings
WHOLE = Integrity(answers=Count(10, 10), tensors=Count(4, 4))
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
    rows = split_rows(pairs, TEMPLATES, stats=STATS).with_columns(of_the_splits())
    asked = (pl.col("phrasing") == "seed") | (pl.col("kind") == "stranger")
    return answered(rows, asked)


def answered(rows, asked_of_base):
    """Rows with the right answers, and the base's refusals to those that it is asked."""
    return rows.with_columns(
        base=pl.when(asked_of_base).then("refusal"),
        generated="answer",
        tuned="answer",
        lowest=pl.lit(0.9),
        sure=pl.lit(0.9),
    )


def perfect_answers(pairs):
    """The same, with the questions of all groups."""
    rows = split_rows(pairs, TEMPLATES, stats=STATS)
    beside = {NflWeek(2025, 1): {"tight_ends": ["Travis Tight", "Nico Collins"], "running_backs": ["Bijan Back"]}}
    more = probe_questions(rows, TEMPLATES, stats=STATS, others=beside)
    asked = pl.col("kind") == "stranger"
    return pl.concat([perfect(pairs), answered(more, asked)])


def run_facts(**changes):
    log = {
        "losses": [(10, 1.0)],
        "certain": [(24, 1.0)],
        "iterations": 48,
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
        "training": TrainingRecord(**log),
        "seconds": {"training": 12.5, "evaluation": 3.25},
    }
    return RunFacts(**given | changes)


def shown_of(predictions):
    return questions_to_show(predictions).with_columns(base="refusal", tuned="answer")


def summary_of(predictions, **changes):
    return summarised(predictions, run_facts(**changes), shown=shown_of(predictions))


def summarised(predictions, facts, *, shown, **more):
    return summarise(
        with_shared_last_names(with_verdict(predictions)),
        facts,
        shown=shown,
        **{"integrity": WHOLE, "exam": Exam(possible=3000, asked=1000, certified=1500, generated=share_of(100, 100))}
        | more,
    )


def saying(predictions, condition, words):
    return predictions.with_columns(
        pl.when(condition).then(pl.lit(words)).otherwise(column).alias(column) for column in ("generated", "tuned")
    )


def of_fact(player, stat="receiving_yards"):
    return (pl.col("player") == player) & (pl.col("stat") == stat)
