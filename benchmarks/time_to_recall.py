"""Seconds of training until a week is known, against other trainers at the best settings that were found for them.

    python -m benchmarks.time_to_recall --data-dir FOLDER

There are two tasks. In the first every fact must be answered exactly in every trained phrasing; in the second the held-out
strangers must be refused too. The sides learn the same rows on the same base with the same rank: this trainer (its own checks
counted); `mlx_lm.lora` as installed, and with the fast BLAS loaded first; HF PEFT on torch (`make bench-setup`). What the
others reach is checked every few steps, and those checks are not counted. For each seed all sides take their turn. Then the
same batches go through a step of ours and a step of PEFT's in turn.
"""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import click
import polars as pl

from benchmarks import ours, peft_side
from benchmarks.judging import REFUSED, Outcome
from benchmarks.opponents import BOTH, CHECK_EVERY, FACTS, TASKS, best
from benchmarks.options import of_one_week
from benchmarks.races import of_task, run_opponent, run_ours
from benchmarks.steps_in_turn import compare_steps
from benchmarks.tables import median_and_range, publish
from nfl_lora_pipeline.markdown import Markup, percent, table
from nfl_lora_pipeline.recipes.recipe import Recipe, load_recipe
from nfl_lora_pipeline.weeks.week import NflWeek

SIDES = ("ours", "mlx_lm", "fast_blas", "peft", "steps")
NAMES = {
    "ours": "this trainer",
    "mlx_lm": Markup("`mlx_lm.lora` as installed"),
    "fast_blas": Markup("`mlx_lm.lora`, fast BLAS on one thread"),
    "peft": "HF PEFT on torch",
}
KNOWN_THEN = ("held-out phrasings", "strangers", "other weeks")
GOALS = {
    FACTS: "every fact exact in every trained phrasing",
    BOTH: f"every fact exact in every trained phrasing, and {REFUSED:.0%} of the held-out strangers refused",
}


def race(
    rows: pl.DataFrame, recipe: Recipe, task: str, seeds: Sequence[int], caps: dict[str, float]
) -> dict[str, list[Outcome]]:
    """Ours and then the other sides, seed by seed; each of those for so many times our median seconds at most."""
    outcomes: dict[str, list[Outcome]] = {side: [] for side in ("ours", *caps)}
    for seed in seeds:
        own = of_task(recipe, task, seed)
        _told("ours", seed, outcomes["ours"], run_ours(rows, own, task))
        for side, cap in caps.items():
            seconds = cap * statistics.median(outcome.seconds for outcome in outcomes["ours"])
            found = run_opponent(side, rows, recipe.changed(seed=seed), task, best(side, task), seconds=seconds)
            _told(side, seed, outcomes[side], found)
    return outcomes


def seconds_cell(outcomes: Sequence[Outcome]) -> str:
    """The median over the seeds and its range, where one that did not reach the goal took longer than all that did."""
    if all(outcome.reached for outcome in outcomes):
        return median_and_range([outcome.seconds for outcome in outcomes], "s")
    middle, times = _middle(outcomes), _times(outcomes)
    if math.isinf(middle):
        worst = min(outcomes, key=lambda outcome: (outcome.facts_right, outcome.shares["strangers"]))
        return f"not reached after {_longest(outcomes):,.0f} s ({_still_missing(worst)})"
    return f"{middle:,.1f} s (of {len(times)}; {min(times):,.1f} to not reached after {_longest(outcomes):,.0f})"


def cells(outcomes: Sequence[Outcome], baseline: float) -> list[str]:
    """A side's line of the table, but for its name."""
    middle, spent = _middle(outcomes), statistics.median(outcome.seconds for outcome in outcomes)
    ratio = f"at least {spent / baseline:.1f}x" if math.isinf(middle) else f"{middle / baseline:.1f}x"
    return [
        seconds_cell(outcomes),
        f"{statistics.median(outcome.steps for outcome in outcomes):,.0f}",
        f"in {sum(outcome.reached for outcome in outcomes)} of {len(outcomes)} seeds",
        ratio,
        *(percent(statistics.median(outcome.shares[name] for outcome in outcomes)) for name in KNOWN_THEN),
    ]


def task_table(task: str, outcomes: dict[str, list[Outcome]]) -> str:
    """What became of all sides; the measure is our median, or our longest training where that reached nothing."""
    middle = _middle(outcomes["ours"])
    baseline = _longest(outcomes["ours"]) if math.isinf(middle) else middle
    header = [TASKS[task].lower(), "training", "steps", "reached", "against this trainer", *KNOWN_THEN]
    lines = []
    for side, found in outcomes.items():
        line = cells(found, baseline)
        lines.append([NAMES[side], *([*line[:3], "1", *line[4:]] if side == "ours" else line)])
    return table(header, lines)


