"""What the trials of the studies came to: a table and a picture a study, and whether its claims are carried by every seed."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nfl_lora_pipeline.experiments.study import FIGURES, SHARES, Claim, Study
from nfl_lora_pipeline.experiments.trial import Result
from nfl_lora_pipeline.markdown import Markup, escape, table
from nfl_lora_pipeline.reports.plots import BLUE, GREY, ORANGE, in_percent, key, name_rows, new_figure, to_svg

SHOWN = (*SHARES, "train_loss", "valid_loss", "perplexity", "steps", "seconds", "peak_megabytes", "adapter_megabytes")
DRAWN = {"certain": BLUE, "held_out": ORANGE, "strangers": GREY}
"""Figures in the picture, each with its colour."""
HEADING = """# Experiments

Each study asks a question, and states beforehand what it expects; a claim is carried by the data where every seed bears it
out. A table has an arm a row. The studies are files in `nfl_lora_pipeline/experiments/studies`; `nfl-lora experiment run NAME`
makes what is missing of one, as does a backfill of `experiment_result` in Dagster's UI, and `nfl-lora experiment report
docs/experiments.md` wrote this page.
"""
ByArm = Mapping[str, Sequence[Result]]


@dataclass(frozen=True)
class Verdict:
    """A claim, and what the seeds that both arms have say of it.

    Attributes:
        claim: which.
        differences: by seed, how much higher (lower, where the claim says so) the figure of the arm is.
    """

    claim: Claim
    differences: Mapping[int, float]

    @property
    def carried(self) -> bool | None:
        """Whether every seed bears it out; None where nothing was measured."""
        if not self.differences:
            return None
        return all(difference >= self.claim.by for difference in self.differences.values())


def by_arm(study: Study, results: Sequence[Result]) -> ByArm:
    """The results of each arm, in the order of the study; arms without one are left out."""
    ordered = sorted(results, key=lambda each: each.seed)
    found = {name: [each for each in ordered if each.arm == name] for name, _ in study.sides()}
    return {name: of_arm for name, of_arm in found.items() if of_arm}


def verdict(claim: Claim, arms: ByArm) -> Verdict:
    """Hold a claim against the results."""

    def by_seed(arm: str) -> dict[int, float | None]:
        return {each.seed: each.figures.get(claim.figure) for each in arms.get(arm, ())}

    one, other, sign = by_seed(claim.arm), by_seed(claim.against), -1 if claim.lower else 1
    pairs = ((seed, one[seed], other[seed]) for seed in sorted(one.keys() & other.keys()))
    return Verdict(claim, {seed: sign * (a - b) for seed, a, b in pairs if a is not None and b is not None})


def section(name: str, study: Study, results: Sequence[Result], *, picture: str = "") -> str:
    """A study in Markdown: its question, claims with their verdicts, the picture, and the table.

    Args:
        name: the study's.
        study: what was asked.
        results: of its trials.
        picture: the address of its picture; empty for none.
    """
    arms = by_arm(study, results)
    lines = [f"## {escape(study.question)}\n"]
    if study.about:
        lines.append(f"{study.about.strip()}\n")
    lines += [f"- {_spoken(verdict(claim, arms))}" for claim in study.claims]
    if not arms:
        return "\n".join([*lines, f"\nNothing was measured yet: `nfl-lora experiment run {name}`"])
    measured = [each for of_arm in arms.values() for each in of_arm]
    shown = [figure for figure in SHOWN if any(each.figures.get(figure) is not None for each in measured)]
    rows = [[arm, *(_cell(figure, of_arm) for figure in shown)] for arm, of_arm in arms.items()]
    if picture:
        lines.append(f"\n![{escape(study.question)}]({picture})")
    lines += ["", table(["", *(FIGURES[figure] for figure in shown)], rows), _what_was_measured(study, measured)]
    return "\n".join([*lines, f"\n`nfl-lora experiment run {name}`"])


def _what_was_measured(study: Study, results: Sequence[Result]) -> str:
    seeds = ", ".join(map(str, sorted({each.seed for each in results})))
    facts = sorted({each.facts for each in results})
    some = " to ".join(f"{count:,}" for count in sorted({facts[0], facts[-1]}))
    is_invented = any("sample" in each.sources for each in results)
    whose = "the bundled sample's invented people" if is_invented else "real weeks"
    return f"Recipe `{study.recipe}`; seeds {seeds}; {some} facts of {whose}. Means, and where seeds differ from least to most."


def _spoken(found: Verdict) -> str:
    claim, differences = found.claim, found.differences
    text = escape(claim.text)
    if found.carried is None:
        return Markup(f"{text} *Not measured yet.*")
    measured = ", ".join(_signed(claim.figure, difference) for difference in differences.values())
    words = f"{FIGURES[claim.figure]}, {escape(claim.arm)} against {escape(claim.against)}: {measured}"
    return f"{text} **{'Carried' if found.carried else 'Not carried'}** by the data ({words})."


def _signed(figure: str, difference: float) -> str:
    return f"{100 * difference:+.1f} points" if figure in SHARES else f"{difference:+,.2f}"


def _cell(figure: str, results: Sequence[Result]) -> str:
    values = [value for each in results if (value := each.figures.get(figure)) is not None]
    if not values:
        return "-"
    least, mean, most = (_number(figure, value) for value in (min(values), statistics.mean(values), max(values)))
    return mean if least == most else f"{mean} ({least} to {most})"


def _number(figure: str, value: float) -> str:
    if figure in SHARES:
        return f"{value:.1%}"
    return (
        f"{value:,.0f}" if figure in ("steps", "seconds", "peak_megabytes", "trained_parameters") else f"{value:,.2f}"
    )


def picture(study: Study, results: Sequence[Result]) -> bytes:
    """A line an arm: what it knows in other words, and whom it refuses; a mark a seed. SVG."""
    arms = by_arm(study, results)
    figure = new_figure(1.2 + 0.28 * len(arms))
    axes = figure.subplots()
    names = list(arms)[::-1]
    for number, (what, colour) in enumerate(DRAWN.items()):
        places = [
            (share, row + 0.16 * (number - 1))
            for row, name in enumerate(names)
            for each in arms[name]
            if (share := each.figures.get(what)) is not None
        ]
        axes.scatter([share for share, _ in places], [row for _, row in places], s=16, color=colour)
    name_rows(axes, names)
    axes.set_xlim(-0.03, 1.03)
    axes.xaxis.set_major_formatter(in_percent())
    key(figure, {FIGURES[what]: colour for what, colour in DRAWN.items()})
    return to_svg(figure, study.question)
