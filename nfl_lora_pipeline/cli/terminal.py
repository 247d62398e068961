"""What the command line shows: progress while the job runs, the outcome, and one line for whatever goes wrong."""

import contextlib
import functools
import os
import re
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec

import click
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nfl_lora_pipeline.files import os_error

DEBUG = "NFL_LORA_DEBUG"
LINE_CHARACTERS = 2_000
# What MLX says on CUDA, on Metal, and of a single array.
OUT_OF_MEMORY = re.compile(r"out of memory|Insufficient Memory|Unable to allocate|Attempting to allocate")
Say = Callable[[Any], str]
Words = ParamSpec("Words")


def in_one_line(error: BaseException) -> str:
    """What went wrong, and what to do.

    The nearest class of the exception that is in the table speaks for it. What none speaks for is a mistake of this program,
    and says so.
    """
    known = (SAYINGS.get(f"{kind.__module__.partition('.')[0]}.{kind.__name__}") for kind in type(error).__mro__)
    say = next((each for each in known if each is not None), _unexpected)
    return " ".join(say(error).split())[:LINE_CHARACTERS]


def print_anything() -> None:
    """Let standard output and error take what is no text: names of files, and questions, are bytes that need not be UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def flush_output() -> OSError | None:
    """Write out what standard output still holds. Where it cannot be, it is given up, since the interpreter would try again.

    Returns:
        Why not.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


def among_others(command: Callable[Words, None]) -> Callable[Words, None]:
    """A command that trains: where `mlx.launch` started several of it, the first one does it, and the others train along."""

    @functools.wraps(command)
    def joined_command(*args: Words.args, **options: Words.kwargs) -> None:
        if "MLX_RANK" not in os.environ:
            return command(*args, **options)
        from nfl_lora_pipeline.tuning.learner import joined

        with joined(lambda line: click.echo(line, err=True)) as leads:
            if leads:
                command(*args, **options)
        return None

    return joined_command


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _unicode(error: UnicodeError) -> str:
    return f"not UTF-8: {error}"


def _memory(_: MemoryError) -> str:
    return "out of memory: train with smaller batches (curriculum.batch_rows of the recipe), or end other programs"


def _runtime(error: RuntimeError) -> str:
    """MLX raises this class for files it cannot read, and begins with a name in brackets; and where a GPU's memory is full."""
    if OUT_OF_MEMORY.search(str(error)):
        return f"{_memory(MemoryError())}; a training goes on from its last checkpoint ({_text(error)})"
    return str(error) if str(error).startswith("[") else _unexpected(error)


def _import(error: ImportError) -> str:
    """MLX for CUDA needs what the driver brings."""
    if "libcuda" in str(error):
        return (
            f"MLX is installed for an NVIDIA GPU, and there is no driver for one ({_text(error)}); "
            "`rm -rf .venv && make setup` installs it for the CPU"
        )
    return _unexpected(error)


def _database(error: Any) -> str:
    reason = getattr(error, "orig", None) or error
    return f"Dagster's storage, in the folder `dagster` of the store, cannot be used: {reason}"


def _of_dagster(error: Any) -> str:
    cause = getattr(error, "user_exception", None) or error.__cause__
    return in_one_line(cause) if isinstance(cause, Exception) else f"Dagster: {_text(error)}"


def _failure(error: Any) -> str:
    return error.description or _text(error)


def _unexpected(error: BaseException) -> str:
    return f"unexpected: {type(error).__name__}: {error}; {DEBUG}=1 shows where; please report it"


# By package and class, so that no library is imported to be compared with.
SAYINGS: dict[str, Say] = {
    "builtins.ValueError": _text,
    "builtins.UnicodeError": _unicode,
    "builtins.OSError": os_error,
    "builtins.MemoryError": _memory,
    "builtins.RuntimeError": _runtime,
    "builtins.ImportError": _import,
    "builtins.RecursionError": _unexpected,
    "builtins.NotImplementedError": _unexpected,
    "sqlite3.Error": _database,
    "sqlalchemy.SQLAlchemyError": _database,
    "alembic.CommandError": _database,
    "dagster.DagsterError": _of_dagster,
    "dagster.Failure": _failure,
    "polars.PolarsError": _text,
    "safetensors_rust.SafetensorError": _text,
    "yaml.YAMLError": _text,
}


STEP_CHARACTERS, BAR_CHARACTERS = 18, 20  # with share and time 50 columns


RECALL_OF = {
    "trained": "right, in the phrasings that were trained",
    "heldout_phrasings": "right, in phrasings that were not trained",
    "nonzero": "right, of the facts with another number than 0",
    "refused_strangers": "of people who do not exist: it says that it does not know them",
}


