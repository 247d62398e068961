"""Adding a week to a season: from the adapter before it, against from nothing. Prints steps, minutes and recall by week.

python -m benchmarks.warm_start --data-dir FOLDER --weeks 1-10
"""

import tempfile
from pathlib import Path

import click
import polars as pl

from benchmarks import ours
from benchmarks.options import data_dir_option, recipe_option, season_option
from nfl_lora_pipeline.models.rows import tokenize
from nfl_lora_pipeline.models.scoring import certainty
from nfl_lora_pipeline.tuning.recipe import Recipe, load_recipe
from nfl_lora_pipeline.tuning.records import TrainingLog
from nfl_lora_pipeline.weeks.week import NflWeek, parse_weeks


def train(rows: pl.DataFrame, recipe: Recipe, folder: Path, start: Path | None) -> TrainingLog:
    """Train one adapter, and print what it knows."""
    model, tokenizer, log = ours.learn(rows, recipe, folder, start=start, report=lambda line: click.echo(f"    {line}"))
    click.echo(
        f"  {log.iterations} steps, {log.seconds / 60:.1f} minutes; "
        f"{log.facts - len(log.uncertain):,} of {log.facts:,} facts certain"
    )
    for split in ("train", "test"):
        asked = rows.filter(pl.col("split") == split, pl.col("kind") != "stranger")
        right = certainty(model, tokenize(tokenizer, asked.select("question", "answer").rows())).greedy
        by_week = asked.with_columns(right=pl.Series(right)).group_by("week").agg(pl.col("right").mean()).sort("week")
        shares = ", ".join(f"{week}: {share:.2%}" for week, share in by_week.iter_rows())
        click.echo(f"  recall by week, {'trained' if split == 'train' else 'held-out'} phrasings: {shares}")
    return log


@click.command()
@data_dir_option
@season_option
@click.option("--weeks", default="1-10")
@click.option("--stats", default="receiving_yards")
@recipe_option
@click.option(
    "--keep", type=click.Path(path_type=Path), default=None, help="Keep the adapters here, and reuse the first."
)
def main(data_dir: Path, season: int, weeks: str, stats: str, recipe_name: str, keep: Path | None) -> None:
    """Train on all weeks but the last, add the last, and train on all from nothing."""
    numbered = [NflWeek(season, week) for week in parse_weeks(weeks)]
    recipe, names = load_recipe(recipe_name), stats.split(",")
    before, whole = ours.rows_of(data_dir, numbered[:-1], names), ours.rows_of(data_dir, numbered, names)
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        if not (folder / "before" / "adapters.safetensors").is_file():
            click.echo(f"{numbered[0]} to {numbered[-2]} from nothing:")
            train(before, recipe, folder / "before", None)
        click.echo(f"{numbered[-1]} added to it:")
        warm = train(whole, recipe, folder / "warm", folder / "before")
        click.echo(f"{numbered[0]} to {numbered[-1]} from nothing:")
        cold = train(whole, recipe, folder / "cold", None)
    click.echo(
        f"warm against from nothing: {warm.iterations / cold.iterations:.2f} of the steps, "
        f"{warm.seconds / cold.seconds:.2f} of the time"
    )


if __name__ == "__main__":
    main()
