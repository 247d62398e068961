"""The same batches through a step of this trainer and a step of PEFT's, in turn."""

import itertools
import statistics
import tempfile
import time
from pathlib import Path

import polars as pl

from benchmarks import ours, peft_side
from benchmarks.tables import median_and_range
from nfl_lora_pipeline.markdown import table
from nfl_lora_pipeline.recipes.recipe import Recipe

BATCHES, WARM = 40, 5


def compare_steps(rows: pl.DataFrame, recipe: Recipe) -> str:
    """Milliseconds of a step of each side, as a table."""
    model, tokenizer = ours.load(recipe)
    batches = list(itertools.islice(ours.mixed_batches(rows, tokenizer, recipe), BATCHES))
    step = ours.Step(model, recipe)
    milliseconds: dict[str, list[float]] = {"this trainer": [], "PEFT": [], "PEFT, one thread": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.npz"
        peft_side.write_rows(file, [row for batch in batches for row in batch])
        with (
            peft_side.worker("steps", file, recipe) as every_core,
            peft_side.worker("steps", file, recipe, threads=1) as one_core,
        ):
            theirs = {"PEFT": peft_side.StepWorker(every_core), "PEFT, one thread": peft_side.StepWorker(one_core)}
            for number, batch in enumerate(batches):
                prepared = step.batches(batch)
                began = time.perf_counter()
                step(prepared)
                milliseconds["this trainer"].append(1000 * (time.perf_counter() - began))
                for name, worker in theirs.items():
                    milliseconds[name].append(worker(number))
    measured = {name: values[WARM:] for name, values in milliseconds.items()}
    baseline = statistics.median(measured["this trainer"])
    return table(
        [f"a step of {recipe.curriculum.batch_rows} rows", "time", "against this trainer"],
        [
            [name, median_and_range(values, "ms"), f"{statistics.median(values) / baseline:.2f}x"]
            for name, values in measured.items()
        ],
    )
