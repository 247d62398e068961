"""What the trials of the studies came to: a table and a picture a study, and whether its claims are carried by every seed."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nfl_lora_pipeline.experiments.asking import paid_after
from nfl_lora_pipeline.experiments.study import FIGURES, SHARES, Claim, Study
from nfl_lora_pipeline.experiments.trial import Result
from nfl_lora_pipeline.markdown import Markup, escape, table
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.reports.plots import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    key,
    name_rows,
    new_figure,
    plain_numbers,
    to_svg,
)

NOT_SHOWN = (
    "asking_seconds",
    "trained_parameters",
    "facts_certain",
    "per_thousand",
)  # but where capacity is asked about
DRAWN = {
    "certain": ("facts\ncertain", BLUE),
    "right": ("facts\nright", BLUE),
    "held_out": ("held-out\nwordings", ORANGE),
    "hand_written": ("by hand", ORANGE),
    "right_altered": ("typos,\nlast names", ORANGE),
    "strangers": ("strangers\nrefused", GREY),
    "refused": ("strangers\nrefused", GREY),
    "other_weeks": ("other\nweeks", GREY),
    "other_seasons": ("other\nseasons", GREY),
    "other_stats": ("other\nstats", GREY),
    "kept": ("the base's\nrefusals", GREY),
    "perplexity": ("perplexity,\ntimes", INK),
    "answer_seconds": ("seconds a\nquestion", INK),
    "seconds": ("seconds of\ntraining", INK),
    "peak_megabytes": ("memory,\nMB", INK),
    "adapter_megabytes": ("on disk,\nMB", INK),
}
"""Figures in the picture from left to right, each with its heading and its colour."""
WHOLE = frozenset(
    "steps seconds asking_seconds peak_megabytes trained_parameters facts_certain asked prompt_tokens answer_tokens".split()
)
"""Figures that are shown without decimals."""
FEWEST_RANKS = 3  # through which a line is laid
HEADING = """# Experiments

Each study asks a question, and states beforehand what it expects; a claim is carried by the data where every seed bears it
out, and what one seed says another may not. A table has an arm a row. The studies are files in
`nfl_lora_pipeline/experiments/studies`; `nfl-lora experiment run NAME` makes what is missing of one, as does a backfill of
`experiment_result` in Dagster's UI; `nfl-lora experiment run all` makes all that take less than an hour together on two
cores, and says before it begins how long. `nfl-lora experiment report docs/experiments.md` wrote this page.
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
    lines += [f"- {line}" for line in (*_paid_off(study, arms), *_fitted(study, arms))]
    if not arms:
        return "\n".join([*lines, f"\nNothing was measured yet: `nfl-lora experiment run {name}`"])
    measured = [each for of_arm in arms.values() for each in of_arm]
    hidden = () if study.picture == "capacity" else NOT_SHOWN
    shown = [
        figure
        for figure in FIGURES
        if figure not in hidden and any(each.figures.get(figure) is not None for each in measured)
    ]
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
    hours = sum(each.spent for each in results) / 3600
    days = sorted({each.measured for each in results} - {""})
    when = f", measured {' to '.join(dict.fromkeys((days[0], days[-1])))}" if days else ""
    return (
        f"Recipe `{study.recipe}`; seeds {seeds}; {some} facts of {whose}; {hours:.2g} hours of training and asking{when}. "
        "Means, and where seeds differ from least to most."
    )


def _paid_off(study: Study, arms: ByArm) -> Iterator[str]:
    """After how many questions the tuned model has made up for its training, against each other way."""
    ways = {name: arm.way for name, arm in study.sides() if name in arms}
    tuned = next((name for name, way in ways.items() if way == "tuned"), None)
    if study.sample is None or tuned is None:
        return
    for name in ways:
        by_seed = {each.seed: each.figures for each in arms[tuned]}
        pairs = [(by_seed[each.seed], each.figures) for each in arms[name] if each.seed in by_seed and name != tuned]
        counts = [paid_after(*pair) for pair in pairs]
        after = ", ".join("never" if count is None else f"after {count:,} questions" for count in counts)
        if counts:
            yield f"Against {escape(name)}, by seconds alone, tuning has paid for itself: {after}."


class Fit(NamedTuple):
    """Facts certain for a thousand trained parameters, over the rank: a line through the logarithms of both.

    Attributes:
        exponent: of the rank. Where all ranks hold as many facts it is -1.
        explained: the share of the variance that the line explains.
        ranks: how many different ones.
    """

    exponent: float
    explained: float
    ranks: int


def fit(points: Sequence[tuple[int, float]]) -> Fit | None:
    """Least squares over ranks and facts for a thousand parameters; None where the ranks are too few.

    Source: facts against parameters of an adapter, arXiv 2603.01097; per fact and token, arXiv 2605.30260.
    """
    found = [(math.log(rank), math.log(facts)) for rank, facts in points if facts > 0]
    ranks = len({rank for rank, _ in found})
    if ranks < FEWEST_RANKS:
        return None
    slope, intercept = statistics.linear_regression(*zip(*found, strict=True))
    mean = statistics.mean(facts for _, facts in found)
    total = sum((facts - mean) ** 2 for _, facts in found)
    missed = sum((facts - intercept - slope * rank) ** 2 for rank, facts in found)
    return Fit(slope, 1 - missed / total if total else 1.0, ranks)


