"""What an adapter no longer answers that the one before it did."""

from typing import Any

import polars as pl

from nfl_lora_pipeline.adapters.promotion import before
from nfl_lora_pipeline.exam.exam_questions import is_of_the_splits
from nfl_lora_pipeline.exam.verdicts import exact_or_refused
from nfl_lora_pipeline.files import DamagedFile
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import read_predictions

SAME = ["fact", "phrasing", "answer"]


def lost_since(old: pl.DataFrame, new: pl.DataFrame) -> dict[str, Any]:
    """Compare two adapters on the questions of the splits that both were asked and that have the same answer in both.

    Args:
        old: predictions of the adapter before, one row a question: `fact`, `phrasing`, `kind`, `answer` and `tuned`.
        new: those of the adapter after it, with `split` and `question` besides.

    Returns:
        `questions` (compared), `lost` (right before, wrong now), `trained` (both numbers over trained phrasings alone) and
        `worst` (every lost question with what was expected and said, trained phrasings first).
    """
    old, new = _of_the_splits(old), _of_the_splits(new)
    was_right = old.select(SAME).with_columns(exact_or_refused(old).alias("was_right"))
    both = new.with_columns(exact_or_refused(new)).join(was_right, on=SAME, how="inner", maintain_order="left")
    lost = both.filter("was_right", ~pl.col("right")).sort(pl.col("split") != "train", "fact", "phrasing")
    is_trained = pl.col("split") == "train"
    return {
        "questions": both.height,
        "lost": lost.height,
        "trained": {"questions": both.filter(is_trained).height, "lost": lost.filter(is_trained).height},
        "worst": lost.select("question", "split", expected="answer", said="tuned").to_dicts(),
    }


def lost_by(held: Store, fingerprint: str, predictions: pl.DataFrame) -> dict[str, Any] | None:
    """What an adapter lost against the one before it: the promoted one, or else the newest one before.

    Returns:
        The figures of `lost_since`, with `against` (a fingerprint) and `promoted` (whether that one is or was promoted);
        None where there was no adapter before, or its predictions cannot be read.
    """
    promoted = before(held, fingerprint)
    against = promoted or held.previous_latest()
    if against is None:
        return None
    try:
        old = read_predictions(held.report(against), [*SAME, "kind", "tuned"])
    except DamagedFile:
        return None
    return {"against": against, "promoted": promoted is not None, **lost_since(old, predictions)}


def _of_the_splits(predictions: pl.DataFrame) -> pl.DataFrame:
    """Reports of earlier code asked nothing else, and have no `group`."""
    return predictions.filter(is_of_the_splits()) if "group" in predictions.columns else predictions
