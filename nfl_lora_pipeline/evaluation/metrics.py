"""What graded answers come to: shares with intervals, recall and what it is made of, inventions, what the base kept."""

import math
from collections.abc import Mapping
from typing import Any

import polars as pl

from nfl_lora_pipeline.evaluation.answer_parsing import name_words_right
from nfl_lora_pipeline.evaluation.grading import inventions, refusals
from nfl_lora_pipeline.evaluation.probes import ALTERED, BESIDE, INVENTED, KNOWN, WITHOUT_FACT

Z95 = 1.959964  # the standard normal quantile that leaves 2.5% on either side


def wilson(right: int, asked: int, *, z: float = Z95) -> tuple[float, float] | None:
    """The interval that holds a share with 95% confidence; None where nothing was asked.

    Unlike share +- z * error it stays within 0 to 1, and is of use where all or none are right.

    Args:
        right: how many of `asked` were right.
        asked: how many there were; they count as independent of each other.
        z: the quantile of the standard normal distribution.

    Raises:
        ValueError: `right` is not within 0 to `asked`.

    Source: E. B. Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 <= right <= asked:
        raise ValueError(f"{right} of {asked} is no share: expected a number from 0 to {asked}")
    if not asked:
        return None
    share = right / asked
    middle = share + z * z / (2 * asked)
    reach = z * math.sqrt(share * (1 - share) / asked + z * z / (4 * asked * asked))
    scale = 1 + z * z / asked
    low = 0.0 if right == 0 else (middle - reach) / scale
    high = 1.0 if right == asked else (middle + reach) / scale
    return low, high


def counted(hits: pl.Series) -> dict[str, Any]:
    """A share with its interval.

    Args:
        hits: Boolean, one a question, without nulls.

    Returns:
        `right`, `asked`, `share`, `low` and `high`; the last three are None where nothing was asked.
    """
    return share_of(int(hits.sum()), hits.len())


def share_of(right: int, asked: int) -> dict[str, Any]:
    """The same from two numbers."""
    low, high = wilson(right, asked) or (None, None)
    return {"right": right, "asked": asked, "share": right / asked if asked else None, "low": low, "high": high}


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
