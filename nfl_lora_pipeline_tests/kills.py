"""`nfl-lora run` is ended in the middle and started again: does the same command come to the same adapter, byte for byte?

python -m nfl_lora_pipeline_tests.kills --write
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import dagster as dg
import yaml

from nfl_lora_pipeline.defs.leases import UNFINISHED as UNFINISHED_RUNS
from nfl_lora_pipeline.files import BEGUN, REPLACED, UNFINISHED, replace_file
from nfl_lora_pipeline.recipes.recipe import LIMITS, load_recipe
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline_tests import upstream

STEPS = ("raw_wr_json", "players", "qa_pairs", "dataset_splits", "adapter", "evaluation_report", "promoted_adapter")
STORAGE = "storage"  # the time in which Dagster makes its databases, before the first step
CHECK = "check"  # of what the adapter knows, while it is trained: begins with a checkpoint
MOMENTS = (STORAGE, *STEPS, CHECK)
CHECK_SECONDS = 0.2
LAST_WORD = {"adapter": " facts certain, lowest p "}  # of a step that says more than one line
SIGNALS = (signal.SIGKILL, signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
LONGEST_START = 60.0  # seconds
LONGEST_SECONDS = 600.0  # of a run; more is a hang
DOCUMENT = Path(__file__).parent.parent / "docs" / "kills.md"


@dataclass
class Scene:
    """A folder with a raw week and a recipe, on which the same command is run in one store after another.

    Attributes:
        folder: where all of it lies.
        seconds: by step, how long a run that was left alone took from the end of the step before to the step's own.
    """

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, **others: Any) -> "Scene":
        """Eleven people, and a recipe with dropout, so that what MLX draws has to go on where it was as well.

        What is learnt in so few steps does not matter here, and no limit asks for it.

        Args:
            folder: an existing one.
            others: values of the recipe.
        """
        upstream.write_week(folder / "raw", upstream.week_bytes(upstream.tiny_week()))
        steps = {"batch_rows": 16, "max_steps": 24, "ending_steps": 12, "dropout": 0.05, "fresh_known": 0.0}
        recipe = load_recipe("embedded").changed(**dict.fromkeys(LIMITS), **(steps | others)).model_dump()
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        return cls(folder)

    def command(self, store: Path) -> list[str]:
        """The whole job on that week."""
        options = {"--source": "folder", "--data-dir": self.folder / "raw", "--recipe": self.folder / "recipe.yaml"}
        words = [str(word) for pair in (options | {"--store": store}).items() for word in pair]
        return [sys.executable, "-m", "nfl_lora_pipeline.cli.main", "run", *words]


@dataclass
class Run:
    """One process of the command, and when each step said its last word."""

    process: "subprocess.Popen[str]"
    began: float
    said: list[str] = field(default_factory=list)
    seen: dict[str, float] = field(default_factory=dict)

    @classmethod
    def start(cls, scene: Scene, store: Path, *, under: Sequence[str] = ()) -> "Run":
        """Start the command; `under` is put before its words."""
        words = [*under, *scene.command(store)]
        inherited = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under `nohup` it would be ignored, as it should be
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        signal.signal(signal.SIGHUP, inherited)
        run = cls(process, time.monotonic())
        threading.Thread(target=run._listen, daemon=True).start()
        return run

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            if (step := line.partition(":")[0]) in STEPS:
                self.seen[step] = time.monotonic()

    def has_said(self, text: str, *, seconds: float = 120.0) -> bool:
        """Whether a line with that text comes within so many seconds, and before the process ends."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            if any(text in line for line in self.said):
                return True
            if self.process.poll() is not None:
                time.sleep(0.2)
                return any(text in line for line in self.said)
            time.sleep(0.02)
        return False

    def has_begun(self, store: Path) -> bool:
        """Whether it touches its store within a minute: the first that it does is to make Dagster's storage."""
        return _until(lambda: store.exists() or self.process.poll() is not None) < LONGEST_START

    def end(self, seconds: float = LONGEST_SECONDS) -> int:
        """Wait for its end; its exit code."""
        code = self.process.wait(seconds)
        time.sleep(0.1)  # for what was still to be read
        return code


