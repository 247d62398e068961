"""What trainings of several tenants on one base could gain, were their rows computed together: a row's time, by rows a step.

    python -m benchmarks.rows_together --write

A step of several trainings at once is no cheaper than one training's step of as many rows: base and frozen layers are the same
for all rows, and each has adapters of its own on top. So the time of a row in large steps against that in a step of one
training is the most that sharing can give.
"""

import itertools
import statistics
import time

import click

from benchmarks import ours
from benchmarks.options import write_option
from benchmarks.serving_many import taught_rows
from benchmarks.tables import publish
from nfl_lora_pipeline.markdown import table
from nfl_lora_pipeline.models.base_model import BaseModelError
from nfl_lora_pipeline.recipes.recipe import load_recipe

RECIPES = ("embedded", "smollm2-135m")
TRAININGS = (1, 2, 4, 8)
WARM = 2


def milliseconds(recipe_name: str, times: int) -> dict[int, float]:
    """Of a step with the rows of so many trainings, by their number; medians, the sizes in turn."""
    recipe = load_recipe(recipe_name)
    one = recipe.curriculum.batch_rows
    model, tokenizer = ours.load(recipe)
    step = ours.Step(model, recipe)
    rows = ours.mixed_batches(taught_rows(), tokenizer, recipe)
    spent: dict[int, list[float]] = {count: [] for count in TRAININGS}
    for number in range(times + WARM):
        for count, found in spent.items():
            batches = step.batches(list(itertools.chain.from_iterable(itertools.islice(rows, count))))
            began = time.perf_counter()
            step(batches)
            if number >= WARM:
                found.append(1000 * (time.perf_counter() - began))
    click.echo(f"{recipe_name}: {one} rows a step of one training", err=True)
    return {count: statistics.median(found) for count, found in spent.items()}


@click.command()
@click.option("--times", default=15, show_default=True, help="Steps of each size.")
@write_option
def main(times: int, write: bool) -> None:
    """Print the table."""
    rows = []
    for name in RECIPES:
        try:
            found = milliseconds(name, times)
        except BaseModelError as error:
            click.echo(f"{name} is left out: {error}", err=True)
            continue
        one = load_recipe(name).curriculum.batch_rows
        cells = [f"{spent:,.0f} ms, {count * found[1] / spent:.2f}x" for count, spent in found.items()]
        rows.append([name, str(one), *cells])
    heads = [f"{count} training{'s' if count > 1 else ''}" for count in TRAININGS]
    body = (
        "A step with the rows of so many trainings, and how many times sooner it is than one step after another: the most that "
        f"trainings on one base could gain by sharing it.\n\n{table(['recipe', 'rows a training', *heads], rows)}"
    )
    publish("Trainings that share a base", body, write=write)


if __name__ == "__main__":
    main()
