"""One training of any side towards a goal, and when it got there: seconds of training alone, no check is counted."""

import itertools
import tempfile
from pathlib import Path
from typing import Any

import click
import polars as pl

from benchmarks import mlx_lm_side, ours, peft_side
from benchmarks.judging import Judge, Outcome, outcome_of
from benchmarks.opponents import BOTH, CHECK_EVERY, Settings
from nfl_lora_pipeline.models.rows import tokenize
from nfl_lora_pipeline.recipes.recipe import Recipe

MORE_REFUSALS: dict[str, Any] = {"refusal_share": 0.6, "max_epochs": 20}
FRESH_REFUSALS = 6000  # rows of refusals that PEFT is given, in the order in which they are drawn


def of_task(recipe: Recipe, task: str, seed: int) -> Recipe:
    """The recipe of this trainer for a task: as it is shipped, and with more refusals where 95% are to be refused."""
    return recipe.changed(seed=seed, **(MORE_REFUSALS if task == BOTH else {}))


def run_ours(rows: pl.DataFrame, recipe: Recipe, task: str) -> Outcome:
    """This trainer, which ends by itself: its own checks, and its own refusals, are in its time."""
    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer, log = ours.learn(rows, recipe, Path(folder))
    return outcome_of(model, tokenizer, rows, task, log.seconds, log.iterations)


def run_opponent(
    side: str, rows: pl.DataFrame, recipe: Recipe, task: str, settings: Settings, *, seconds: float
) -> Outcome:
    """Another side until it reaches the goal, its schedule ends or it has trained for so many seconds."""
    if side == "peft":
        return run_peft(rows, recipe, task, settings, seconds=seconds)
    return run_mlx_lm(rows, recipe, task, settings, seconds=seconds, fast_blas=side == "fast_blas")


def with_refusals(rows: pl.DataFrame, recipe: Recipe, share: float) -> pl.DataFrame:
    """`question` and `answer` of the train split, and after them as many refusals as are this share of all."""
    taught = ours.trained_rows(rows).select("question", "answer")
    count = round(taught.height * share / (1 - share))
    if not count:
        return taught
    drawn = list(itertools.islice(ours.strangers(rows, recipe), count))
    return pl.concat([taught, pl.DataFrame(drawn, schema=taught.columns, orient="row")])


def run_mlx_lm(
    rows: pl.DataFrame, recipe: Recipe, task: str, settings: Settings, *, seconds: float, fast_blas: bool
) -> Outcome:
    """`mlx_lm.lora` to its end or for so many seconds, and then the first checkpoint that reached the goal, else the last."""
    with tempfile.TemporaryDirectory() as temporary:
        taught = with_refusals(rows, recipe, settings.refusal_share)
        found = mlx_lm_side.train(
            taught, recipe, Path(temporary) / "run", settings, seconds=seconds, fast_blas=fast_blas
        )
        if not found:
            raise RuntimeError(f"mlx_lm.lora made fewer than {CHECK_EVERY} steps in {seconds:.0f} s; give it more")
        judge = Judge(rows, recipe, task)
        for checkpoint in found:
            last = checkpoint is found[-1]
            if judge.look_at_file(checkpoint.file, checkpoint.seconds, checkpoint.steps, closely=last):
                break
    assert judge.outcome is not None
    return judge.outcome


def run_peft(rows: pl.DataFrame, recipe: Recipe, task: str, settings: Settings, *, seconds: float) -> Outcome:
    """PEFT in an ordinary loop; it waits while the weights that it hands over are judged."""
    taught, judge = ours.trained_rows(rows), Judge(rows, recipe, task)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights = folder / "weights.npz"

        def enough(check: peft_side.Check) -> bool:
            click.echo(f"  PEFT: {check}", err=True)
            return judge.look(peft_side.read_weights(weights), check.seconds, check.steps, closely=True)

        tokens = tokenize(judge.tokenizer, taught.select("question", "answer").rows())
        peft_side.write_rows(folder / "rows.npz", tokens, taught["fact"].to_list())
        drawn = itertools.islice(ours.strangers(rows, recipe), FRESH_REFUSALS if settings.refusal_share else 0)
        if refusals := tokenize(judge.tokenizer, drawn):
            peft_side.write_rows(folder / "refusals.npz", refusals)
        peft_side.learn(
            folder / "rows.npz",
            recipe,
            enough,
            **peft_side.told(settings, warmup=recipe.optimizer.warmup_steps),
            refusals=str(folder / "refusals.npz") if refusals else None,
            weights=str(weights),
            seconds=seconds,
            check_every=CHECK_EVERY,
        )
    assert judge.outcome is not None
    return judge.outcome