@dataclass(frozen=True)
class Kill:
    """One case, and what came of it.

    Attributes:
        step: in which the signal came.
        signum: which one.
        code: the exit code of the process that was ended.
        seconds: from the signal to its end.
        problems: what was not as it should be, in words.
    """

    step: str
    signum: int
    code: int
    seconds: float
    problems: tuple[str, ...]


def left_alone(scene: Scene) -> str:
    """Run the command undisturbed, and note how long each step takes; the hash of its adapter."""
    store = scene.folder / "alone"
    run = Run.start(scene, store)
    run.has_begun(store)
    last = run.began
    scene.seconds[STORAGE], scene.seconds[CHECK] = _until(Store(store).dagster.exists), CHECK_SECONDS
    assert run.end() == 0, run.said
    for step in STEPS:
        scene.seconds[step] = run.seen[step] - last
        last = run.seen[step]
    return adapter_hash(store)


def disturbed(
    scene: Scene, store: Path, step: str, signum: int, wanted: str, *, rng: random.Random, most_seconds: float = 3.0
) -> Kill | None:
    """End the command in a step and start it again.

    Args:
        scene: what the command is run on.
        store: a folder that is not there yet.
        step: of `MOMENTS`.
        signum: the signal.
        wanted: the hash of the adapter of a run that was left alone.
        rng: says when in the step.
        most_seconds: from a signal that can be heard to the end.

    Returns:
        What came of it; None where the command had come to its end before the signal.
    """
    run = Run.start(scene, store)
    if step == STORAGE:
        run.has_begun(store)
    elif step == CHECK:
        _until(lambda: any(store.rglob("checkpoint.safetensors")) or run.process.poll() is not None)
    elif step != STEPS[0]:
        before = STEPS[STEPS.index(step) - 1]
        run.has_said(LAST_WORD.get(before, f"{before}:"))
    time.sleep(scene.seconds[step] * rng.uniform(0.1, 0.9))
    if run.process.poll() is not None:
        return None
    sent = time.monotonic()
    run.process.send_signal(signum)
    code = run.end(60)
    seconds = time.monotonic() - sent
    problems = _problems_of_the_end(run, signum, code, seconds, most_seconds)
    again = Run.start(scene, store)
    if (second := again.end()) != 0:
        problems.append(f"the same command ended with {second}: {again.said[-3:]}")
    problems += problems_of_the_store(store, wanted)
    return Kill(step, signum, code, seconds, tuple(problems))


def cases(count: int) -> list[tuple[str, int]]:
    """So many moments and signals: every moment once with each signal, and then all of them again."""
    every = [
        (moment, SIGNALS[(at + turn) % len(SIGNALS)])
        for turn in range(len(SIGNALS))
        for at, moment in enumerate(MOMENTS)
    ]
    return [every[number % len(every)] for number in range(count)]


def problems_of_the_store(store: Path, wanted: str) -> list[str]:
    """What is not as after a run that was left alone: the adapter, something half-written, a run that never ended."""
    problems = []
    if (found := adapter_hash(store)) != wanted:
        problems.append(f"another adapter: {found[:12]}")
    if leftovers := [path for end in (BEGUN, UNFINISHED, REPLACED, ".unfinished") for path in store.rglob(f".*{end}")]:
        problems.append(f"left behind: {', '.join(path.name for path in leftovers)}")
    with dg.DagsterInstance.from_config(str(Store(store).dagster.resolve())) as instance:
        if open_runs := instance.get_runs(dg.RunsFilter(statuses=UNFINISHED_RUNS)):
            problems.append(f"{len(open_runs)} runs that never ended")
    return problems


def adapter_hash(store: Path) -> str:
    """Of the promoted weights, byte for byte."""
    held = Store(store)
    file = held.adapter(held.promoted() or "none") / "adapters.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "no adapter"


