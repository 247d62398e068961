"""Recall and what it is made of: by stat, week and phrasing, against the commonest number, in altered words."""

from typing import Any

import polars as pl

from nfl_lora_pipeline.exam.exam_questions import ALTERED, KNOWN
from nfl_lora_pipeline.exam.intervals import counted, share_of

MISSED_FACTS = 10


def week_key() -> pl.Expr:
    """The partition key of a row's `season` and `week`."""
    return pl.format("{}-W{}", "season", pl.col("week").cast(pl.String).str.zfill(2))


def recall_by(scored: pl.DataFrame, *names: str) -> list[dict[str, Any]]:
    """Recall of each group.

    Args:
        scored: of `verdicts.with_verdict`.
        names: the columns to group by; the first is called `name`, and the others come before it in the order.

    Returns:
        `name` (and `split`), `right`, `asked`, `recall` with its interval, and `numbers`: of those with a number, counted.
    """
    found = []
    for keys, rows in sorted(scored.group_by(names), key=lambda group: group[0][::-1]):
        exact, numbers = counted(rows["right"]), counted(rows["number_right"].drop_nulls())
        named = dict(zip(("name", *names[1:]), keys, strict=True))
        found.append(named | exact | {"recall": exact["share"], "numbers": numbers})
    return found


def commonest(trained: pl.DataFrame) -> list[dict[str, Any]]:
    """What who knows nothing but the commonest number gets: it is said of everybody recorded.

    Returns:
        For each stat, and last for all of them ("all"), `name`, `number` (None for "all"), the counted share of facts that
        have it, and `tuned`, the share of the same facts' questions to which the tuned model gave the right number.
    """
    recorded = trained.filter(pl.col("kind") == "recorded")
    found: list[dict[str, Any]] = []
    for (stat,), rows in recorded.sort("stat").group_by("stat", maintain_order=True):
        values = rows.unique("fact")["value"].value_counts().sort("count", "value", descending=[True, False])
        number, hits = values.row(0)
        tuned = counted(rows["number_right"])["share"]
        found.append({"name": stat, "number": number, **share_of(hits, int(values["count"].sum())), "tuned": tuned})
    if found:
        right, asked = sum(row["right"] for row in found), sum(row["asked"] for row in found)
        tuned = counted(recorded["number_right"])["share"]
        found.append({"name": "all", "number": None, **share_of(right, asked), "tuned": tuned})
    return found


def phrasing(predictions: pl.DataFrame) -> dict[str, Any]:
    """How recorded facts fare in altered words, and in all phrasings at once; `by_phrasing` has each phrasing.

    Returns:
        `altered`: of each altered group `name`, `numbers` and `refused` (counted) and up to ten misses (`worst`). `worst`:
        the phrasing of the splits with the fewest right numbers, and `worst_numbers`, their counted share. `in_all`: the
        counted share of recorded facts that are right to the letter in every trained and held-out phrasing, and
        `not_in_all`: the facts that fail most often, with `wrong` and `asked`.
    """
    recorded = predictions.filter(pl.col("kind") == "recorded", pl.col("group") == KNOWN)
    numbers = [
        (name, counted(rows["number_right"]))
        for (name,), rows in sorted(recorded.group_by("phrasing"), key=lambda group: group[0])
    ]
    worst, its_numbers = min(numbers, key=lambda row: row[1]["share"], default=(None, None))
    facts = recorded.group_by("fact").agg(wrong=(~pl.col("right")).sum(), asked=pl.len())
    failing = facts.filter(pl.col("wrong") > 0).sort(-pl.col("wrong").cast(pl.Int64), "fact")
    return {
        "altered": [_altered(predictions, group) for group in ALTERED],
        "worst": worst,
        "worst_numbers": its_numbers,
        "in_all": counted(facts["wrong"] == 0),
        "not_in_all": failing.head(MISSED_FACTS).to_dicts(),
    }


def misses_of(wrong: pl.DataFrame) -> list[dict[str, str]]:
    """`question`, `expected` and `said` of wrong answers, as a report lists them."""
    return wrong.select("question", expected="answer", said="tuned").to_dicts()


def _altered(predictions: pl.DataFrame, group: str) -> dict[str, Any]:
    rows = predictions.filter(pl.col("group") == group)
    return {
        "name": group,
        "numbers": counted(rows["number_right"]),
        "refused": counted(rows["refused"]),
        "worst": misses_of(rows.filter(~pl.col("right")).sort("refused", "fact").head(MISSED_FACTS)),
    }
