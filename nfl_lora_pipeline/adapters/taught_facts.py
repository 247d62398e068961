"""What an adapter was taught, fact by fact: kept beside it, since the splits that it was trained on are soon others."""

import polars as pl

from nfl_lora_pipeline.files import DamagedFile
from nfl_lora_pipeline.store import TAUGHT_COLUMNS, Store
from nfl_lora_pipeline.stored import read_predictions, read_summary

COLUMNS = TAUGHT_COLUMNS


def taught_facts(rows: pl.DataFrame) -> pl.DataFrame:
    """The facts of the train split.

    Args:
        rows: one row a question, as `splits.split_rows` gives them, or a report's predictions.

    Returns:
        One row a fact, sorted by `fact`: `COLUMNS`, as in `questions.facts`.
    """
    trained = rows.filter(pl.col("split") == "train", pl.col("kind") != "stranger")
    return trained.select(COLUMNS).unique("fact", keep="first", maintain_order=True).sort("fact")


def read_taught_facts(held: Store, fingerprint: str) -> pl.DataFrame | None:
    """What an adapter of the store was taught; of adapters of earlier code the report's predictions tell it.

    Returns:
        The frame of `taught_facts`; None where neither is on record.
    """
    try:
        return held.read_taught_facts(fingerprint)
    except DamagedFile:
        pass
    try:
        predictions = read_predictions(held.report(fingerprint), [*COLUMNS, "split"])
        asked = predictions.filter(pl.col("group") == "known") if "group" in predictions.columns else predictions
        return taught_facts(asked)
    except DamagedFile:
        return None


def knows_invented_people(held: Store, fingerprint: str) -> bool:
    """Whether an adapter was made of the bundled sample; of adapters of earlier code the report tells it."""
    sources = held.provenance(fingerprint).get("sources")
    if sources is None:
        try:
            sources = read_summary(held.report(fingerprint)).get("sources", {})
        except DamagedFile:
            sources = {}
    return "sample" in sources.values()
