"""What an adapter must reach to be promoted: pure functions behind the asset checks of the report."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from nfl_lora_pipeline.recipe import Recipe
from nfl_lora_pipeline.report import percent, week_key, with_verdict

GATES = {
    "recall_is_complete": "The share of trained questions answered right, in the worst week.",
    "strangers_are_refused": "The share of questions about invented people that are refused.",
    "nothing_is_forgotten": "The share of trained questions that the promoted adapter has right and this one wrong.",
}
WORST = 10


@dataclass(frozen=True)
class Gate:
    """One verdict.

    Attributes:
        figure: what was reached, a share; None where there was nothing to ask, which passes.
        threshold: what the recipe wants.
        said: the verdict in words.
        worst: `question`, `expected` and `said` of the first wrong answers.
    """

    name: str
    passed: bool
    figure: float | None
    threshold: float
    said: str
    worst: list[dict[str, str]]


def judge(summary: dict[str, Any], predictions: pl.DataFrame, recipe: Recipe) -> list[Gate]:
    """Hold a report against the thresholds of a recipe.

    Args:
        summary: of `report.summarise`, with `lost` of `forgetting.lost_by`.
        predictions: one row a question, as `report.summarise` takes them.
        recipe: with `min_recall`, `min_refused` and `max_lost`.

    Returns:
        One verdict for each of `GATES`, in their order.
    """
    wrong = with_verdict(predictions).filter(~pl.col("right")).sort("fact", "phrasing")
    return [
        _recall(summary["by_week"], wrong, recipe.min_recall),
        _refusals(summary, wrong, recipe.min_refused),
        _forgotten(summary["lost"], recipe.max_lost),
    ]


def _recall(weeks: list[dict[str, Any]], wrong: pl.DataFrame, wanted: float) -> Gate:
    if not weeks:
        return Gate("recall_is_complete", True, None, wanted, "no question was trained", [])
    worst = min(weeks, key=lambda week: week["recall"])
    said = f"{worst['name']}: {percent(worst['recall'])} of {worst['asked']:,} trained questions right"
    said += f", the worst of {len(weeks)} weeks" if len(weeks) > 1 else ""
    missed = wrong.filter(pl.col("kind") != "stranger", pl.col("split") == "train", week_key() == worst["name"])
    figure = worst["recall"]
    return Gate(
        "recall_is_complete", figure >= wanted, figure, wanted, f"{said}; at least {wanted:.1%} wanted", _rows(missed)
    )


def _refusals(summary: dict[str, Any], wrong: pl.DataFrame, wanted: float) -> Gate:
    figure = summary["recall"]["refused_strangers"]
    if figure is None:
        return Gate("strangers_are_refused", True, None, wanted, "no stranger was asked about", [])
    said = f"{percent(figure)} of {summary['asked']['strangers']:,} questions refused; at least {wanted:.1%} wanted"
    answered = wrong.filter(pl.col("kind") == "stranger")
    return Gate("strangers_are_refused", figure >= wanted, figure, wanted, said, _rows(answered))


def _forgotten(lost: dict[str, Any] | None, allowed: float) -> Gate:
    name = "nothing_is_forgotten"
    if lost is None or not lost["promoted"]:
        return Gate(name, True, None, allowed, "no adapter was promoted before this one", [])
    counted, against = lost["trained"], f"the promoted adapter {lost['against']}"
    if not counted["questions"]:
        return Gate(name, True, None, allowed, f"no trained question in common with {against}", [])
    figure = counted["lost"] / counted["questions"]
    said = f"{counted['lost']:,} of {counted['questions']:,} trained questions lost against {against}"
    trained = [row for row in lost["worst"] if row["split"] == "train"][:WORST]
    worst = [{name: row[name] for name in ("question", "expected", "said")} for row in trained]
    return Gate(
        name, figure <= allowed, figure, allowed, f"{said} ({figure:.2%}); at most {allowed:.2%} allowed", worst
    )


def _rows(wrong: pl.DataFrame) -> list[dict[str, str]]:
    return wrong.select("question", expected="answer", said="tuned").head(WORST).to_dicts()