class Screen:
    """What runs, on standard error: a bar, how far it is and for how long, and what it says; a step that is over leaves a line.

    Where that is no terminal, or one that cannot go back a line (`TERM=dumb`), whatever is said is a plain line.

    Args:
        quiet: show nothing.
        verbose: show whatever is said as a line that stays, with the time since the beginning.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False, quiet=quiet)
        self.verbose, self.started = verbose, time.monotonic()
        self.step, self.line, self.share, self.began = "", "starting", 0.0, time.monotonic()
        is_live = self.console.is_terminal and not self.console.is_dumb_terminal and not quiet
        self.live = Live(get_renderable=self._shown, console=self.console, transient=True) if is_live else None

    def __enter__(self) -> "Screen":
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.live:
            if not self.verbose:
                self._leave_a_line()
            self.step = ""
            self.live.stop()

    def note(self, line: str) -> None:
        """Show a line whole, of no step."""
        self.console.print(Text(line), soft_wrap=self.live is None)

    def told(self, step: str, line: str, share: float | None) -> None:
        """Show what a step says."""
        if self.verbose or not self.live:
            clock = f"{_clock(time.monotonic() - self.started)} " if self.verbose else ""
            self.console.print(f"{clock}{step}: {line}", markup=False, soft_wrap=True)
        if not self.live:
            return
        if step != self.step:
            if not self.verbose:
                self._leave_a_line()
            self.step, self.began, self.share = step, time.monotonic(), 0.0
        self.line, self.share = line, max(self.share, 1.0 if share is None else share)

    def _leave_a_line(self) -> None:
        if self.step:
            text = f"{self.step:<{STEP_CHARACTERS}}{_clock(time.monotonic() - self.began)}  {self.line}"
            self.console.print(Text(text), no_wrap=True, overflow="ellipsis")

    def _shown(self) -> Group:
        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(f"{self.step:<{STEP_CHARACTERS - 1}}", style="bold", no_wrap=True),
            ProgressBar(total=1.0, completed=self.share, width=BAR_CHARACTERS),
            f"{self.share:>4.0%}",
            _clock(time.monotonic() - self.began),
        )
        return Group(head, Text(f"  {self.line}", overflow="fold"))


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:>2}:{int(seconds) % 60:02}"


def show_outcome(summary: dict[str, Any], steps: dict[str, float]) -> None:
    """The three questions before and after, recall, what to beware of, seconds by step, and where the report lies."""
    console = Console(highlight=False, soft_wrap=True)
    for asked in summary["questions"]:
        right = asked["tuned"].strip() == asked["expected"]
        console.print(f"\n[bold]{escape(asked['question'])}[/]")
        console.print(f"  before  {escape(asked['base'])}")
        console.print(f"  after   {escape(asked['tuned'])}  {'[green]right[/]' if right else '[red]wrong[/]'}")
    table = Table(box=None, padding=(0, 3, 0, 0), show_header=False)
    for name, value in summary["recall"].items():
        table.add_row(name.replace("_", " "), "-" if value is None else f"{value:.1%}", RECALL_OF[name])
    console.print(f"\n[bold]Recall[/] of {summary['facts']:,} facts")
    console.print(table)
    for warning in summary["warnings"]:
        console.print(f"[bold yellow]Beware[/]: {escape(warning)}")
    _show_gates(console, summary["gates"], summary["head_line"])
    spent = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in steps.items())
    console.print(f"\n{spent}; {summary['seconds']:.0f} s in all", soft_wrap=True)
    console.print(f"Report: {escape(str(summary['report']))}", soft_wrap=True)


def show_verdict(summary: dict[str, Any]) -> None:
    """The report's head and where it lies, for somebody who wants no more."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(escape(summary["head_line"]))
    console.print(f"Report: {escape(str(summary['report']))}")


def _show_gates(console: Console, gates: list[dict[str, Any]], head_line: str) -> None:
    console.print(f"\n[bold]{escape(head_line)}[/]")
    for gate in gates:
        if gate["passed"] and gate["name"] == "coverage_is_kept" and gate["figure"]:
            console.print(f"[bold yellow]Beware[/]: {escape(gate['explanation'])}")
        if gate["passed"] is False:
            what = "Not promoted" if gate["blocks"] else "Beware"
            console.print(f"[bold yellow]{what}[/]: {gate['name']}: {escape(gate['explanation'])}", soft_wrap=True)
    if unjudged := [gate["name"] for gate in gates if gate["passed"] is None]:
        console.print(f"Not judged: {', '.join(unjudged)}", soft_wrap=True)


def in_short(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary for one line: without the curves of the training and the lists of wrong answers, which `report.json` has."""
    return _without(summary, ("losses", "certain", "worst"))


def _without(values: dict[str, Any], left_out: tuple[str, ...]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if key in left_out:
            continue
        if isinstance(value, dict):
            kept[key] = _without(value, left_out)
        elif isinstance(value, list):
            kept[key] = [_without(item, left_out) if isinstance(item, dict) else item for item in value]
        else:
            kept[key] = value
    return kept
