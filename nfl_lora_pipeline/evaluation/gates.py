"""What an adapter must reach to be promoted, behind the checks of the report: pure functions, an entry of `GATES` each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from nfl_lora_pipeline.evaluation.metrics import (
    misses_of,
    of_asked,
    week_key,
)
from nfl_lora_pipeline.evaluation.probes import INVENTED, KNOWN, is_of_the_splits
from nfl_lora_pipeline.evaluation.regressions import in_words
from nfl_lora_pipeline.markdown import percent
from nfl_lora_pipeline.stored import Miss
from nfl_lora_pipeline.tuning.recipe import Recipe

if TYPE_CHECKING:
    from nfl_lora_pipeline.evaluation.summary import Summary

PEOPLE = (INVENTED, "reworded_strangers", "tight_ends", "running_backs")
ELSEWHERE = ("next_week", "unseen_weeks", "unseen_seasons")
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


class Evidence(NamedTuple):
    """What gates look at.

    Attributes:
        summary: of `summary.summarise`, with its `regressions` and `coverage_loss` as they are now.
        wrong: the predictions on the splits that are not right.
    """

    summary: "Summary"
    wrong: pl.DataFrame


class Verdict(NamedTuple):
    """What a gate's function says; see `Gate`."""

    passed: bool
    figure: float | None
    explanation: str
    worst: Sequence[Miss] = ()


class Rule(NamedTuple):
    """A gate.

    Attributes:
        description: what its figure is.
        judge: its verdict, from the evidence and the threshold.
        limit: the recipe's key of the threshold; "" where no recipe sets it.
        threshold: where no recipe does.
    """

    description: str
    judge: Callable[[Evidence, float], Verdict]
    limit: str = ""
    threshold: float = 0.0

    def of(self, recipe: Recipe) -> float:
        """The threshold under a recipe."""
        return float(getattr(recipe.gates, self.limit)) if self.limit else self.threshold


def blocks(name: str, recipe: Recipe) -> bool:
    """Whether a gate keeps an adapter back under a recipe."""
    return GATES[name].limit not in recipe.gates.advisory


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
    gates = []
    for name, rule in GATES.items():
        threshold = rule.of(recipe)
        passed, figure, explanation, worst = rule.judge(Evidence(summary, wrong), threshold)
        gates.append(Gate(name, passed, figure, threshold, explanation, list(worst), blocks(name, recipe)))
    return gates


def _whole(evidence: Evidence, _: float) -> Verdict:
    answers, tensors = evidence.summary.integrity.answers, evidence.summary.integrity.tensors
    figure = min(count.found / count.wanted if count.wanted else 0.0 for count in (answers, tensors))
    text = f"{answers.found:,} of {answers.wanted:,} rows of the splits answered, "
    text += f"{tensors.found:,} of {tensors.wanted:,} tensors of the adapter loaded and finite; all wanted"
    return Verdict(figure == 1, figure, text)


def _recall(evidence: Evidence, minimum: float) -> Verdict:
    weeks = evidence.summary.by_week
    if not weeks:
        return Verdict(True, None, "no question was trained")
    worst = min(weeks, key=lambda week: week.exact.fraction)
    figure = worst.exact.fraction
    text = f"{worst.name}: {percent(figure)} of {worst.exact.asked:,} trained questions right"
    text += f", the worst of {len(weeks)} weeks" if len(weeks) > 1 else ""
    misses = evidence.wrong.filter(pl.col("group") == KNOWN, pl.col("split") == "train", week_key() == worst.name)
    return Verdict(figure >= minimum, figure, f"{text}; at least {minimum:.1%} wanted", misses_of(misses.head(WORST)))


def _refusals(evidence: Evidence, minimum: float) -> Verdict:
    figure = evidence.summary.recall["refused_strangers"]
    if figure is None:
        return Verdict(True, None, "no stranger was asked about")
    asked = evidence.summary.asked["strangers"]
    text = f"{percent(figure)} of {asked:,} questions refused; at least {minimum:.1%} wanted"
    answered = evidence.wrong.filter(pl.col("group") == INVENTED)
    return Verdict(figure >= minimum, figure, text, misses_of(answered.head(WORST)))


def _inventions(names: tuple[str, ...], evidence: Evidence, maximum: float) -> Verdict:
    asked = [group for group in evidence.summary.unknown if group.name in names]
    if not asked:
        return Verdict(True, None, "none were asked about")
    worst = max(asked, key=lambda group: group.invented.fraction)
    figure = worst.invented.fraction
    text = f"{spoken(worst.name)}: {of_asked(worst.invented)} questions got a number ({percent(figure)})"
    text += f", the worst of {len(asked)} groups" if len(asked) > 1 else ""
    return Verdict(figure <= maximum, figure, f"{text}; {_at_most(maximum)}", worst.worst)