def _until(true: Callable[[], bool]) -> float:
    """The seconds until something is so; a minute at most."""
    began = time.monotonic()
    while not true() and time.monotonic() - began < LONGEST_START:
        time.sleep(0.005)
    return time.monotonic() - began


def _problems_of_the_end(run: Run, signum: int, code: int, seconds: float, most_seconds: float) -> list[str]:
    problems = [f"a traceback: {_last_line(run.said[place:])}" for place, line in enumerate(run.said) if _begins(line)]
    if signum == signal.SIGKILL:
        return problems
    if code not in (128 + signum, -signum) and not any(line.startswith("Report:") for line in run.said):
        problems.append(f"exit code {code}")
    if seconds > most_seconds:
        problems.append(f"{seconds:.1f} s to its end")
    return problems


def _begins(line: str) -> bool:
    """Whether a traceback begins with a line."""
    return "Traceback" in line or "Exception ignored" in line


def _last_line(said: list[str]) -> str:
    """What a traceback that begins with the first line is of, and the last place in this project or a library that it names."""
    ends = [place for place, line in enumerate(said) if place and line and not line.startswith(" ")]
    block = said[: ends[0] + 1] if ends else said
    files = [line.strip() for line in block if line.lstrip().startswith("File ")]
    return "; ".join([block[-1], *files[-1:]])


def as_markdown(kills: list[Kill], wanted: str, command: str) -> str:
    """The document."""
    rows = [
        f"| {number} | {kill.step} | {signal.Signals(kill.signum).name} | {kill.code} | {kill.seconds:.2f} | "
        f"{'; '.join(kill.problems) or 'same adapter'} |"
        for number, kill in enumerate(kills, 1)
    ]
    good = sum(not kill.problems for kill in kills)
    return "\n".join(
        [
            "# `nfl-lora run`, ended in the middle and started again",
            "",
            f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores. Each row is a store of its own: the whole",
            "command is started, a signal comes in the step that is named (`storage`: while Dagster makes its databases;",
            "`check`: within 0.2 s of the first checkpoint, with which a check begins), and the same command is started again.",
            f"Good is: the adapter of a run that was left alone (SHA-256 {wanted[:16]}…), no traceback, nothing",
            "half-written, no run that Dagster takes for going on; and of a signal that can be heard an exit code of 128",
            "and its number within 3 s.",
            "",
            f"**{good} of {len(kills)} good.** Slowest end after a signal: {max(kill.seconds for kill in kills):.2f} s.",
            "",
            "| | step | signal | exit code | seconds to the end | after the second start |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            "A share of it runs in the tests (`test_kills.py`), with Ctrl-C in a pseudo-terminal, two commands at once, and a",
            "run that was killed under a UI that watches (`test_live.py`).",
            "",
        ]
    )


@click.command()
@click.option(
    "--kills",
    "count",
    default=len(MOMENTS) * len(SIGNALS),
    show_default=True,
    help="So many, over all moments and signals in turn.",
)
@click.option("--write", is_flag=True, help="Write docs/kills.md.")
def main(count: int, write: bool) -> None:
    """Print what came of each kill; exit code 1 where one was not survived."""
    kills: list[Kill] = []
    with tempfile.TemporaryDirectory() as temporary:
        scene = Scene.make(Path(temporary))
        wanted = left_alone(scene)
        for number, (moment, signum) in enumerate(cases(count)):
            kill = disturbed(scene, scene.folder / str(number), moment, signum, wanted, rng=random.Random(number))
            if kill is None:
                click.echo(f"{number} {moment}: the command had come to its end before the signal")
                continue
            kills.append(kill)
            said = "; ".join(kill.problems) or "same adapter"
            click.echo(f"{number} {moment} {signal.Signals(signum).name} {kill.code} {kill.seconds:.2f} s: {said}")
    if write:
        command = f"python -m nfl_lora_pipeline_tests.kills --kills {count} --write"
        replace_file(DOCUMENT, as_markdown(kills, wanted, command).encode())
    if any(kill.problems for kill in kills) or len(kills) < count:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
