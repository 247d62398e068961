"""What each part of the trainer gives: from a plain trainer to this one, a part at a time, and each part taken out of it.

    python -m benchmarks.ablations --data-dir FOLDER

Each variant is a recipe. Steps and shares do not depend on how busy the machine is; seconds do.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import click
import polars as pl

from benchmarks import ours
from benchmarks.options import of_one_week
from benchmarks.tables import publish
from nfl_lora_pipeline.markdown import table
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.weeks.week import NflWeek


class Variant(NamedTuple):
    """A recipe that differs in some keys from the shipped one."""

    name: str
    recipe: dict[str, Any] = {}


PLAIN: dict[str, Any] = {
    "safe_above": 0.9999,  # all is in doubt: every fact has its turn
    "known_above": 1.0,
    "schedule": "linear",
    "max_steps": 400,
    "ending_steps": 1,
    "check_every": 400,
}
RUNGS: list[tuple[str, dict[str, Any]]] = [
    ("a plain trainer: every fact in turn, linear decay over 400 steps", {}),
    ("+ loss on what is not known yet alone", {"known_above": 0.95}),
    ("+ what is in doubt more often", {"safe_above": 0.9}),
    ("+ checks, which say what is in doubt and when to end", {"check_every": 16, "ending_steps": 100}),
    ("+ the way down begins when nearly all is known", {"schedule": "wsd", "max_steps": 12000}),
]
LADDER = [
    Variant(name, PLAIN | {key: value for _, changes in RUNGS[: rung + 1] for key, value in changes.items()})
    for rung, (name, _) in enumerate(RUNGS)
]
TAKEN_OUT = [
    Variant("every fact in turn, known or not", {"safe_above": 0.9999}),
    Variant("loss on known tokens too", {"known_above": 1.0}),
    Variant("nothing known is shown again", {"replay_share": 0.0}),
    Variant("linear decay over 320 steps", {"schedule": "linear", "max_steps": 320}),
    Variant("constant learning rate", {"schedule": "constant"}),
    Variant("no questions about known players elsewhere", {"elsewhere_share": 0.0}),
    Variant("no questions without an answer", {"refusal_share": 0.0}),
    Variant("rank 8, with as large an update", {"rank": 8}),
]
VARIANTS = [Variant("as shipped"), *LADDER, *TAKEN_OUT]


def train(rows: pl.DataFrame, variant: Variant, recipe_name: str, seed: int) -> dict[str, float]:
    """One training and what it came to, as figures by column."""
    recipe = load_recipe(recipe_name).changed(seed=seed, **variant.recipe)
    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer, log = ours.learn(rows, recipe, Path(folder))
    return {
        "steps": log.iterations,
        "seconds": log.seconds,
        "certain": 1 - len(log.uncertain) / log.facts,
        **ours.shares_right(model, tokenizer, rows),
    }


@click.command()
@of_one_week
@click.option("--times", default=3, show_default=True, help="Trainings of each, from as many seeds; their mean counts.")
@click.option("--only", default="", help="Variants whose name has this in it.")
def main(data_dir: Path, season: int, week: int, recipe_name: str, times: int, only: str, write: bool) -> None:
    """Print the table."""
    rows = ours.rows_of(data_dir, [NflWeek(season, week)], ["receiving_yards"])
    seed = load_recipe(recipe_name).seed
    lines, columns = [], []
    for variant in (variant for variant in VARIANTS if only in variant.name):
        found = [train(rows, variant, recipe_name, seed + number) for number in range(times)]
        means = {column: statistics.mean(each[column] for each in found) for column in found[0]}
        click.echo(f"  {variant.name}: {means}", err=True)
        steps, seconds, *shares = means.values()
        columns = list(means)
        lines.append([variant.name, f"{steps:,.0f}", f"{seconds:,.0f}", *(f"{share:.1%}" for share in shares)])
    body = (
        f"Week {week} of {season}, receiving yards, recipe `{recipe_name}`, means of {times} seeds. Steps until training ended "
        "by itself or by its budget; facts certain in all trained phrasings; then the shares of questions answered right, for "
        "those without an answer the refusals. The rows that begin with + are a plain trainer with one part more each; the "
        "others are the shipped recipe with one part less."
    )
    publish("What each part gives", f"{body}\n\n{table(['', *columns], lines)}", write=write)


if __name__ == "__main__":
    main()
