"""What is left of what the base could do before it was taught."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from nfl_lora_pipeline.exam.exam_questions import BESIDE, INVENTED
from nfl_lora_pipeline.exam.intervals import counted, share_of
from nfl_lora_pipeline.exam.subjects import name_words_right
from nfl_lora_pipeline.exam.verdicts import refusals

UNKNOWN_PEOPLE = (INVENTED, "reworded_strangers", *BESIDE)


def retained(predictions: pl.DataFrame, general: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Before and after, on the same questions.

    Args:
        predictions: one row a question, with `base` (null where it was not asked) and `tuned`.
        general: of `general_prompts.compare`, or None.

    Returns:
        For each ability `name`, `base` and `tuned` (counted shares; perplexities for general prompts) and `left`: the
        tuned model's share of the base's, at most 1, and None where the base could not do it at all.
    """
    asked = predictions.filter(pl.col("base").is_not_null(), pl.col("group").is_in(UNKNOWN_PEOPLE))
    reworded = asked.filter(pl.col("group") == "reworded_strangers")
    found = [
        _before_and_after("strangers refused, in the pipeline's phrasings", *_refused(_without(asked, reworded))),
        _before_and_after("strangers refused, in phrasings of the base's own making", *_refused(reworded)),
        _before_and_after("words of unseen names copied", *(names_copied(asked, column) for column in _BOTH)),
    ]
    if general:
        before, after = general["perplexity"]["base"], general["perplexity"]["tuned"]
        left = min(1.0, before / after)
        found.append({"name": "perplexity of the base's own answers", "base": before, "tuned": after, "left": left})
    return [ability for ability in found if ability["left"] is not None]


def names_copied(asked: pl.DataFrame, column: str) -> dict[str, Any]:
    """The counted share of the words of names that stand in the answers, in their order."""
    found = [
        (name_words_right(said, name), len(name.split())) for said, name in asked.select(column, "player").iter_rows()
    ]
    return share_of(sum(right for right, _ in found), sum(words for _, words in found))


_BOTH = ("base", "tuned")


def _without(asked: pl.DataFrame, left_out: pl.DataFrame) -> pl.DataFrame:
    return asked.join(left_out, on=["group", "fact", "phrasing"], how="anti")


def _refused(asked: pl.DataFrame) -> list[dict[str, Any]]:
    return [counted(refusals(asked, column)) for column in _BOTH]


def _before_and_after(name: str, base: dict[str, Any], tuned: dict[str, Any]) -> dict[str, Any]:
    left = min(1.0, tuned["share"] / base["share"]) if base["share"] else None
    return {"name": name, "base": base, "tuned": tuned, "left": left}
