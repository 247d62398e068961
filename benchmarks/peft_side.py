"""The side of HF PEFT, seen from here: rows go to `peft_worker.py` in a file, milliseconds and recall come back in lines."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.rows import TokenRow
from nfl_lora_pipeline.tuning.recipe import Recipe

PYTHON = Path(__file__).parent.parent / ".venv-bench" / "bin" / "python"
WORKER = Path(__file__).parent / "peft_worker.py"


def available() -> bool:
    """Whether `make bench-setup` has been run."""
    return PYTHON.exists()


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
        "rank": recipe.rank,
        "scale": recipe.scale,
        "learning_rate": recipe.learning_rate,
        "batch_rows": recipe.batch_rows,
        "warmup_steps": recipe.warmup_steps,
        "seed": recipe.seed,
        "threads": 0,
        **settings,
    }
    folder = base_models.resolve(recipe.base_model).folder
    command = [PYTHON, WORKER, work, folder, file, json.dumps(told)]
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


def learn(file: Path, recipe: Recipe, **settings: Any) -> Iterator[dict[str, float]]:
    """A training's checks as they come: `seconds` of training, `steps` and `facts_right`."""
    with worker("learn", file, recipe, **settings) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
        if process.wait():
            raise RuntimeError(f"the PEFT side ended with {process.returncode}; its message stands above")
