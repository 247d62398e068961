"""Seconds of training until every fact of a week is answered exactly in every trained phrasing, against other trainers.

    python -m benchmarks.time_to_recall --data-dir FOLDER

The sides learn the same rows on the same base with the same rank: this trainer (its checks and its refusals of strangers
counted); `mlx_lm.lora` as installed, and with the fast BLAS loaded first; HF PEFT on torch (`make bench-setup`). The others'
checks are not counted. Ours is trained before, between and after the others. Then the same batches go through a step of ours
and a step of PEFT's in turn.
"""

import itertools
import statistics
import tempfile
from pathlib import Path
from typing import NamedTuple

import click
import polars as pl

from benchmarks import mlx_lm_side, ours, peft_side
from benchmarks.options import of_one_week
from benchmarks.steps_in_turn import compare_steps
from benchmarks.tables import median_and_range, publish
from nfl_lora_pipeline.models.rows import tokenize
from nfl_lora_pipeline.reports.markdown import Markup, table
from nfl_lora_pipeline.tuning.recipe import Recipe, load_recipe
from nfl_lora_pipeline.weeks.week import NflWeek

SIDES = ("ours", "mlx_lm", "fast_blas", "peft", "steps")
NAMES = {
    "mlx_lm": Markup("`mlx_lm.lora` as installed"),
    "fast_blas": Markup("`mlx_lm.lora`, fast BLAS on one thread"),
    "peft": "HF PEFT on torch",
}
SAMPLE = 8  # a checkpoint is judged by one row in so many first


class Outcome(NamedTuple):
    """When all facts were known, or how many were known in the end."""

    seconds: float
    steps: int
    facts_right: int
    facts: int

    @property
    def reached(self) -> bool:
        """Whether all were."""
        return self.facts_right == self.facts

    def cells(self, baseline: float) -> list[str]:
        """Time, steps and ratio for the table."""
        ratio = self.seconds / baseline
        if self.reached:
            return [f"{self.seconds:,.0f} s", f"{self.steps:,}", f"{ratio:.1f}x"]
        known = f"{self.facts_right} of {self.facts} facts"
        return [f"not reached after {self.seconds:,.0f} s ({known})", f"{self.steps:,}", f"at least {ratio:.0f}x"]


def train_ours(rows: pl.DataFrame, recipe: Recipe, seed: int) -> Outcome:
    """This trainer."""
    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer, log = ours.learn(rows, recipe.model_copy(update={"seed": seed}), Path(folder))
    found = ours.recall(model, tokenizer, ours.trained_rows(rows))
    return _told("ours", Outcome(log.seconds, log.iterations, found.facts_right, found.facts))


def first_full(rows: pl.DataFrame, recipe: Recipe, folder: Path, found: list[mlx_lm_side.Checkpoint]) -> Outcome:
    """The first checkpoint that knows everything, else the last."""
    model, tokenizer = ours.load(recipe, folder)
    for checkpoint in found:
        model.load_weights(str(checkpoint.file), strict=False)
        if ours.recall(model, tokenizer, rows.gather_every(SAMPLE)).full or checkpoint is found[-1]:
            known = ours.recall(model, tokenizer, rows)
            if known.full or checkpoint is found[-1]:
                break
    return Outcome(checkpoint.seconds, checkpoint.steps, known.facts_right, known.facts)


