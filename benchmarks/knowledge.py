"""What an adapter knows and what it makes up, by every gate of its recipe, over several seeds. Writes docs/knowledge.md.

    python -m benchmarks.knowledge --data-dir DIR --write

For each seed the command itself is run, `nfl-lora run`, into a store of its own, and the report that it writes is read; so the
seconds are those from command to report. The figure of a gate is the worst of its groups in that run.
"""

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.judged_runs import JudgedRun, finished, note, part_of, run
from benchmarks.options import of_weeks
from benchmarks.tables import DOCUMENT, publish
from nfl_lora_pipeline.evaluation.gates import GATES
from nfl_lora_pipeline.markdown import Markup, table
from nfl_lora_pipeline.recipes.recipe import as_yaml, load_recipe

KNOWLEDGE = DOCUMENT.with_name("knowledge.md")
HEADING = """# What it knows, and what it makes up

Each cell is the figure of one gate: the share of questions, in the worst of the groups that the gate looks at. A gate that is
missed keeps the adapter from being promoted, unless the recipe's `advisory` names it.
"""


def run_with(
    seed: int, folder: Path, recipe_name: str, data_dir: Path, *, season: int, weeks: str, stats: str
) -> JudgedRun:
    """Run the command into a store of its own in a folder, with a recipe's seed changed; what was run there is read."""
    part = part_of(recipe_name, weeks, stats, str(seed))
    file, recipe = folder / f"{part}.jsonl", folder / f"{part}.yaml"
    if not finished(file):
        recipe.write_text(as_yaml(load_recipe(recipe_name).changed(seed=seed)), encoding="utf-8")
        note(run(folder / part, str(recipe), data_dir, season=season, weeks=weeks, stats=stats), file)
    return finished(file)[0]


def as_table(runs: Sequence[JudgedRun], seeds: Sequence[int], recipe_name: str) -> str:
    """A row a gate, a column a seed."""
    recipe, lines = load_recipe(recipe_name), []
    for name, rule in GATES.items():
        found = [of.figures[name] for of in runs]
        judged = [figure.passed for figure in found if figure.passed is not None]
        met = "not judged" if not judged else "yes" if all(judged) else Markup("**no**")
        cells = ["not judged" if figure.share is None else f"{figure.share:.1%}" for figure in found]
        limit = rule.of(recipe)
        lines.append([name, rule.description, "" if limit is None else f"{limit:.1%}", *cells, met])
    head = ["gate", "its figure", "limit", *(f"seed {seed}" for seed in seeds), "met by all"]
    spent = [f"{statistics.median(of.seconds for of in runs):.0f} s from command to report"]
    spent += [f"{statistics.median(of.training for of in runs):.0f} s of training"]
    spent += [f"{statistics.median(of.steps for of in runs):.0f} steps (medians)"]
    return f"{table(head, lines)}\n\n{', '.join(spent)}."


@click.command()
@of_weeks("1")
@click.option("--seeds", default="17,18,19", show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the stores here, and run what is missing alone.")
@click.option("--write", is_flag=True, help="Renew the section in docs/knowledge.md.")
def main(
    data_dir: Path,
    season: int,
    weeks: str,
    stats: str,
    recipe_name: str,
    seeds: str,
    keep: Path | None,
    *,
    write: bool,
) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        numbers = [int(seed) for seed in seeds.split(",")]
        runs = []
        for seed in numbers:
            runs.append(run_with(seed, folder, recipe_name, data_dir, season=season, weeks=weeks, stats=stats))
            missed = [name for name, figure in runs[-1].figures.items() if figure.passed is False]
            click.echo(f"  seed {seed}: {runs[-1].seconds:.0f} s, missed: {', '.join(missed) or 'nothing'}", err=True)
    title = f"Recipe {recipe_name}, weeks {weeks} of {season}, {stats}"
    part = part_of(recipe_name, weeks, stats)
    publish(title, as_table(runs, numbers, recipe_name), write=write, part=part, document=KNOWLEDGE, heading=HEADING)


if __name__ == "__main__":
    main()