def _over_refusal(evidence: Evidence, maximum: float) -> Verdict:
    found = evidence.summary.over_refusal
    phrasings = {"trained": found.trained, "held-out": found.heldout_phrasings}
    asked = {name: share for name, share in phrasings.items() if share.asked}
    if not asked:
        return Verdict(True, None, "no number is known")
    worst = max(asked, key=lambda name: asked[name].fraction)
    figure = asked[worst].fraction
    text = f"{of_asked(asked[worst])} questions about known numbers refused in {worst} phrasings ({percent(figure)})"
    return Verdict(figure <= maximum, figure, f"{text}; {_at_most(maximum)}", found.worst)


def _retention(evidence: Evidence, minimum: float) -> Verdict:
    abilities = evidence.summary.retained
    if not abilities:
        return Verdict(True, None, "the base could do nothing that was asked")
    worst = min(abilities, key=lambda ability: ability.left)
    text = f"{worst.name}: {percent(worst.left)} of what it was; at least {minimum:.1%} wanted"
    return Verdict(worst.left >= minimum, worst.left, text)


def _forgotten(evidence: Evidence, maximum: float) -> Verdict:
    regressions = evidence.summary.regressions
    if regressions is None or not regressions.promoted:
        return Verdict(True, None, "no adapter was promoted before this one")
    counts, against = regressions.trained, f"the promoted adapter {regressions.against}"
    if not counts.questions:
        return Verdict(True, None, f"no trained question in common with {against}")
    figure = counts.lost / counts.questions
    text = f"{counts.lost:,} of {counts.questions:,} trained questions lost against {against}"
    trained = [each for each in regressions.worst if each.split == "train"][:WORST]
    worst = [Miss(each.question, each.expected, each.answer) for each in trained]
    return Verdict(figure <= maximum, figure, f"{text} ({figure:.2%}); at most {maximum:.2%} allowed", worst)


def _coverage(evidence: Evidence, _: float) -> Verdict:
    loss = evidence.summary.coverage_loss
    if loss is None:
        return Verdict(True, None, "no adapter of real weeks was promoted before this one")
    if not loss.answers:
        return Verdict(True, 0.0, f"all that the adapter {loss.against} knows was taught")
    figure = loss.answers / loss.known
    text = f"given up of what the adapter {loss.against} knows: {in_words(loss.parts)}"
    if loss.in_use or loss.replace:
        why = "it is the promoted one already" if loss.in_use else "as --replace wants"
        return Verdict(True, figure, f"{text}; {why}")
    return Verdict(False, figure, f"{text}; teach that too (--weeks, --stats), or promote it nevertheless (--replace)")


GATES = {
    "evaluation_is_complete": Rule(
        "Every row of the splits was answered, by a model with every tensor of the adapter on it.",
        _whole,
        threshold=1.0,
    ),
    "recall_is_complete": Rule(
        "The share of trained questions answered right, in the worst week.", _recall, "min_recall"
    ),
    "strangers_are_refused": Rule(
        "The share of questions about invented people that are refused.", _refusals, "min_refused"
    ),
    "nobody_is_given_a_number": Rule(
        "The share of questions about people without a fact that get a number, in the worst group.",
        partial(_inventions, PEOPLE),
        "max_invented",
    ),
    "other_weeks_are_not_answered": Rule(
        "The share of questions about known players in weeks not taught that get a number.",
        partial(_inventions, ELSEWHERE),
        "max_invented_elsewhere",
    ),
    "other_stats_are_not_answered": Rule(
        "The share of questions about known players and stats not taught that get a number.",
        partial(_inventions, OTHER_STATS),
        "max_invented_stats",
    ),
    "known_facts_are_answered": Rule(
        "The share of questions about known numbers that are refused.", _over_refusal, "max_over_refused"
    ),
    "base_is_retained": Rule("What is left of the least retained of the base's abilities.", _retention, "min_retained"),
    "nothing_is_forgotten": Rule(
        "The share of trained questions that the promoted adapter has right and this one wrong.", _forgotten, "max_lost"
    ),
    "coverage_is_kept": Rule(
        "The share of facts that the promoted adapter knows and this one was not taught.", _coverage
    ),
}


def spoken(group: str) -> str:
    """A group's name for people."""
    return group.replace("_", " ")


def _at_most(maximum: float) -> str:
    return "no limit is set" if maximum == 1 else f"at most {maximum:.1%} allowed"
