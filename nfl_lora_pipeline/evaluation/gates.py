"""What an adapter must reach to be promoted, behind the checks of the report: pure functions, an entry of `GATES` each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from nfl_lora_pipeline.dataset.templates import numbers_in
from nfl_lora_pipeline.evaluation.alterations import CARELESS
from nfl_lora_pipeline.evaluation.metrics import (
    PERPLEXITY,
    AlteredQuestions,
    counted,
    may_be,
    misses_of,
    of_asked,
    week_key,
)
from nfl_lora_pipeline.evaluation.probes import (
    ALTERATIONS,
    BESIDE,
    IN_WORDS,
    INCOMPLETE,
    INVENTED,
    KNOWN,
    SHARED,
    is_of_the_splits,
)
from nfl_lora_pipeline.evaluation.regressions import in_words
from nfl_lora_pipeline.markdown import percent
from nfl_lora_pipeline.recipes.recipe import Recipe
from nfl_lora_pipeline.stored import Miss

if TYPE_CHECKING:
    from nfl_lora_pipeline.evaluation.summary import Summary

WORST = 10
MADE_UP = 2.0  # how much worse a number that is wrong is than no number: it is believed
UNTRUSTED = 10.0  # and how much worse than anything it is not to know
DENOMINATORS = (2, 3, 4, 5, 10, 20, 50, 100)
NEAR = 0.1  # how far a share in words may be from the share, in parts of what is left to 0 or to 1
UNKNOWN = "it cannot know"
EXPECTATIONS = {
    INVENTED: ("people who do not exist", "of them", UNKNOWN),
    "reworded_strangers": ("people who do not exist, in other words", "of them", UNKNOWN),
    "wide_receivers": ("wide receivers", "of them", UNKNOWN),
    "tight_ends": ("tight ends", "of them", UNKNOWN),
    "running_backs": ("running backs", "of them", UNKNOWN),
    "next_week": ("next week", "known players", UNKNOWN),
    "unseen_weeks": ("weeks that it was not taught", "known players", UNKNOWN),
    "unseen_seasons": ("seasons that it was not taught", "known players", UNKNOWN),
    "untaught_stats": ("stats that it was not taught", "known players", UNKNOWN),
    INCOMPLETE: (IN_WORDS[INCOMPLETE], "questions", "all the same"),
}
"""Groups of questions to refuse: about what they ask, who is given a number, and what kind of number."""


@dataclass(frozen=True)
class Gate:
    """One verdict.

    Attributes:
        passed: None where it was not judged: there was nothing to ask, or the recipe sets no limit.
        figure: what was reached; None where there was nothing to ask.
        threshold: what the recipe wants; None where it sets no limit.
        explanation: the verdict in words.
        worst: the first wrong answers.
        blocks: whether an adapter that misses it is kept from being promoted; otherwise the report names it and no more.
        harm: how bad it is what a user can expect, to compare gates by: the share of questions that go wrong, twice where
            they get a wrong number.
        expectation: that in a sentence.
    """

    name: str
    passed: bool | None
    figure: float | None
    threshold: float | None
    explanation: str
    worst: list[Miss]
    blocks: bool = True
    harm: float = 0.0
    expectation: str = ""

    @property
    def missed(self) -> bool:
        """Whether it was judged and not passed."""
        return self.passed is False

    @property
    def keeps_back(self) -> bool:
        """Whether the adapter must not be promoted."""
        return self.blocks and self.missed


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


class Finding(NamedTuple):
    """What a gate's function says of the evidence; see `Gate`.

    Attributes:
        excused: whether it passes whatever the figure.
    """

    figure: float | None
    explanation: str
    worst: Sequence[Miss] = ()
    harm: float = 0.0
    expectation: str = ""
    excused: bool = False


class Rule(NamedTuple):
    """A gate.

    Attributes:
        description: what its figure is.
        find: the figure, from the evidence.
        limit: the recipe's key of the threshold, which begins with "min" or "max"; "" where no recipe sets it.
        threshold: where no recipe does.
        at_most: whether the threshold is the most that is allowed, and not the least that is wanted.
        is_ratio: whether it is no share.
        hit: what is counted, as a column of the predictions, where it is a share of questions of which more can be asked.
        groups: whose questions these are.
    """

    description: str
    find: Callable[[Evidence], Finding]
    limit: str = ""
    threshold: float | None = None
    at_most: bool = False
    is_ratio: bool = False
    hit: str = ""
    groups: Sequence[str] = ()

    def of(self, recipe: Recipe) -> float | None:
        """The threshold under a recipe; None for one that nothing can miss, which is no limit."""
        if not self.limit:
            return self.threshold
        limit: float | None = getattr(recipe.gates, self.limit)
        nothing_misses_it = not self.is_ratio and limit == (1 if self.at_most else 0)
        return None if nothing_misses_it else limit

    def within(self, figure: float, threshold: float) -> bool:
        """Whether a figure is on the right side of a threshold."""
        return figure <= threshold if self.at_most else figure >= threshold

    def in_words(self, threshold: float) -> str:
        """The threshold: "at least 99.5% wanted"."""
        amount = f"{threshold:g}" if self.is_ratio else f"{100 * threshold:.6g}%"
        return f"at most {amount} allowed" if self.at_most else f"at least {amount} wanted"


def blocks(name: str, recipe: Recipe) -> bool:
    """Whether whatever misses a gate is kept back under a recipe."""
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
    evidence = Evidence(summary, wrong)
    return [_held_against(name, rule, rule.find(evidence), recipe) for name, rule in GATES.items()]


def undecided(predictions: pl.DataFrame, recipe: Recipe) -> set[str]:
    """The groups of which more questions have to be asked: a limit or a floor lies within what was asked so far allows.

    Args:
        predictions: of `grading.with_verdict`, of a sample of the questions, none in a trained phrasing.
        recipe: with the limits.
    """
    texts = predictions.select("right", "tuned").iter_rows()
    wrong = [not right and bool(numbers_in(answer)) for right, answer in texts]
    graded = predictions.with_columns(
        wrong_number=pl.Series(wrong, dtype=pl.Boolean),
        number_refused=pl.when(pl.col("kind") == "recorded").then("refused"),
    )
    by_group = {str(group): rows for (group,), rows in graded.group_by("group")}
    found: set[str] = set()
    for rule in GATES.values():
        limits = [limit for limit in (rule.of(recipe), recipe.gates.floors.get(rule.limit)) if limit is not None]
        shares = {group: counted(by_group[group][rule.hit].drop_nulls()) for group in rule.groups if group in by_group}
        found |= {group for group, share in shares.items() if any(may_be(share, limit) for limit in limits)}
    return found


def _held_against(name: str, rule: Rule, found: Finding, recipe: Recipe) -> Gate:
    threshold = rule.of(recipe)
    if threshold is None:
        threshold = recipe.gates.floors.get(rule.limit)
    if found.figure is None:
        passed, explanation = None, f"not judged: {found.explanation}"
    elif threshold is None:
        passed, explanation = None, f"not judged, since no limit is set: {found.explanation}"
    else:
        passed = found.excused or rule.within(found.figure, threshold)
        explanation = f"{found.explanation}; {rule.in_words(threshold)}" if rule.limit else found.explanation
    if fails := _is_beyond_its_floor(rule, found, recipe):
        explanation += f", and {rule.in_words(recipe.gates.floors[rule.limit])} of any adapter"
    return Gate(
        name=name,
        passed=passed,
        figure=found.figure,
        threshold=threshold,
        explanation=explanation,
        worst=list(found.worst)[:WORST],
        blocks=blocks(name, recipe) or fails,
        harm=found.harm,
        expectation=found.expectation,
    )


def _is_beyond_its_floor(rule: Rule, found: Finding, recipe: Recipe) -> bool:
    floor = recipe.gates.floors.get(rule.limit)
    return floor is not None and found.figure is not None and not rule.within(found.figure, floor)


def head_line(gates: Sequence[Gate]) -> str:
    """Whether an adapter may be used, how many gates say so, how many were not judged, and the worst that a user can expect."""
    missed = [gate for gate in gates if gate.missed]
    failed = [gate for gate in missed if gate.blocks]
    unjudged = sum(gate.passed is None for gate in gates)
    rest = f", {unjudged} {'was' if unjudged == 1 else 'were'} not judged" if unjudged else ""
    if failed:
        verdict = f"Not to be used: {len(failed)} of {len(gates)} gates failed{rest}."
    elif missed:
        is_or_are = "is" if len(missed) == 1 else "are"
        verdict = (
            f"It may be used, but not for what follows: {len(missed)} of {len(gates)} limits {is_or_are} missed{rest}."
        )
    else:
        passed = f"{len(gates) - unjudged} of {len(gates)}" if unjudged else f"all {len(gates)}"
        verdict = f"It may be used: {passed} gates passed{rest}."
    return f"{verdict} {_worst_to_expect(gates)}".rstrip()


def _worst_to_expect(gates: Sequence[Gate]) -> str:
    worst = max(gates, key=lambda gate: gate.harm, default=None)
    return worst.expectation if worst and worst.harm > 0 else ""


def in_fractions(share: float, of: str) -> str:
    """A share as people say it: "4 of 5 known players", "all known players", "98.5% of known players"."""
    if share >= 1:
        return f"all {of}"
    for whole in DENOMINATORS:
        part = round(share * whole)
        if 0 < part < whole and abs(part / whole - share) <= NEAR * min(share, 1 - share):
            return f"{part} of {whole} {of}"
    return f"{percent(share)} of {of.removeprefix('of ')}"


def _whole(evidence: Evidence) -> Finding:
    answers, tensors = evidence.summary.integrity.answers, evidence.summary.integrity.tensors
    figure = min(count.found / count.wanted if count.wanted else 0.0 for count in (answers, tensors))
    text = f"{answers.found:,} of {answers.wanted:,} rows of the splits answered, "
    text += f"{tensors.found:,} of {tensors.wanted:,} tensors of the adapter loaded and finite; all wanted"
    harm = 0.0 if figure == 1 else UNTRUSTED
    return Finding(
        figure, text, harm=harm, expectation="Not all was asked, or not of all the adapter: trust no figure here."
    )


def _recall(evidence: Evidence) -> Finding:
    weeks = evidence.summary.by_week
    if not weeks:
        return Finding(None, "no question was trained")
    worst = min(weeks, key=lambda week: week.exact.fraction)
    figure = worst.exact.fraction
    text = f"{worst.name}: {percent(figure)} of {worst.exact.asked:,} trained questions right"
    text += f", the worst of {len(weeks)} weeks" if len(weeks) > 1 else ""
    misses = evidence.wrong.filter(pl.col("group") == KNOWN, pl.col("split") == "train", week_key() == worst.name)
    expectation = (
        f"Asked in the very words that it was taught in, it answers {in_fractions(1 - figure, 'questions')} wrong."
    )
    return Finding(figure, text, misses_of(misses.head(WORST)), 1 - figure, expectation)


def _held_out(evidence: Evidence) -> Finding:
    share = evidence.summary.exact["heldout_phrasings"]
    if not share.asked:
        return Finding(None, "nothing was asked in phrasings never trained")
    text = f"{of_asked(share)} questions in phrasings never trained right ({percent(share.share)})"
    is_miss = (pl.col("group") == KNOWN) & (pl.col("split") != "train") & (pl.col("kind") != "no_record")
    bad = in_fractions(1 - share.fraction, "questions")
    expectation = f"Asked in words that it was not taught in, it answers {bad} wrong."
    return Finding(
        share.fraction, text, misses_of(evidence.wrong.filter(is_miss).head(WORST)), 1 - share.fraction, expectation
    )


def _altered(names: Sequence[str], evidence: Evidence) -> Finding:
    """Right numbers in the worst of some groups."""
    asked = _altered_groups(names, evidence)
    if not asked:
        return Finding(None, "no such question was asked")
    worst = min(asked, key=lambda group: group.numbers.fraction)
    share = worst.numbers
    text = f"with {ALTERATIONS[worst.name]}: {of_asked(share)} right ({percent(share.share)})"
    text += f", the worst of {len(asked)} groups" if len(asked) > 1 else ""
    wrong = worst.wrong_numbers.right
    nothing = share.asked - share.right - wrong
    if wrong and nothing:
        none, other = percent(nothing / share.asked), percent(wrong / share.asked)
        given = f"no number to {none} of questions and a wrong one to {other}"
    else:
        given = f"{'a wrong' if wrong else 'no'} number to {in_fractions(1 - share.fraction, 'questions')}"
    expectation = f"Asked with {ALTERATIONS[worst.name]}, it gives {given}."
    return Finding(share.fraction, text, worst.worst, 1 - share.fraction, expectation)


def _wrong_numbers(evidence: Evidence) -> Finding:
    asked = _altered_groups(["typo"], evidence)
    if not asked:
        return Finding(None, "no such question was asked")
    share = asked[0].wrong_numbers
    text = f"with {ALTERATIONS['typo']}: {of_asked(share)} questions got a wrong number ({percent(share.share)})"
    bad = in_fractions(share.fraction, "questions")
    expectation = f"Asked with {ALTERATIONS['typo']}, it gives a wrong number, most often somebody else's, to {bad}."
    return Finding(share.fraction, text, asked[0].worst, MADE_UP * share.fraction, expectation)


def _shared_last_names(evidence: Evidence) -> Finding:
    found = evidence.summary.phrasing.shared_last_names
    if not found.right.asked:
        return Finding(None, "no such question was asked")
    text = f"with {IN_WORDS[SHARED]}: {of_asked(found.right)} refused, or all named ({percent(found.right.share)})"
    bad = 1 - found.right.fraction
    expectation = (
        f"Asked with {IN_WORDS[SHARED]}, it takes one of them in {in_fractions(bad, 'questions')} without saying so."
    )
    return Finding(found.right.fraction, text, found.worst, bad, expectation)


def _refused(names: Sequence[str], evidence: Evidence) -> Finding:
    """Refusals in the worst of some groups that have no answer."""
    asked = [group for group in evidence.summary.unknown if group.name in names and group.refused.asked]
    if not asked:
        return Finding(None, "no such question was asked")
    worst = min(asked, key=lambda group: group.refused.fraction)
    text = f"{IN_WORDS[worst.name]}: {of_asked(worst.refused)} questions refused ({percent(worst.refused.share)})"
    text += f", the worst of {len(asked)} groups" if len(asked) > 1 else ""
    most = max(asked, key=lambda group: group.invented.fraction)
    about, whom, which = EXPECTATIONS[most.name]
    made_up = in_fractions(most.invented.fraction, whom)
    expectation = f"Asked about {about}, it gives {made_up} a number {which}."
    return Finding(worst.refused.fraction, text, worst.worst, MADE_UP * most.invented.fraction, expectation)


def _over_refusal(evidence: Evidence) -> Finding:
    found = evidence.summary.over_refusal
    phrasings = {"trained phrasings": found.trained, "phrasings never trained": found.heldout_phrasings}
    asked = {name: share for name, share in phrasings.items() if share.asked}
    if not asked:
        return Finding(None, "no number is known")
    worst = max(asked, key=lambda name: asked[name].fraction)
    figure = asked[worst].fraction
    text = f"{of_asked(asked[worst])} questions about known numbers refused in {worst} ({percent(figure)})"
    expectation = f"Asked for a number that it was taught, it refuses {in_fractions(figure, 'questions')}."
    return Finding(figure, text, found.worst, figure, expectation)


def _retention(evidence: Evidence) -> Finding:
    abilities = [ability for ability in evidence.summary.retained if ability.name != PERPLEXITY]
    if not abilities:
        return Finding(None, "the base could do nothing that was asked")
    worst = min(abilities, key=lambda ability: ability.left)
    text = f"{worst.name}: {percent(worst.left)} of what it was"
    expectation = f"Of what its base could do it has lost {percent(1 - worst.left)}: {worst.name}."
    return Finding(worst.left, text, (), 1 - worst.left, expectation)


def _perplexity(evidence: Evidence) -> Finding:
    general = evidence.summary.general
    if general is None:
        return Finding(None, "this base says nothing in general that it could forget")
    ratio = general.perplexity.tuned / general.perplexity.base
    text = f"perplexity of what the base says in general: {general.perplexity.tuned:.2f} after {general.perplexity.base:.2f}"
    expectation = f"In general talk it finds what its base said {ratio:.2g} times as odd."
    return Finding(ratio, f"{text}, {ratio:.3g} times as much", (), max(0.0, 1 - 1 / ratio), expectation)


def _forgotten(evidence: Evidence) -> Finding:
    regressions = evidence.summary.regressions
    if regressions is None or not regressions.promoted:
        return Finding(None, "no adapter was promoted before this one")
    counts, against = regressions.trained, f"the promoted adapter {regressions.against}"
    if not counts.questions:
        return Finding(None, f"no trained question in common with {against}")
    figure = counts.lost / counts.questions
    text = f"{counts.lost:,} of {counts.questions:,} trained questions lost against {against} ({figure:.2%})"
    trained = [each for each in regressions.worst if each.split == "train"][:WORST]
    worst = [Miss(each.question, each.expected, each.answer) for each in trained]
    expectation = f"It no longer knows {in_fractions(figure, 'answers')} that {against} gave."
    return Finding(figure, text, worst, figure, expectation)


def _coverage(evidence: Evidence) -> Finding:
    loss = evidence.summary.coverage_loss
    if loss is None:
        return Finding(None, "no adapter of real weeks was promoted before this one")
    if not loss.answers:
        return Finding(0.0, f"all that the adapter {loss.against} knows was taught")
    figure = loss.answers / loss.known
    text = f"given up of what the adapter {loss.against} knows: {in_words(loss.parts)}"
    if loss.in_use or loss.replace:
        why = "it is the promoted one already" if loss.in_use else "as --replace wants"
        return Finding(figure, f"{text}; {why}", excused=True)
    mend = "teach that too (--weeks, --stats), or promote it nevertheless (--replace)"
    expectation = f"It was not taught {in_fractions(figure, 'facts')} that the adapter {loss.against} knows."
    return Finding(figure, f"{text}; {mend}", (), figure, expectation)


def _altered_groups(names: Sequence[str], evidence: Evidence) -> list[AlteredQuestions]:
    return [group for group in evidence.summary.phrasing.altered if group.name in names and group.numbers.asked]


def _share_of_right(names: Sequence[str], what: str, limit: str) -> Rule:
    description = f"The share of questions {what} that get the right number."
    return Rule(description, partial(_altered, names), limit, hit="number_right", groups=names)


def _share_of_refusals(names: Sequence[str], whom: str, limit: str) -> Rule:
    description = f"The share of questions about {whom} that are refused."
    return Rule(description, partial(_refused, names), limit, hit="refused", groups=names)


GATES = {
    "evaluation_is_complete": Rule(
        "Every row of the splits was answered, by a model with every tensor of the adapter on it.",
        _whole,
        threshold=1.0,
    ),
    "recall_is_complete": Rule(
        "The share of trained questions answered right, in the worst week.", _recall, "min_recall"
    ),
    "other_phrasings_are_understood": Rule(
        "The share of questions in phrasings never trained that are answered right.",
        _held_out,
        "min_held_out",
        hit="right",
        groups=[KNOWN],
    ),
    "hand_written_wordings_are_understood": _share_of_right(
        ["hand_written"], "in wordings written by hand", "min_hand_written"
    ),
    "bare_words_are_understood": _share_of_right(["bare_words"], "in bare words", "min_bare_words"),
    "careless_typing_is_understood": _share_of_right(
        [*CARELESS], "typed carelessly, in the worst of the ways", "min_careless"
    ),
    "last_names_are_understood": _share_of_right(["last_name"], "by the last name alone", "min_last_name"),
    "shared_last_names_are_not_guessed": Rule(
        "The share of questions by a last name of several people that are refused, or name them all.",
        _shared_last_names,
        "min_shared_last_name",
        hit="right",
        groups=[SHARED],
    ),
    "typos_are_understood": _share_of_right(["typo"], "with a typo in the name", "min_typo"),
    "typos_get_no_wrong_number": Rule(
        "The share of questions with a typo in the name that get a wrong number.",
        _wrong_numbers,
        "max_wrong_typo",
        at_most=True,
        hit="wrong_number",
        groups=["typo"],
    ),
    "strangers_are_refused": _share_of_refusals(
        [INVENTED, "reworded_strangers"], "people who do not exist", "min_refused"
    ),
    "other_positions_are_refused": _share_of_refusals(
        BESIDE, "real players of other positions", "min_refused_positions"
    ),
    "other_weeks_are_refused": _share_of_refusals(
        ["next_week", "unseen_weeks"], "known players next week and in other weeks not taught", "min_refused_weeks"
    ),
    "other_seasons_are_refused": _share_of_refusals(
        ["unseen_seasons"], "known players in seasons not taught", "min_refused_seasons"
    ),
    "other_stats_are_refused": _share_of_refusals(
        ["untaught_stats"], "known players and stats not taught", "min_refused_stats"
    ),
    "incomplete_questions_get_no_number": _share_of_refusals(
        [INCOMPLETE], IN_WORDS[INCOMPLETE], "min_refused_incomplete"
    ),
    "known_facts_are_answered": Rule(
        "The share of questions about known numbers that are refused.",
        _over_refusal,
        "max_over_refused",
        at_most=True,
        hit="number_refused",
        groups=[KNOWN],
    ),
    "base_is_retained": Rule("What is left of the least retained of the base's abilities.", _retention, "min_retained"),
    "general_prompts_are_retained": Rule(
        "How many times as high the perplexity of the base's general answers is as it was.",
        _perplexity,
        "max_perplexity_ratio",
        at_most=True,
        is_ratio=True,
    ),
    "nothing_is_forgotten": Rule(
        "The share of trained questions that the promoted adapter has right and this one wrong.",
        _forgotten,
        "max_lost",
        at_most=True,
    ),
    "coverage_is_kept": Rule(
        "The share of facts that the promoted adapter knows and this one was not taught.",
        _coverage,
        threshold=0.0,
        at_most=True,
    ),
}
