"""The side of HF PEFT, seen from here: rows go to `peft_worker.py` in a file, milliseconds and recall come back in lines."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from benchmarks.opponents import Settings
from benchmarks.schedules import share_of_peak
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.rows import TokenRow
from nfl_lora_pipeline.recipes.recipe import Recipe

Array = np.ndarray[Any, np.dtype[Any]]
PYTHON = Path(__file__).parent.parent / ".venv-bench" / "bin" / "python"
_OF_PEFT = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")


def check_available() -> None:
    """Refuse where `make bench-setup` has not been run."""
    if not PYTHON.exists():
        raise click.UsageError("the PEFT side needs an environment of its own: run `make bench-setup` first")


def torch_versions() -> str:
    """Which torch, transformers and PEFT."""
    names = ("torch", "transformers", "peft")
    program = f"import importlib.metadata as m; print(*(n + ' ' + m.version(n) for n in {names}), sep=', ')"
    return subprocess.run([PYTHON, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def write_rows(file: Path, rows: Sequence[TokenRow], facts: Sequence[str] | None = None) -> None:
    """Rows as the worker reads them."""
    numbers = {fact: number for number, fact in enumerate(dict.fromkeys(facts or []))}
    np.savez(
        file,
        tokens=np.concatenate([np.array(row.tokens, np.int32) for row in rows]),
        lengths=np.array([len(row.tokens) for row in rows]),
        starts=np.array([row.start for row in rows]),
        facts=np.array([numbers[fact] for fact in facts] if facts else [0] * len(rows)),
    )


@contextmanager
def worker(work: str, file: Path, recipe: Recipe, **settings: Any) -> Iterator["subprocess.Popen[str]"]:
    """The worker at some work ("steps" or "learn") on the rows of a file; it is ended when the block ends."""
    told = {
        "rank": recipe.lora.rank,
        "scale": recipe.lora.scale,
        "learning_rate": recipe.optimizer.learning_rate,
        "batch_rows": recipe.curriculum.batch_rows,
        "seed": recipe.seed,
        "threads": 0,
        "flush": True,
        **settings,
    }
    folder = base_models.resolve(recipe.base_model).folder.absolute()
    program = Path(__file__).with_name("peft_worker.py")
    command = [str(PYTHON), str(program), work, str(folder), str(file.absolute()), json.dumps(told)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class StepWorker:
    """PEFT's step on the batches of a file, one at a time."""

    def __init__(self, process: "subprocess.Popen[str]"):
        self.process = process
        self.about: dict[str, int] = json.loads(self._line())

    def __call__(self, batch: int) -> float:
        """Make one step; milliseconds."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{batch}\n")
        self.process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the PEFT side ended with {self.process.wait()}; its message stands above")
        return line


class Check(NamedTuple):
    """What a training says of itself when it hands its weights over; the seconds are of training alone."""

    seconds: float
    steps: int
    facts_right: int


def told(settings: Settings, *, warmup: int) -> dict[str, Any]:
    """The settings by the names that the worker knows; the learning rate is given for each step."""
    shares = (
        share_of_peak(settings.schedule, step, warmup=warmup, steps=settings.steps) for step in range(settings.steps)
    )
    return {
        "rates": [settings.peak_rate * share for share in shares],
        "batch_rows": settings.batch_rows,
        "refusal_share": settings.refusal_share,
    }


def learn(file: Path, recipe: Recipe, enough: Callable[[Check], bool], **settings: Any) -> None:
    """A training that goes on until `enough` says so of its weights, or until its own end; it waits while that is judged."""
    with worker("learn", file, recipe, **settings) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            process.stdin.write("stop\n" if enough(Check(**json.loads(line))) else "go on\n")
            process.stdin.flush()
        if process.wait():
            raise RuntimeError(f"the PEFT side ended with {process.returncode}; its message stands above")


def to_mlx(weights: Mapping[str, Array]) -> dict[str, Array]:
    """PEFT's weights by mlx-lm's names and in its shapes: rows go through `x @ lora_a @ lora_b` there.

    Raises:
        ValueError: a weight is not one of LoRA.
    """
    converted = {}
    for name, weight in weights.items():
        found = _OF_PEFT.fullmatch(name)
        if not found:
            raise ValueError(f"{name} is no weight of PEFT's LoRA")
        converted[f"{found['layer']}.lora_{found['side'].lower()}"] = weight.T
    return converted


def read_weights(file: Path) -> dict[str, Array]:
    """What the worker handed over, as mlx-lm has it."""
    with np.load(file) as arrays:
        return to_mlx(dict(arrays))
