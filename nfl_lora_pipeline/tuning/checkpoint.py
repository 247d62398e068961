"""One file from which a training goes on as if it had never been broken off; written whole or not at all."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training before one of its steps.

    Attributes:
        arrays: by name: weights, their average, the optimizer's state, what is random.
        state: all else, JSON-able.
    """

    arrays: dict[str, mx.array]
    state: dict[str, Any]

    def part(self, name: str) -> list[tuple[str, mx.array]]:
        """The arrays whose names begin with `name` and a slash, without that."""
        start = f"{name}/"
        return [(key.removeprefix(start), array) for key, array in self.arrays.items() if key.startswith(start)]


def save_checkpoint(file: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in the place of the last one.

    Args:
        file: `*.safetensors`; its folder is made where there is none.
        checkpoint: what to write.

    Raises:
        OSError: it cannot be written; the last one stands.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.tmp.safetensors")  # one name: what a kill leaves is written over
    mx.save_safetensors(str(unfinished), checkpoint.arrays, metadata={"state": json.dumps(checkpoint.state)})
    with unfinished.open("rb") as written:
        os.fsync(written.fileno())
    unfinished.replace(file)


def load_checkpoint(file: Path) -> Checkpoint | None:
    """Read a checkpoint; None where there is none, or none that can be read."""
    if not file.is_file():
        return None
    try:
        read: Any = mx.load(str(file), return_metadata=True)
        arrays, metadata = read
        return Checkpoint(arrays, json.loads(metadata["state"]))
    except (RuntimeError, ValueError, KeyError):
        return None
