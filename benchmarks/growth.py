"""How time to full recall and peak memory grow with the number of facts, on real weeks and all stats.

    python -m benchmarks.growth --data-dir FOLDER --sizes 100,300,1000,3000,10000

Every size is trained in a process of its own, whose peak memory is the system's figure. The facts are drawn by the hash
that orders the rows, from as few weeks as hold so many. The largest size takes ten minutes or more.
"""

import io
import json
import math
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import polars as pl

from benchmarks import ours
from benchmarks.options import data_dir_option, recipe_option, season_option
from benchmarks.tables import DOCUMENT, publish
from nfl_lora_pipeline.dataset.templates import choose_stats
from nfl_lora_pipeline.files import replace_file
from nfl_lora_pipeline.markdown import table
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.weeks.week import NflWeek

PICTURE = DOCUMENT.with_name("growth.png")


def some_facts(data_dir: Path, weeks: list[NflWeek], size: int) -> pl.DataFrame:
    """The splits of so many facts, from as few of the weeks as hold them."""
    stats = list(choose_stats(["all"]))
    for count in range(1, len(weeks) + 1):
        rows = ours.rows_of(data_dir, weeks[:count], stats)
        facts = ours.trained_rows(rows)["fact"].unique(maintain_order=True)
        if len(facts) >= size:
            return rows.filter(pl.col("fact").is_in(facts.head(size).implode()) | (pl.col("kind") == "stranger"))
    raise click.UsageError(f"{len(weeks)} weeks hold {len(facts):,} facts, not {size:,}: name more with --weeks")


def train(data_dir: Path, weeks: list[NflWeek], size: int, recipe_name: str) -> dict[str, Any]:
    """Train on so many facts in this process."""
    rows = some_facts(data_dir, weeks, size)
    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer, log = ours.learn(
            rows, load_recipe(recipe_name), Path(folder), report=lambda line: click.echo(f"  {line}", err=True)
        )
    found = ours.recall(model, tokenizer, ours.trained_rows(rows))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"facts": found.facts, "right": found.facts_right, "seconds": log.seconds, "steps": log.iterations} | {
        "rows": found.rows,
        "peak_bytes": peak,
    }


def picture(results: list[dict[str, Any]]) -> None:
    """Seconds and memory over facts, both axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    facts = [result["facts"] for result in results]
    seconds = [result["seconds"] for result in results]
    mebibytes = [result["peak_bytes"] / 2**20 for result in results]
    labels = {"seconds to full recall": seconds, "peak memory, MiB": mebibytes}
    for axes, (label, values) in zip(figure.subplots(1, 2), labels.items(), strict=True):
        axes.loglog(facts, values, marker="o")
        axes.set(xlabel="facts, in six phrasings each", ylabel=label)
        axes.grid(visible=True, which="both", alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    replace_file(PICTURE, buffer.getvalue())


def slope(results: list[dict[str, Any]]) -> float:
    """The exponent with which seconds grow with facts, by least squares of the logarithms."""
    points = [(math.log(result["facts"]), math.log(result["seconds"])) for result in results]
    middle_x, middle_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / sum((x - middle_x) ** 2 for x, _ in points)


@click.command()
@data_dir_option
@season_option
@click.option("--weeks", "last_week", default=9, help="Weeks 1 to this are taken as needed.")
@click.option("--sizes", default="100,300,1000,3000,10000")
@recipe_option
@click.option("--only", type=int, hidden=True, help="Train on so many facts here, and print JSON.")
@click.option("--write", is_flag=True, help="Renew the section in docs/benchmarks.md, and docs/growth.png.")
def main(
    data_dir: Path, season: int, last_week: int, sizes: str, recipe_name: str, only: int | None, write: bool
) -> None:
    """Print the table."""
    if only:
        weeks = [NflWeek(season, week) for week in range(1, last_week + 1)]
        click.echo(json.dumps(train(data_dir, weeks, only, recipe_name)))
        return
    results = []
    for size in sizes.split(","):
        command = [sys.executable, "-m", "benchmarks.growth", *sys.argv[1:], "--only", size]
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        results.append(json.loads(said))
        click.echo(f"  {results[-1]}", err=True)
    lines = [
        [
            f"{result['facts']:,}",
            f"{result['rows']:,}",
            f"{result['right']:,}",
            f"{result['steps']:,}",
            f"{result['seconds']:,.0f} s",
            f"{result['peak_bytes'] / 2**20:,.0f} MiB",
        ]
        for result in results
    ]
    body = table(["facts", "rows", "facts exact in all phrasings", "steps", "training", "peak memory"], lines)
    if len(results) > 1:
        body += f"\n\nSeconds grow with facts to the power of {slope(results):.2f}."
    if write:
        picture(results)
        body += f"\n\n![Seconds and memory over facts]({PICTURE.name})"
    publish(f"Growth with the number of facts (recipe `{recipe_name}`)", body, write=write)


if __name__ == "__main__":
    main()