def by_facts(study: Study, arms: ByArm) -> Mapping[int, Sequence[tuple[int, float]]]:
    """Rank and facts certain for a thousand parameters of each trial, by the number of facts taught."""
    usual = load_recipe(study.recipe).changed(**study.changes)
    ranks = {name: usual.changed(**arm.recipe).lora.rank for name, arm in study.sides()}
    found: dict[int, list[tuple[int, float]]] = {}
    for name, results in arms.items():
        for each in results:
            found.setdefault(each.facts, []).append((ranks[name], each.figures.get("per_thousand") or 0.0))
    return dict(sorted(found.items()))


def _fitted(study: Study, arms: ByArm) -> Iterator[str]:
    """What the fit says, for each number of facts."""
    if study.picture != "capacity":
        return
    for facts, points in by_facts(study, arms).items():
        rank, most = max(points, key=lambda point: point[1])
        line = f"Of {facts:,} facts: most for a thousand parameters at rank {rank} ({most:.1f})"
        if found := fit(points):
            line += f"; they go with the rank to the power of {found.exponent:.2f}"
            line += f" ({found.ranks} ranks, r\u00b2 {found.explained:.2f})"
        yield f"{line}. A power of -1 means that all ranks hold as many facts."


def _spoken(found: Verdict) -> str:
    claim, differences = found.claim, found.differences
    text = escape(claim.text)
    if found.carried is None:
        return Markup(f"{text} *Not measured yet.*")
    measured = ", ".join(_signed(claim.figure, difference) for difference in differences.values())
    words = f"{FIGURES[claim.figure]}, {escape(claim.arm)} against {escape(claim.against)}: {measured}"
    seeds = "one seed" if len(differences) == 1 else f"{len(differences)} seeds"
    return f"{text} **{'Carried' if found.carried else 'Not carried'}** by the data of {seeds} ({words})."


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
    if figure == "answer_seconds":
        return f"{value:.2g}"
    return f"{value:,.0f}" if figure in WHOLE else f"{value:,.2f}"


def picture(study: Study, results: Sequence[Result]) -> bytes:
    """A line an arm, a column a figure: what it knows, what it refuses, what it keeps and costs; a mark a seed. SVG."""
    arms = by_arm(study, results)
    return _capacity(study, arms) if study.picture == "capacity" else _side_by_side(study, arms)


def _side_by_side(study: Study, arms: ByArm) -> bytes:
    names = list(arms)[::-1]
    marks = {
        figure: [
            (value, row)
            for row, name in enumerate(names)
            for each in arms[name]
            if (value := each.figures.get(figure)) is not None
        ]
        for figure in DRAWN
    }
    shown = [figure for figure in DRAWN if marks[figure]]
    drawing = new_figure(0.7 + 0.26 * len(names))
    columns = drawing.subplots(1, len(shown), squeeze=False)[0]
    for axes, figure in zip(columns, shown, strict=True):
        heading, colour = DRAWN[figure]
        values, rows = zip(*marks[figure], strict=True)
        axes.scatter(values, rows, s=14, color=colour, alpha=0.8, clip_on=False)
        name_rows(axes, names if axes is columns[0] else [""] * len(names))
        most = 1.0 if figure in SHARES else max(values)
        axes.set_xlim(0.0, most or 1.0)
        axes.set_xticks([0.0, most], ["0", _number(figure, most).replace(".0%", "%")])
        axes.set_title(heading, fontsize=7, color=INK)
        axes.tick_params(axis="both", length=0)
        axes.tick_params(axis="x", labelsize=7)
    return to_svg(drawing, study.question)


def _capacity(study: Study, arms: ByArm) -> bytes:
    """A colour a number of facts: facts certain for a thousand trained parameters over the rank, and the line of the fit."""
    figure = new_figure(3.2)
    axes = figure.subplots()
    colours: dict[str, str] = {}
    for (facts, points), colour in zip(by_facts(study, arms).items(), (BLUE, ORANGE, GREY), strict=False):
        colours[f"{facts:,} facts"] = colour
        axes.scatter([rank for rank, _ in points], [share for _, share in points], s=20, color=colour)
        positive = [(math.log(rank), math.log(share)) for rank, share in points if share > 0]
        if fit(points):
            slope, intercept = statistics.linear_regression(*zip(*positive, strict=True))
            ends = [min(rank for rank, _ in points), max(rank for rank, _ in points)]
            axes.plot(ends, [math.exp(intercept + slope * math.log(rank)) for rank in ends], color=colour, linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    plain_numbers(axes.xaxis)
    axes.set_xticks([], minor=True)
    plain_numbers(axes.yaxis, between=(2, 5))
    axes.set_xlabel("rank", fontsize=8)
    axes.set_ylabel("facts certain for a\nthousand parameters", fontsize=8)
    axes.tick_params(which="both", labelsize=8)
    axes.spines[:].set_visible(False)
    key(figure, colours)
    return to_svg(figure, study.question)
