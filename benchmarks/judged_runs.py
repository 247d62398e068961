"""The command itself, `nfl-lora run`, and what its report says of the adapter by every gate."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from nfl_lora_pipeline.store import Store


def part_of(recipe_name: str, *more: str) -> str:
    """What the section of a document is called that is about a recipe and more."""
    return "_".join([Path(recipe_name).stem, *more]).replace(",", "_")


class Figure(NamedTuple):
    """What a gate found: a share, and whether it passed; None where it was not judged."""

    share: float | None
    passed: bool | None


class JudgedRun(NamedTuple):
    """One run of the command.

    Attributes:
        seconds: from command to report.
        training: seconds of that.
        steps: of training.
        facts, certain: taught, and certain in every trained phrasing.
        figures: by gate, each of the worst of the groups that it looks at.
        is_promoted: whether the adapter is what is promoted afterwards.
    """

    seconds: float
    training: float
    steps: int
    facts: int
    certain: int
    figures: dict[str, Figure]
    is_promoted: bool


def run(store: Path, recipe: str, data_dir: Path, *, season: int, weeks: str, stats: str) -> JudgedRun:
    """Run the command into a store, and read its report."""
    where = ["--source", "folder", "--data-dir", str(data_dir), "--season", str(season), "--weeks", weeks]
    what = ["--stats", stats, "--recipe", recipe, "--store", str(store)]
    began = time.monotonic()
    command = [sys.executable, "-m", "nfl_lora_pipeline.cli.main", "run", *where, *what]
    subprocess.run(command, stdout=sys.stderr, check=False)  # it ends with another code where a gate is missed
    seconds = time.monotonic() - began
    made = Store(store)
    adapter = made.latest()
    report = json.loads((made.report(adapter) / "report.json").read_text(encoding="utf-8"))
    log = made.training_log(adapter)
    figures = {gate["name"]: Figure(gate["figure"], gate["passed"]) for gate in report["gates"]}
    is_promoted = made.promoted() == adapter
    return JudgedRun(
        seconds, log.seconds, log.iterations, log.facts, log.facts - len(log.uncertain), figures, is_promoted
    )


def note(found: JudgedRun, file: Path) -> None:
    """Write a run down, on a line of its own."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(found._asdict()) + "\n")


def finished(file: Path) -> list[JudgedRun]:
    """The runs that a file holds, one a line."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [_from_json(json.loads(line)) for line in lines]


def _from_json(found: dict[str, Any]) -> JudgedRun:
    figures = {name: Figure(*figure) for name, figure in found.pop("figures").items()}
    return JudgedRun(**found, figures=figures)
