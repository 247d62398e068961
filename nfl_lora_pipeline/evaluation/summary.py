"""From predictions to the figures of a report: recall, and what it is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from nfl_lora_pipeline.evaluation.grading import number_right, refusals
from nfl_lora_pipeline.evaluation.metrics import (
    commonest,
    counted,
    over_refusal,
    phrasing,
    recall_by,
    retained,
    week_key,
    without_facts,
)
from nfl_lora_pipeline.evaluation.probes import GROUPS, is_of_the_splits

ORIGINAL_QUESTIONS = [
    f"how many receiving yards did {player} have in week 1 of the 2025 NFL season?"
    for player in ("Nico Collins", "Ladd McConkey", "Rome Odunze")
]
SHOWN_COLUMNS = ["question", "answer", "refusal"]
MISSES_KEPT = 2000  # in report.json; `predictions.parquet` has all


@dataclass(frozen=True)
class RunFacts:
    """What was trained and evaluated, and on what.

    Attributes:
        weeks: partition keys.
        sources: where each week came from ("folder", "github" or "sample"), by partition key.
        raw_sha256: of each week's file as published, by partition key.
        evaluation_code: the version of the code that evaluates.
        adapter: its fingerprint.
        training: the fields of `training_log.TrainingLog`.
        seconds: of training and evaluation.
        shared_names: by partition key, names of several people, of whom nothing is taught.
    """

    base_model: str
    base_revision: str
    recipe: str
    weeks: list[str]
    stats: list[str]
    sources: dict[str, str]
    raw_sha256: dict[str, str]
    split_mode: str
    adapter: str
    evaluation_code: str
    training: dict[str, Any]
    seconds: dict[str, float]
    shared_names: Mapping[str, Sequence[str]] = field(default_factory=dict)


def questions_to_show(rows: pl.DataFrame) -> pl.DataFrame:
    """Three questions to show before and after: the original ones, and where they are not among the rows, those about
    the largest numbers, asked in lower case.

    Returns:
        `question`, `answer` and `refusal`, three rows where there are so many.
    """
    originals = rows.filter(pl.col("question").is_in(ORIGINAL_QUESTIONS))
    original = originals.sort("fact").unique("question", keep="first").select(SHOWN_COLUMNS)
    asked = pl.DataFrame({"question": ORIGINAL_QUESTIONS}).join(original, on="question", maintain_order="left")
    lower_case = pl.col("question").str.contains("^[a-z]")
    others = (
        rows.filter(pl.col("kind") == "recorded", pl.col("split") == "train")
        .sort(lower_case, "value", "fact", "phrasing", descending=[True, True, False, False])
        .unique("fact", keep="first", maintain_order=True)
        .join(originals, on="fact", how="anti", maintain_order="left")
        .select(SHOWN_COLUMNS)
    )
    return pl.concat([asked, others]).head(len(ORIGINAL_QUESTIONS))


def summarise(
    predictions: pl.DataFrame,
    facts: RunFacts,
    *,
    shown: pl.DataFrame,
    general: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    integrity: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All figures of a report.

    Args:
        predictions: of `verdicts.with_verdict`, one row a question: also the columns of `questions.qa_pairs`, `group`,
            `base` (what the base model said, null where it was not asked) and `lowest`.
        facts: what was trained.
        shown: `question`, `answer`, `base` and `tuned` of the questions to show.
        general: what `general_prompts.compare` found; None where a base can say nothing in general.
        notes: what could not be asked, one line each.
        integrity: what `integrity.integrity_of` found.

    Returns:
        A JSON-serialisable dict. An answer is right when it is the reference answer to the letter. `recall.trained` is over
        all facts in trained phrasings; `heldout_phrasings` over recorded facts and byes in phrasings that were not
        trained; `nonzero` over trained phrasings of numbers other than 0; `refused_strangers` the share of questions
        about invented people that are refused. A share is null where there was nothing to ask. `exact` has the same four
        with Wilson intervals, `numbers` the first three where the right number in any words counts. `recall_by_week` is
        over trained phrasings, by partition key. `lost`, `given_up`, `warnings` and `gates` are left for who knows the
        adapter before this one, the weeks and the thresholds.
    """
    asked = predictions.filter(is_of_the_splits())
    real, strangers = asked.filter(pl.col("kind") != "stranger"), asked.filter(pl.col("kind") == "stranger")
    trained = real.filter(pl.col("split") == "train")
    held_out = real.filter(pl.col("split") != "train", pl.col("kind") != "no_record")
    told = {"trained": trained, "heldout_phrasings": held_out, "nonzero": trained.filter(pl.col("value") != 0)}
    exact = {name: counted(rows["right"]) for name, rows in (told | {"refused_strangers": strangers}).items()}
    numbers = {name: counted(rows["number_right"].drop_nulls()) for name, rows in told.items()}
    by_week = recall_by(trained.with_columns(week=week_key()), "week")
    return {
        **asdict(facts),
        "questions": shown.select("question", "base", "tuned", expected="answer").to_dicts(),
        "recall": {name: share["share"] for name, share in exact.items()},
        "exact": exact,
        "numbers": numbers,
        "asked": {"trained": trained.height, "heldout_phrasings": held_out.height, "strangers": strangers.height},
        "facts": real["fact"].n_unique(),
        "recorded_facts": real.filter(pl.col("kind") == "recorded")["fact"].n_unique(),
        "base": _of_base(asked.filter(pl.col("base").is_not_null())),
        "commonest": commonest(trained),
        "by_stat": recall_by(trained.sort("stat"), "stat"),
        "by_kind": recall_by(trained, "kind"),
        "by_status": recall_by(trained, "status"),
        "by_week": by_week,
        "recall_by_week": {group["name"]: group["recall"] for group in by_week},
        "by_phrasing": recall_by(real, "phrasing", "split"),
        "phrasing": phrasing(predictions),
        "unknown": without_facts(predictions),
        "over_refusal": over_refusal(predictions),
        "retained": retained(predictions, general),
        "general": general,
        "notes": list(notes),
        "integrity": dict(integrity) if integrity else None,
        "misses": _misses(predictions),
        "lost": None,
        "given_up": None,
        "warnings": [],
        "gates": [],
    }


def _misses(predictions: pl.DataFrame) -> dict[str, Any]:
    """What is known first, the trained phrasings before the others; then the other groups in their order."""
    order = {group: place for place, group in enumerate(GROUPS)}
    wrong = predictions.filter(~pl.col("right")).sort(
        pl.col("group").replace_strict(order), pl.col("split") != "train", "fact", "phrasing"
    )
    listed = wrong.head(MISSES_KEPT).select("question", "split", "group", expected="answer", said="tuned")
    return {
        "count": wrong.height,
        "of_the_splits": wrong.filter(is_of_the_splits()).height,
        "worst": listed.to_dicts(),
    }


def _of_base(asked: pl.DataFrame) -> dict[str, Any]:
    numbers = counted(number_right(asked, "base").drop_nulls())
    refused = counted(refusals(asked, "base"))
    return {
        "numbers_right": numbers["share"],
        "refused": refused["share"],
        "asked": asked.height,
        "numbers": numbers,
        "refusals": refused,
    }
