"""The side of `mlx_lm.lora`: a training as a user runs it, in a process of its own, judged afterwards by its checkpoints."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import polars as pl
import yaml

from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.tuning.recipe import Recipe

POLL_SECONDS = 0.2
ENDLESS = 10_000_000
# A step of 27 rows on the embedded base took 0.23 s so, and 0.29 s with two threads of MKL.
ONE_BLAS_THREAD = {"MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Checkpoint(NamedTuple):
    """A file of adapter weights, and when it was finished: steps and seconds from the start of training."""

    file: Path
    steps: int
    seconds: float


class Settings(NamedTuple):
    """What a user would choose for `mlx_lm.lora`; on week 1 the best of three that were tried.

    With the fast BLAS all 441 facts were known after 147 s so, after 175 s with 27 rows a batch, and with 27 rows and a rate of
    2e-3 after 184 s 365 of them.
    """

    learning_rate: float = 1e-3
    batch_rows: int = 14
    save_every: int = 10


def checkpoints(folder: Path) -> list[Checkpoint]:
    """The whole checkpoints of a training, the oldest first.

    `mlx_lm.lora` writes `adapter_config.json` when model and rows are loaded and training begins. Files that are smaller
    than others were cut off.
    """
    started = (folder / "adapter_config.json").stat().st_mtime
    files = sorted(folder.glob("*_adapters.safetensors"))
    whole = max((file.stat().st_size for file in files), default=0)
    return [
        Checkpoint(file, int(file.name.split("_")[0]), file.stat().st_mtime - started)
        for file in files
        if file.stat().st_size == whole
    ]


def train(
    rows: pl.DataFrame, recipe: Recipe, folder: Path, settings: Settings, *, seconds: float, fast_blas: bool
) -> list[Checkpoint]:
    """Train for some seconds on `question` and `answer` of the rows: all layers, the recipe's rank and scale, prompt masked.

    Args:
        folder: a new folder, for rows, settings and checkpoints.
        seconds: counted from where training begins.
        fast_blas: whether this project's BLAS is loaded first, with the one thread that suits it; else what came with MLX.

    Raises:
        RuntimeError: the training ended by itself.
    """
    folder.mkdir(parents=True)
    rows.select(prompt="question", completion="answer").write_ndjson(folder / "train.jsonl")
    options = {
        "model": str(base_models.resolve(recipe.base_model).folder),
        "data": str(folder),
        "adapter_path": str(folder / "adapter"),
        "train": True,
        "mask_prompt": True,
        "num_layers": recipe.num_layers,
        "lora_parameters": {"rank": recipe.rank, "scale": recipe.scale, "dropout": recipe.dropout},
        "batch_size": settings.batch_rows,
        "learning_rate": settings.learning_rate,
        "iters": ENDLESS,
        "save_every": settings.save_every,
        "steps_per_report": settings.save_every,
        "seed": recipe.seed,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(options), encoding="utf-8")
    module = ["benchmarks.mlx_lm_fast_blas"] if fast_blas else ["mlx_lm"]
    command = [sys.executable, "-m", *module, "lora", "--config", str(folder / "config.yaml")]
    with (folder / "output.txt").open("w") as output:
        environment = os.environ | (ONE_BLAS_THREAD if fast_blas else {})
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        _wait(process, folder / "adapter" / "adapter_config.json", seconds)
    finally:
        process.kill()
        process.wait()
    return [found for found in checkpoints(folder / "adapter") if found.seconds <= seconds]


def _wait(process: "subprocess.Popen[bytes]", started: Path, seconds: float) -> None:
    while not started.is_file() or time.time() - started.stat().st_mtime < seconds:
        if process.poll() is not None:
            raise RuntimeError(
                f"mlx_lm.lora ended with {process.returncode}: see {started.parent.parent / 'output.txt'}"
            )
        time.sleep(POLL_SECONDS)