def train_mlx_lm(
    rows: pl.DataFrame, recipe: Recipe, settings: mlx_lm_side.Settings, *, seconds: float, fast_blas: bool
) -> Outcome:
    """`mlx_lm.lora` for so many seconds."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        found = mlx_lm_side.train(rows, recipe, folder, settings, seconds=seconds, fast_blas=fast_blas)
        if not found:
            raise RuntimeError(f"mlx_lm.lora wrote no checkpoint in {seconds:.0f} s; use a smaller --save-every")
        return first_full(rows, recipe, folder / "adapter", found)


def train_peft(rows: pl.DataFrame, recipe: Recipe, learning_rate: float, seconds: float) -> Outcome:
    """PEFT in an ordinary loop."""
    facts = rows["fact"].to_list()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.npz"
        peft_side.write_rows(file, tokenize(ours.load(recipe)[1], rows.select("question", "answer").rows()), facts)
        check: dict[str, float] = {}
        for check in peft_side.learn(file, recipe, seconds=seconds, learning_rate=learning_rate, check_every=50):
            click.echo(f"  PEFT: {check}", err=True)
    return Outcome(check["seconds"], int(check["steps"]), int(check["facts_right"]), len(set(facts)))


def in_turn(
    rows: pl.DataFrame, recipe: Recipe, settings: mlx_lm_side.Settings, caps: dict[str, float], times: int
) -> tuple[list[Outcome], dict[str, Outcome]]:
    """Ours from different seeds, and between them the other sides, each for so many times our seconds at most."""
    trained, seeds = ours.trained_rows(rows), iter(range(recipe.seed, recipe.seed + times))
    outcomes, others = [train_ours(rows, recipe, next(seeds))], {}
    for side, cap in caps.items():
        seconds = cap * statistics.median(outcome.seconds for outcome in outcomes)
        if side == "peft":
            others[side] = train_peft(trained, recipe, settings.learning_rate, seconds)
        else:
            others[side] = train_mlx_lm(trained, recipe, settings, seconds=seconds, fast_blas=side == "fast_blas")
        _told(side, others[side])
        outcomes += [train_ours(rows, recipe, seed) for seed in itertools.islice(seeds, 1)]
    return outcomes + [train_ours(rows, recipe, seed) for seed in seeds], others


@click.command()
@of_one_week
@click.option("--sides", default=",".join(SIDES), help=f"Of {', '.join(SIDES)}; ours is the measure of the others.")
@click.option(
    "--times", default=3, help="Trainings of ours, before, between and after the others; their median counts."
)
@click.option("--cap-installed", default=20.0, help="mlx_lm.lora as installed ends after so many times our seconds.")
@click.option("--cap-others", default=6.0, help="The other sides end after so many.")
@click.option("--learning-rate", default=mlx_lm_side.Settings().learning_rate, help="Of the other sides.")
@click.option("--batch-rows", default=mlx_lm_side.Settings().batch_rows, help="Of mlx_lm.lora: it never shows a rest.")
@click.option("--save-every", default=mlx_lm_side.Settings().save_every, help="Of mlx_lm.lora, in steps.")
def main(
    data_dir: Path,
    season: int,
    week: int,
    recipe_name: str,
    sides: str,
    times: int,
    cap_installed: float,
    cap_others: float,
    learning_rate: float,
    batch_rows: int,
    save_every: int,
    write: bool,
) -> None:
    """Print the tables."""
    chosen, recipe = sides.split(","), load_recipe(recipe_name)
    if unknown := set(chosen) - set(SIDES):
        raise click.BadParameter(f"--sides: no side {min(unknown)!r}; use {', '.join(SIDES)}")
    if {"peft", "steps"} & set(chosen) and not peft_side.available():
        raise click.UsageError("the PEFT side needs an environment of its own: run `make bench-setup` first")
    rows = ours.rows_of(data_dir, [NflWeek(season, week)], ["receiving_yards"])
    settings = mlx_lm_side.Settings(learning_rate, batch_rows, save_every)
    caps = {"mlx_lm": cap_installed, "fast_blas": cap_others, "peft": cap_others}
    outcomes, others = in_turn(rows, recipe, settings, {side: caps[side] for side in NAMES if side in chosen}, times)
    baseline = statistics.median(outcome.seconds for outcome in outcomes)
    lines = [_our_line(outcomes, baseline), *([NAMES[side], *found.cells(baseline)] for side, found in others.items())]
    facts, count = outcomes[0].facts, ours.trained_rows(rows).height
    parts = [
        f"{facts} facts of week {week} of {season} (receiving yards), {count:,} rows, recipe `{recipe_name}`; "
        f"the other sides: rank {recipe.rank} on the same layers, Adam, learning rate {learning_rate:g}, prompts masked, "
        f"{batch_rows} rows a batch in mlx-lm ({count % batch_rows} never shown), {recipe.batch_rows} in PEFT.",
        table([f"{facts} of {facts} facts exact", "training", "steps", "against this trainer"], lines),
    ]
    if "steps" in chosen:
        parts.append(compare_steps(rows, recipe) + f"\n\nPEFT: {peft_side.torch_versions()}.")
    publish("Time to full recall", "\n\n".join(parts), write=write)


def _our_line(outcomes: list[Outcome], baseline: float) -> list[str]:
    if all(outcome.reached for outcome in outcomes):
        steps = statistics.median(outcome.steps for outcome in outcomes)
        return ["this trainer", median_and_range([o.seconds for o in outcomes], "s"), f"{steps:,.0f}", "1"]
    worst = min(outcomes, key=lambda outcome: outcome.facts_right)
    return ["this trainer", *worst.cells(baseline)]


def _told(side: str, outcome: Outcome) -> Outcome:
    click.echo(f"  {side}: {outcome}", err=True)
    return outcome


if __name__ == "__main__":
    main()