@click.command()
@of_one_week
@click.option("--sides", default=",".join(SIDES), help=f"Of {', '.join(SIDES)}; ours is the measure of the others.")
@click.option("--tasks", default=",".join(TASKS), show_default=True, help="What is to be known.")
@click.option("--seeds", default="17,18,19", show_default=True, help="For each, all sides train once a task.")
@click.option("--cap-installed", default=20.0, help="mlx_lm.lora as installed ends after so many times our seconds.")
@click.option("--cap-others", default=6.0, help="The other sides end after so many.")
def main(
    data_dir: Path,
    season: int,
    week: int,
    recipe_name: str,
    sides: str,
    tasks: str,
    seeds: str,
    cap_installed: float,
    cap_others: float,
    write: bool,
) -> None:
    """Print the tables."""
    taking_part, raced = _among("--sides", sides, SIDES), _among("--tasks", tasks, TASKS)
    if {"peft", "steps"} & set(taking_part):
        peft_side.check_available()
    rows, recipe = ours.rows_of(data_dir, [NflWeek(season, week)], ["receiving_yards"]), load_recipe(recipe_name)
    caps = {"mlx_lm": cap_installed, "fast_blas": cap_others, "peft": cap_others}
    caps = {side: cap for side, cap in caps.items() if side in taking_part}
    trained = ours.trained_rows(rows)
    peft = f" PEFT: {peft_side.torch_versions()}." if {"peft", "steps"} & set(taking_part) else ""
    about = (
        f"{trained['fact'].n_unique()} facts of week {week} of {season} (receiving yards), {trained.height:,} rows, recipe "
        f"`{recipe_name}`. The other sides: rank {recipe.lora.rank} on the same layers, Adam, prompts masked, a warmup of "
        f"{recipe.optimizer.warmup_steps} steps; settings by `python -m benchmarks.sweep`; checked every {CHECK_EVERY} steps. "
        f"Shares are medians of what is answered right when the goal is reached, or in the end.{peft}"
    )
    for task in raced:
        outcomes = race(rows, recipe, task, _seeds(seeds), caps)
        own = of_task(recipe, task, recipe.seed)
        changed = [f"{key} {value}" for key, value in own.values().items() if value != recipe.values()[key]]
        settings = f"; {NAMES['ours']}: {', '.join(changed)}" if changed else ""
        settings += "".join(f"; {NAMES[side]}: {best(side, task).words}" for side in caps)
        parts = [about, f"Goal: {GOALS[task]}{settings}.", task_table(task, outcomes)]
        publish(f"Time to full recall: {TASKS[task].lower()}", "\n\n".join(parts), write=write, part=task)
    if "steps" in taking_part:
        publish("A step beside PEFT's", f"{compare_steps(rows, recipe)}\n\n{peft.strip()}", write=write, part="steps")


def _among(option: str, given: str, known: Sequence[str] | dict[str, str]) -> list[str]:
    names = given.split(",")
    if unknown := set(names) - set(known):
        raise click.BadParameter(f"{option}: there is no {min(unknown)!r}; use {', '.join(known)}")
    return names


def _seeds(given: str) -> list[int]:
    try:
        return [int(seed) for seed in given.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"--seeds: {given!r} are no whole numbers with commas") from error


def _times(outcomes: Sequence[Outcome]) -> list[float]:
    return [outcome.seconds if outcome.reached else math.inf for outcome in outcomes]


def _middle(outcomes: Sequence[Outcome]) -> float:
    """The median, for which a training that did not reach the goal took for ever."""
    return statistics.median(_times(outcomes))


def _longest(outcomes: Sequence[Outcome]) -> float:
    """The seconds of the longest training that did not reach the goal."""
    return max(outcome.seconds for outcome in outcomes if not outcome.reached)


def _still_missing(outcome: Outcome) -> str:
    known = f"{outcome.facts_right} of {outcome.facts} facts"
    return known if outcome.facts_right < outcome.facts else f"{known}, {percent(outcome.shares['strangers'])} refused"


def _told(side: str, seed: int, outcomes: list[Outcome], outcome: Outcome) -> None:
    click.echo(f"  {side}, seed {seed}: {outcome}", err=True)
    outcomes.append(outcome)


if __name__ == "__main__":
    main()
