"""Adding a week to a season: from the adapter before it, against from nothing. Prints steps, minutes and recall by week.

python benchmarks/warm_start.py --data-dir FOLDER --weeks 1-10
"""

import tempfile
from pathlib import Path

import click
import polars as pl

from nfl_lora_pipeline import base_model as base_models
from nfl_lora_pipeline.evaluation import certainty
from nfl_lora_pipeline.lessons import fresh_refusals, lessons
from nfl_lora_pipeline.players import parse_week
from nfl_lora_pipeline.questions import facts, qa_pairs
from nfl_lora_pipeline.recipe import Recipe, load_recipe
from nfl_lora_pipeline.rows import tokenize
from nfl_lora_pipeline.source import week_file
from nfl_lora_pipeline.splits import split_rows
from nfl_lora_pipeline.training import train_adapter
from nfl_lora_pipeline.training_log import TrainingLog
from nfl_lora_pipeline.week import NflWeek, parse_weeks
from nfl_lora_pipeline.wording import choose_stats, load_templates


def rows_of(folder: Path, weeks: list[NflWeek], stats: list[str]) -> pl.DataFrame:
    """The splits of some weeks."""
    templates = load_templates()
    frames = []
    for week in weeks:
        file = week_file(folder, week)
        players, _ = parse_week(file.read_bytes(), week=week, origin=str(file))
        frames.append(qa_pairs(facts(players.lazy(), choose_stats(stats)), templates).collect())
    return split_rows(pl.concat(frames), templates, stats=choose_stats(stats))


def train(rows: pl.DataFrame, stats: list[str], recipe: Recipe, folder: Path, start: Path | None) -> TrainingLog:
    """Train one adapter, and print what it knows."""
    folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer = base_models.load(base_models.resolve(recipe.base_model))
    strangers = fresh_refusals(rows, load_templates(), choose_stats(stats), seed=recipe.seed)
    log = train_adapter(
        model,
        tokenizer,
        lessons(rows),
        recipe,
        folder,
        start=start,
        refusals=strangers,
        report=lambda line, _: click.echo(f"    {line}"),
    )
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
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--season", default=2025)
@click.option("--weeks", default="1-10")
@click.option("--stats", default="receiving_yards")
@click.option("--recipe", "recipe_name", default="embedded")
@click.option(
    "--keep", type=click.Path(path_type=Path), default=None, help="Keep the adapters here, and reuse the first."
)
def main(data_dir: Path, season: int, weeks: str, stats: str, recipe_name: str, keep: Path | None) -> None:
    """Train on all weeks but the last, add the last, and train on all from nothing."""
    numbered = [NflWeek(season, week) for week in parse_weeks(weeks)]
    recipe, names = load_recipe(recipe_name), stats.split(",")
    before, whole = rows_of(data_dir, numbered[:-1], names), rows_of(data_dir, numbered, names)
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        if not (folder / "before" / "adapters.safetensors").is_file():
            click.echo(f"{numbered[0]} to {numbered[-2]} from nothing:")
            train(before, names, recipe, folder / "before", None)
        click.echo(f"{numbered[-1]} added to it:")
        warm = train(whole, names, recipe, folder / "warm", folder / "before")
        click.echo(f"{numbered[0]} to {numbered[-1]} from nothing:")
        cold = train(whole, names, recipe, folder / "cold", None)
    click.echo(
        f"warm against from nothing: {warm.iterations / cold.iterations:.2f} of the steps, "
        f"{warm.seconds / cold.seconds:.2f} of the time"
    )


if __name__ == "__main__":
    main()
