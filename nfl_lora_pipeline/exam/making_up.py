"""What a model makes up about people and weeks that it holds no fact of, and what it holds back of what it knows."""

from typing import Any

import polars as pl

from nfl_lora_pipeline.exam.exam_questions import KNOWN, WITHOUT_FACT
from nfl_lora_pipeline.exam.intervals import counted
from nfl_lora_pipeline.exam.verdicts import inventions, refusals

WORST = 10


def without_facts(predictions: pl.DataFrame) -> list[dict[str, Any]]:
    """Each group of questions without an answer that was asked.

    Args:
        predictions: of `verdicts.with_verdict`, with `base`.

    Returns:
        `name`; `refused`, `invented` (a number is given, 0 included) and `neither`, each counted, which add up to all;
        `base_refused` and `base_invented`; `worst`, up to ten answers that were no refusal, those with a number first.
    """
    groups = {name: predictions.filter(pl.col("group") == name) for name in WITHOUT_FACT}
    return [_of_group(name, rows) for name, rows in groups.items() if not rows.is_empty()]


def over_refusal(predictions: pl.DataFrame) -> dict[str, Any]:
    """How often a fact with a number is refused.

    Returns:
        `trained` and `heldout_phrasings`, counted over the phrasings of the splits; `worst`, up to ten questions of both.
    """
    recorded = predictions.filter(pl.col("group") == KNOWN, pl.col("kind") == "recorded")
    is_trained = pl.col("split") == "train"
    refused = recorded.filter("refused").sort(~is_trained, "fact", "phrasing")
    return {
        "trained": counted(recorded.filter(is_trained)["refused"]),
        "heldout_phrasings": counted(recorded.filter(~is_trained)["refused"]),
        "worst": _listed(refused.head(WORST)),
    }


def _of_group(name: str, rows: pl.DataFrame) -> dict[str, Any]:
    asked_base = rows.filter(pl.col("base").is_not_null())
    wrong = rows.filter(~pl.col("refused")).sort(~pl.col("invented"), "fact", "phrasing")
    return {
        "name": name,
        "refused": counted(rows["refused"]),
        "invented": counted(rows["invented"]),
        "neither": counted(~rows["refused"] & ~rows["invented"]),
        "base_refused": counted(refusals(asked_base, "base")),
        "base_invented": counted(inventions(asked_base, "base")),
        "worst": _listed(_spread(wrong).head(WORST)),
    }


def _spread(wrong: pl.DataFrame) -> pl.DataFrame:
    """One answer a person first, so that ten lines show ten people where there are so many."""
    return wrong.with_columns(again=pl.int_range(pl.len()).over("player")).sort(
        ~pl.col("invented"), "again", maintain_order=True
    )


def _listed(rows: pl.DataFrame) -> list[dict[str, str]]:
    return rows.select("question", expected="answer", said="tuned").to_dicts()
