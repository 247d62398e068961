"""What each part of the trainer gives: a week learnt with all of them, and with one of them left out.

    python -m benchmarks.ablations --data-dir FOLDER

Steps and shares alone, no seconds: they are the same however busy the machine is.
"""

import contextlib
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import click
import polars as pl

from benchmarks import ours
from benchmarks.options import of_one_week
from benchmarks.tables import publish
from nfl_lora_pipeline.reports.markdown import table
from nfl_lora_pipeline.tuning import averaging, refusals, selection, training
from nfl_lora_pipeline.tuning.recipe import load_recipe
from nfl_lora_pipeline.weeks.week import NflWeek


class Variant(NamedTuple):
    """What is changed: attributes of modules or classes, and fields of the recipe."""

    name: str
    changed: Sequence[tuple[Any, str, Any]] = ()
    recipe: dict[str, Any] = {}


VARIANTS = [
    Variant("as shipped"),
    Variant("every row in every epoch, known or not", recipe={"every_row": True}),
    Variant("loss on known tokens too", [(training, "KNOWN_LOSS", -1.0)]),
    Variant("answers always whole", [(selection, "WHOLE_EVERY", 1)]),
    Variant("no moving average", [(averaging, "STAYS", 0.0)]),
    Variant("strangers not asked first", [(refusals, "HARD_SHARE", 0.0)]),
    Variant("no questions about known players elsewhere", recipe={"elsewhere_share": 0.0}),
    Variant("more of them: 0.25 of all without an answer", recipe={"elsewhere_share": 0.25}),
    Variant("no questions without an answer", recipe={"refusal_share": 0.0}),
    Variant("constant learning rate", recipe={"schedule": "constant"}),
    Variant("rank 8, with as large an update", recipe={"rank": 8}),
]


@contextlib.contextmanager
def without(variant: Variant) -> Iterator[None]:
    """The trainer as the variant has it."""
    with contextlib.ExitStack() as stack:
        for owner, name, value in variant.changed:
            stack.enter_context(patch.object(owner, name, value))
        yield


def train(rows: pl.DataFrame, variant: Variant, recipe_name: str, seed: int) -> dict[str, float]:
    """One training and what it came to, as figures by column."""
    recipe = load_recipe(recipe_name).model_copy(update={"seed": seed, **variant.recipe})
    with tempfile.TemporaryDirectory() as folder, without(variant):
        model, tokenizer, log = ours.learn(rows, recipe, Path(folder))
    return {
        "steps": log.iterations,
        "certain": 1 - len(log.uncertain) / log.facts,
        **ours.shares_right(model, tokenizer, rows),
    }


@click.command()
@of_one_week
@click.option("--times", default=2, help="Trainings of each, from as many seeds; their mean counts.")
def main(data_dir: Path, season: int, week: int, recipe_name: str, times: int, write: bool) -> None:
    """Print the table."""
    rows = ours.rows_of(data_dir, [NflWeek(season, week)], ["receiving_yards"])
    seed = load_recipe(recipe_name).seed
    lines, columns = [], []
    for variant in VARIANTS:
        found = [train(rows, variant, recipe_name, seed + number) for number in range(times)]
        means = {column: statistics.mean(each[column] for each in found) for column in found[0]}
        click.echo(f"  {variant.name}: {means}", err=True)
        steps, *shares = means.values()
        columns = list(means)
        lines.append([variant.name, f"{steps:,.0f}", *(f"{share:.1%}" for share in shares)])
    body = (
        f"Week {week} of {season}, receiving yards, recipe `{recipe_name}`, means of {times} seeds. Steps until training ended "
        "by itself or by its budget; facts certain in all trained phrasings; then the shares of questions answered right, for "
        "those without an answer the refusals."
    )
    publish("What each part gives", f"{body}\n\n{table(['', *columns], lines)}", write=write)


if __name__ == "__main__":
    main()
