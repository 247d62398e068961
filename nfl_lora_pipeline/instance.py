"""The Dagster instance beside the store, so that the command line and the UI share runs and materialisations."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from nfl_lora_pipeline.files import replace_file

if TYPE_CHECKING:
    import dagster as dg

    from nfl_lora_pipeline.store import Store

SETTINGS = """\
# Written by nfl-lora; edit as you like.
telemetry:
  enabled: false
nux:
  enabled: false
run_monitoring:
  enabled: true
  max_runtime_seconds: 86400
"""


COMMAND_LINE = "command_line.yaml"
UNCAPTURED = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}


def dagster_home(store: Path) -> Path:
    """The instance's folder, made with its settings at the first call. Absolute, as Dagster wants it."""
    home = (store / "dagster").resolve()
    home.mkdir(parents=True, exist_ok=True)
    settings = home / "dagster.yaml"
    if not settings.exists():
        settings.write_text(SETTINGS, encoding="utf-8")
    return home


@contextmanager
def opened(
    store: "Store", say: Callable[[str], None] = lambda line: None, *, goes_on: bool = False
) -> Iterator["dg.DagsterInstance"]:
    """The instance of a store, after what dead processes have left in either was put in order.

    Args:
        store: the store.
        say: told what was put in order, a line each.
        goes_on: whether the caller does itself what dead runs had been doing.
    """
    import dagster as dg

    home = dagster_home(store.root)
    with dg.DagsterInstance.from_config(str(home), _uncaptured(home)) as instance:
        for line in _put_in_order(store, instance, goes_on=goes_on):
            say(line)
        yield instance


def _put_in_order(store: "Store", instance: "dg.DagsterInstance", *, goes_on: bool) -> list[str]:
    """End the runs whose process has died, and sweep what such processes left half-written.

    Returns:
        What was done, a line each.
    """
    from nfl_lora_pipeline.leases import end_dead_runs, in_words

    lines = [in_words(instance, run) for run in end_dead_runs(instance, goes_on=goes_on)]
    swept = [str(path.relative_to(store.root)) for path in store.sweep()]
    return lines + ([f"left half-written by a process that has ended, and mended: {', '.join(swept)}"] if swept else [])


def _uncaptured(home: Path) -> str:
    """The name of a copy of the instance's settings under which a step's output is not captured.

    Dagster captures it with two helper processes, which a Ctrl-C in the terminal hits as well, and takes the terminal away
    from whatever shows progress. What a step logs is in the UI all the same.
    """
    settings = yaml.safe_load((home / "dagster.yaml").read_text(encoding="utf-8")) or {}
    content = yaml.safe_dump({**settings, "compute_logs": UNCAPTURED})
    replace_file(home / COMMAND_LINE, f"# Made by nfl-lora of dagster.yaml for its own runs.\n{content}".encode())
    return COMMAND_LINE
