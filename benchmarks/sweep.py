"""What suits the other trainers best: each of some settings once, to the goal, to the end of its schedule or of its time.

    python -m benchmarks.sweep --data-dir FOLDER --side peft --task facts

The best belongs into `BEST` of `benchmarks/opponents.py`, where the settings stand too.
"""

from pathlib import Path

import click

from benchmarks import opponents, ours, peft_side
from benchmarks.judging import Outcome
from benchmarks.opponents import SWEPT_AS, TASKS
from benchmarks.options import data_dir_option, recipe_option, season_option
from benchmarks.races import run_opponent
from nfl_lora_pipeline.markdown import percent
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.weeks.week import NflWeek

SIDES = sorted(set(SWEPT_AS.values()))


def line(name: str, outcome: Outcome) -> str:
    """What came of some settings."""
    full = "never" if outcome.first_full is None else f"after {outcome.first_full:,.1f} s"
    goal = "goal reached" if outcome.reached else "goal not reached"
    return (
        f"{name}: all facts right {full}; {goal} after {outcome.seconds:,.1f} s and {outcome.steps:,} steps, "
        f"{outcome.facts_right} of {outcome.facts} facts, {percent(outcome.shares['strangers'])} of the strangers refused"
    )


@click.command()
@data_dir_option
@season_option
@click.option("--week", default=1, show_default=True)
@recipe_option
@click.option("--side", type=click.Choice(SIDES), required=True)
@click.option("--task", type=click.Choice(list(TASKS)), required=True)
@click.option("--settings", "names", help="Names of some settings, with commas; all where left out.")
@click.option("--seconds", default=900.0, show_default=True, help="Of training, for each settings.")
def main(
    data_dir: Path, season: int, week: int, recipe_name: str, side: str, task: str, names: str | None, seconds: float
) -> None:
    """Print a line for each settings, and the fastest that reached the goal."""
    try:
        tried = opponents.chosen(side, task, names)
    except ValueError as error:
        raise click.BadParameter(f"--settings: {error}") from error
    if side == "peft":
        peft_side.check_available()
    rows, recipe = ours.rows_of(data_dir, [NflWeek(season, week)], ["receiving_yards"]), load_recipe(recipe_name)
    reached: dict[str, float] = {}
    for settings in tried:
        outcome = run_opponent(side, rows, recipe, task, settings, seconds=seconds)
        click.echo(line(settings.name, outcome))
        if outcome.reached:
            reached[settings.name] = outcome.seconds
    click.echo(f"best: {min(reached, key=lambda name: reached[name])}" if reached else "best: none reached the goal")


if __name__ == "__main__":
    main()
