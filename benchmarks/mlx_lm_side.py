"""The side of `mlx_lm.lora`: a training as a user runs it, in a process of its own, judged afterwards by its checkpoints."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import yaml

from benchmarks.opponents import CHECK_EVERY, Settings
from benchmarks.schedules import CONSTANT, LINEAR
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.recipes.recipe import Recipe

POLL_SECONDS = 0.2
# A step of 27 rows on the embedded base took 0.23 s so, and 0.29 s with two threads of MKL.
ONE_BLAS_THREAD = {"MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

ADAM_OF_TORCH = {"betas": [0.9, 0.98], "bias_correction": True}  # as the worker of PEFT has it


class Checkpoint(NamedTuple):
    """A file of adapter weights, and when it was finished: steps and seconds from the start of training."""

    file: Path
    steps: int
    seconds: float


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
    """Train to the end of the schedule, or for some seconds, on `question` and `answer` of the rows.

    Args:
        rows: what is shown; refusals are among them.
        folder: a new folder, for rows, settings and checkpoints.
        seconds: counted from where training begins.
        fast_blas: whether this project's BLAS is loaded first, with the one thread that suits it; else what came with MLX.

    Raises:
        RuntimeError: the training failed.
    """
    folder.mkdir(parents=True)
    rows.select(prompt="question", completion="answer").write_ndjson(folder / "train.jsonl")
    options = options_of(recipe, settings, folder)
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


def options_of(recipe: Recipe, settings: Settings, folder: Path) -> dict[str, Any]:
    """The configuration of `mlx_lm.lora`: all layers, the recipe's rank and scale, prompts masked, the rate of the settings."""
    return {
        "model": str(base_models.resolve(recipe.base_model).folder),
        "data": str(folder),
        "adapter_path": str(folder / "adapter"),
        "train": True,
        "mask_prompt": True,
        "num_layers": recipe.lora.num_layers,
        "lora_parameters": {"rank": recipe.lora.rank, "scale": recipe.lora.scale, "dropout": recipe.lora.dropout},
        "batch_size": settings.batch_rows,
        "learning_rate": settings.peak_rate,
        "lr_schedule": schedule_of(settings, recipe.optimizer.warmup_steps),
        "iters": settings.steps,
        "save_every": CHECK_EVERY,
        "steps_per_report": CHECK_EVERY,
        "optimizer_config": {"adam": ADAM_OF_TORCH if settings.corrected else {}},
        "seed": recipe.seed,
    }


def schedule_of(settings: Settings, warmup: int) -> dict[str, Any]:
    """The schedule by the names of MLX; a constant rate is a straight line too, since only a schedule has a warmup."""
    decay = max(1, settings.steps - warmup)
    peak = settings.peak_rate
    straight = [peak, peak if settings.schedule == CONSTANT else 0.0, decay]
    if settings.schedule in (CONSTANT, LINEAR):
        return {"name": "linear_schedule", "arguments": straight, "warmup": warmup}
    return {"name": "cosine_decay", "arguments": [peak, decay], "warmup": warmup}


def _wait(process: "subprocess.Popen[bytes]", started: Path, seconds: float) -> None:
    while not started.is_file() or time.time() - started.stat().st_mtime < seconds:
        if process.poll() == 0:
            return
        if process.returncode is not None:
            output = (started.parent.parent / "output.txt").read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"mlx_lm.lora ended with {process.returncode}: {output[-2000:]}")
        time.sleep(POLL_SECONDS)
