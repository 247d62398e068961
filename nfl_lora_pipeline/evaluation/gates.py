"""What an adapter must reach to be promoted: pure functions behind the asset checks of the report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from nfl_lora_pipeline.evaluation.metrics import (
    Ability,
    GroupRecall,
    OverRefusal,
    UnanswerableQuestions,
    misses_of,
    of_asked,
    week_key,
)
from nfl_lora_pipeline.evaluation.probes import INVENTED, KNOWN, is_of_the_splits
from nfl_lora_pipeline.evaluation.regressions import CoverageLoss, Regressions, in_words
from nfl_lora_pipeline.markdown import percent
from nfl_lora_pipeline.stored import Miss
from nfl_lora_pipeline.tuning.recipe import Recipe

if TYPE_CHECKING:
    from nfl_lora_pipeline.evaluation.summary import Summary

GATES = {
    "evaluation_is_complete": "Every row of the splits was answered, by a model with every tensor of the adapter on it.",
    "recall_is_complete": "The share of trained questions answered right, in the worst week.",
    "strangers_are_refused": "The share of questions about invented people that are refused.",
    "nobody_is_given_a_number": "The share of questions about people without a fact that get a number, in the worst group.",
    "other_weeks_are_not_answered": "The share of questions about known players in weeks not taught that get a number.",
    "other_stats_are_not_answered": "The share of questions about known players and stats not taught that get a number.",
    "known_facts_are_answered": "The share of questions about known numbers that are refused.",
    "base_is_retained": "What is left of the least retained of the base's abilities.",
    "nothing_is_forgotten": "The share of trained questions that the promoted adapter has right and this one wrong.",
    "coverage_is_kept": "The share of facts that the promoted adapter knows and this one was not taught.",
}
LIMITS = {  # the recipe's key by the gate; the others have none
    "recall_is_complete": "min_recall",
    "strangers_are_refused": "min_refused",
    "nobody_is_given_a_number": "max_invented",
    "other_weeks_are_not_answered": "max_invented_elsewhere",
    "other_stats_are_not_answered": "max_invented_stats",
    "known_facts_are_answered": "max_over_refused",
    "base_is_retained": "min_retained",
    "nothing_is_forgotten": "max_lost",
}
PEOPLE = (INVENTED, "reworded_strangers", "tight_ends", "running_backs")
ELSEWHERE = ("unseen_weeks", "unseen_seasons")
OTHER_STATS = ("untaught_stats",)
WORST = 10


@dataclass(frozen=True)
class Gate:
    """One verdict.

    Attributes:
        figure: what was reached, a share; None where there was nothing to ask, which passes.
        threshold: what the recipe wants.
        explanation: the verdict in words.
        worst: the first wrong answers.
        blocks: whether an adapter that misses it is kept from being promoted; otherwise the report names it and no more.
    """

    name: str
    passed: bool
    figure: float | None
    threshold: float
    explanation: str
    worst: list[Miss]
    blocks: bool = True

    @property
    def keeps_back(self) -> bool:
        """Whether the adapter must not be promoted."""
        return self.blocks and not self.passed


def blocks(name: str, recipe: Recipe) -> bool:
    """Whether a gate keeps an adapter back under a recipe."""
    return LIMITS.get(name) not in recipe.gates.advisory


@dataclass(frozen=True)
class Count:
    """How many of what there should be are there."""

    found: int
    wanted: int


@dataclass(frozen=True)
class Integrity:
    """Whether an evaluation is whole: rows of the splits with an answer, and tensors of the adapter that were loaded."""

    answers: Count
    tensors: Count


def judge(summary: "Summary", predictions: pl.DataFrame, recipe: Recipe) -> list[Gate]:
    """Hold a report against the thresholds of a recipe.

    Args:
        summary: of `summary.summarise`, with its `regressions` and `coverage_loss` as they are now.
        predictions: of `grading.with_verdict`.
        recipe: with a threshold for each gate.

    Returns:
        One verdict for each of `GATES`, in their order.
    """
    wrong = predictions.filter(is_of_the_splits(), ~pl.col("right")).sort("fact", "phrasing")
    gates = [
        _whole(summary.integrity),
        _recall(summary.by_week, wrong, recipe.gates.min_recall),
        _refusals(summary, wrong, recipe.gates.min_refused),
        _inventions("nobody_is_given_a_number", summary.unknown, PEOPLE, recipe.gates.max_invented),
        _inventions("other_weeks_are_not_answered", summary.unknown, ELSEWHERE, recipe.gates.max_invented_elsewhere),
        _inventions("other_stats_are_not_answered", summary.unknown, OTHER_STATS, recipe.gates.max_invented_stats),
        _over_refusal(summary.over_refusal, recipe.gates.max_over_refused),
        _retention(summary.retained, recipe.gates.min_retained),
        _forgotten(summary.regressions, recipe.gates.max_lost),
        _coverage(summary.coverage_loss),
    ]
    return [replace(gate, blocks=blocks(gate.name, recipe)) for gate in gates]


def _whole(integrity: Integrity) -> Gate:
    answers, tensors = integrity.answers, integrity.tensors
    figure = min(count.found / count.wanted if count.wanted else 0.0 for count in (answers, tensors))
    text = f"{answers.found:,} of {answers.wanted:,} rows of the splits answered, "
    text += f"{tensors.found:,} of {tensors.wanted:,} tensors of the adapter loaded and finite; all wanted"
    return Gate("evaluation_is_complete", figure == 1, figure, 1.0, text, [])


def _recall(weeks: Sequence[GroupRecall], wrong: pl.DataFrame, minimum: float) -> Gate:
    if not weeks:
        return Gate("recall_is_complete", True, None, minimum, "no question was trained", [])
    worst = min(weeks, key=lambda week: week.exact.fraction)
    figure = worst.exact.fraction
    text = f"{worst.name}: {percent(figure)} of {worst.exact.asked:,} trained questions right"
    text += f", the worst of {len(weeks)} weeks" if len(weeks) > 1 else ""
    misses = wrong.filter(pl.col("group") == KNOWN, pl.col("split") == "train", week_key() == worst.name)
    text += f"; at least {minimum:.1%} wanted"
    return Gate("recall_is_complete", figure >= minimum, figure, minimum, text, misses_of(misses.head(WORST)))


def _refusals(summary: "Summary", wrong: pl.DataFrame, minimum: float) -> Gate:
    figure = summary.recall["refused_strangers"]
    if figure is None:
        return Gate("strangers_are_refused", True, None, minimum, "no stranger was asked about", [])
    text = f"{percent(figure)} of {summary.asked['strangers']:,} questions refused; at least {minimum:.1%} wanted"
    answered = wrong.filter(pl.col("group") == INVENTED)
    return Gate("strangers_are_refused", figure >= minimum, figure, minimum, text, misses_of(answered.head(WORST)))


def _inventions(name: str, groups: Iterable[UnanswerableQuestions], names: tuple[str, ...], maximum: float) -> Gate:
    asked = [group for group in groups if group.name in names]
    if not asked:
        return Gate(name, True, None, maximum, "none were asked about", [])
    worst = max(asked, key=lambda group: group.invented.fraction)
    figure = worst.invented.fraction
    text = f"{spoken(worst.name)}: {of_asked(worst.invented)} questions got a number ({percent(figure)})"
    text += f", the worst of {len(asked)} groups" if len(asked) > 1 else ""
    text += f"; {_at_most(maximum)}"
    return Gate(name, figure <= maximum, figure, maximum, text, worst.worst)


def _over_refusal(over_refusal: OverRefusal, maximum: float) -> Gate:
    name = "known_facts_are_answered"
    phrasings = {"trained": over_refusal.trained, "held-out": over_refusal.heldout_phrasings}
    asked = {name: share for name, share in phrasings.items() if share.asked}
    if not asked:
        return Gate(name, True, None, maximum, "no number is known", [])
    worst = max(asked, key=lambda name: asked[name].fraction)
    figure = asked[worst].fraction
    text = f"{of_asked(asked[worst])} questions about known numbers refused in {worst} phrasings ({percent(figure)})"
    return Gate(name, figure <= maximum, figure, maximum, f"{text}; {_at_most(maximum)}", over_refusal.worst)


def _retention(abilities: Sequence[Ability], minimum: float) -> Gate:
    name = "base_is_retained"
    if not abilities:
        return Gate(name, True, None, minimum, "the base could do nothing that was asked", [])
    worst = min(abilities, key=lambda ability: ability.left)
    text = f"{worst.name}: {percent(worst.left)} of what it was; at least {minimum:.1%} wanted"
    return Gate(name, worst.left >= minimum, worst.left, minimum, text, [])


def _forgotten(regressions: Regressions | None, maximum: float) -> Gate:
    name = "nothing_is_forgotten"
    if regressions is None or not regressions.promoted:
        return Gate(name, True, None, maximum, "no adapter was promoted before this one", [])
    counts, against = regressions.trained, f"the promoted adapter {regressions.against}"
    if not counts.questions:
        return Gate(name, True, None, maximum, f"no trained question in common with {against}", [])
    figure = counts.lost / counts.questions
    text = f"{counts.lost:,} of {counts.questions:,} trained questions lost against {against}"
    trained = [each for each in regressions.worst if each.split == "train"][:WORST]
    worst = [Miss(each.question, each.expected, each.answer) for each in trained]
    text = f"{text} ({figure:.2%}); at most {maximum:.2%} allowed"
    return Gate(name, figure <= maximum, figure, maximum, text, worst)


def _coverage(loss: CoverageLoss | None) -> Gate:
    name = "coverage_is_kept"
    if loss is None:
        return Gate(name, True, None, 0.0, "no adapter of real weeks was promoted before this one", [])
    if not loss.answers:
        return Gate(name, True, 0.0, 0.0, f"all that the adapter {loss.against} knows was taught", [])
    figure = loss.answers / loss.known
    text = f"given up of what the adapter {loss.against} knows: {in_words(loss.parts)}"
    if loss.in_use or loss.replace:
        why = "it is the promoted one already" if loss.in_use else "as --replace wants"
        return Gate(name, True, figure, 0.0, f"{text}; {why}", [])
    text += "; teach that too (--weeks, --stats), or promote it nevertheless (--replace)"
    return Gate(name, False, figure, 0.0, text, [])


def spoken(group: str) -> str:
    """A group's name for people."""
    return group.replace("_", " ")


def _at_most(maximum: float) -> str:
    return "no limit is set" if maximum == 1 else f"at most {maximum:.1%} allowed"
