"""The Dagster instance beside the store, so that the command line and the UI share runs and materialisations; and that UI."""

import contextlib
import os
import shutil
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from nfl_lora_pipeline.files import DamagedFile, locked, one_line, read_file, replace_file, replacing_folder
from nfl_lora_pipeline.interrupts import Deferral
from nfl_lora_pipeline.processes import Together

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


SETTINGS_FILE = "dagster.yaml"
WRITTEN_ANEW = "mend it, or move it away: a new one is written"
BEGUN_ANEW = "move the folder `dagster` of the store away: a new record of runs is begun, and every adapter stays"
DATABASES = "history"  # the first folder that Dagster's storage makes where its settings name no other place
STORAGES = {"storage", "run_storage", "event_log_storage", "schedule_storage"}
COMMAND_LINE = "command_line.yaml"
DEFINITIONS = "nfl_lora_pipeline.definitions"
EXPANDED = "global@global:weeks,global@global:season"  # as the UI itself writes it where two groups are open
LINEAGE = f"/asset-groups?expanded={EXPANDED}"  # the page of the UI that shows every asset and what it is made of
END_SECONDS = 2.0  # after which what was asked to end is killed
LOOK_SECONDS = 0.2
# Imports what it needs while the code server imports what that needs, and begins once it listens.
BEHIND = """\
import os, sys, time
from {module} import main
file = sys.argv.pop(1)
while not os.path.exists(file):
    time.sleep({seconds})
main()
"""
UNCAPTURED = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}


def dagster_home(store: "Store") -> Path:
    """The instance's folder, made with its settings and its databases at the first call. Absolute, as Dagster wants it.

    Dagster makes a database in several steps, and one that was broken off between them lacks tables for ever. So the folder
    is made beside its place and moved there whole.
    """
    home = store.dagster.resolve()
    with _named_damage(home), locked(store.lock("dagster")), Deferral():
        if not os.path.lexists(home / SETTINGS_FILE) and home.is_dir():
            replace_file(home / SETTINGS_FILE, SETTINGS.encode())
        if not (home / DATABASES).exists() and not STORAGES & _settings(home).keys():
            _make(home)
    return home


def _make(home: Path) -> None:
    """The folder anew, with what lies in it now."""
    import dagster as dg

    with replacing_folder(home) as folder:
        if home.is_dir():
            shutil.copytree(home, folder, dirs_exist_ok=True)
        else:
            replace_file(folder / SETTINGS_FILE, SETTINGS.encode())
        with dg.DagsterInstance.from_config(str(folder)) as instance:
            instance.get_dynamic_partitions("weeks")  # the last table that it makes is there


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

    home = dagster_home(store)
    with ExitStack() as stack:
        stack.enter_context(_named_damage(home))
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(home), _uncaptured(home)))
        for line in _put_in_order(store, instance, goes_on=goes_on):
            say(line)
        yield instance


def serve_ui(store: "Store", host: str, port: int, settings: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Serve the UI until this process is asked to end, or one of those that it has started ends.

    Args:
        store: the store.
        host, port: where the UI is.
        settings: environment variables of the deployment.
        say: told a line for people.

    Raises:
        ValueError: one of them has ended by itself.
    """
    from nfl_lora_pipeline.defs.leases import leave_for_later, runs_here

    environment = {**os.environ, **settings, "DAGSTER_HOME": str(dagster_home(store))}
    with opened(store, say) as instance, tempfile.TemporaryDirectory() as folder:
        services = Together(END_SECONDS)
        try:
            for command in _commands(Path(folder), host, port):
                services.start(command, environment)
            _watch(services, host, port, lambda: say(f"The UI is at http://{host}:{port}{LINEAGE}; Ctrl-C ends it"))
        finally:
            with Deferral():  # a second Ctrl-C
                under_way = runs_here(instance)
                services.end()
                for line in leave_for_later(instance, under_way) if under_way else ():
                    say(line)


def _commands(folder: Path, host: str, port: int) -> list[list[str]]:
    """A code server, and behind it webserver and daemon; its socket and what tells them of it are in a folder."""
    listening, workspace = folder / "socket", folder / "workspace.yaml"
    server = {"socket": str(listening), "host": "localhost", "location_name": DEFINITIONS}
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    loads = ["--lazy-load-user-code", "--location-name", DEFINITIONS, "-m", DEFINITIONS]  # the UI shows an error of it
    shown = ["-h", host, "-p", str(port), "--live-data-poll-rate", "2000", "--dagster-log-level", "warning"]
    of_workspace, quiet = ["-w", str(workspace)], ["--log-level", "warning"]
    return [
        [sys.executable, "-m", "dagster", "api", "grpc", "--socket", str(listening), *loads, *quiet],
        [*_behind(listening, "dagster_webserver.cli"), *of_workspace, *shown],
        [*_behind(listening, "dagster._daemon.cli"), "run", *of_workspace, *quiet],
    ]


def _behind(listening: Path, module: str) -> list[str]:
    return [sys.executable, "-c", BEHIND.format(module=module, seconds=LOOK_SECONDS), str(listening)]


def _watch(services: Together, host: str, port: int, is_up: Callable[[], None]) -> None:
    """Wait for ever, or until a process ends, which is an error; `is_up` is called once something listens at the port."""
    is_told = False
    while (code := services.ended()) is None:
        time.sleep(LOOK_SECONDS)
        if not is_told:
            with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1.0):
                is_told = True
                is_up()
    raise ValueError(f"Dagster has ended by itself, with exit code {code}: what it said stands above")


@contextmanager
def _named_damage(home: Path) -> Iterator[None]:
    """Turn what Dagster and its storage say of damaged files into an error that names the file.

    Raises:
        DamagedFile: the settings or a database are damaged.
    """
    import dagster as dg
    from sqlalchemy.exc import DatabaseError

    try:
        yield
    except dg.DagsterInvalidConfigError as error:
        first = error.errors[0].message if error.errors else str(error)
        raise DamagedFile(
            home / SETTINGS_FILE, f"is not as Dagster wants it ({one_line(first)})", WRITTEN_ANEW
        ) from error
    except DatabaseError as error:
        for file in sorted(home.rglob("*.db")):
            if wrong := _wrong_with(file):
                raise DamagedFile(file, f"is damaged ({wrong})", BEGUN_ANEW) from error
        raise DamagedFile(
            home, f"Dagster's storage cannot be used ({one_line(str(error.orig))})", BEGUN_ANEW
        ) from error
    except dg.DagsterInvalidInvocationError as error:
        if "table" not in str(error):
            raise
        raise DamagedFile(home / DATABASES, f"lacks tables ({one_line(str(error))})", BEGUN_ANEW) from error


def _wrong_with(database: Path) -> str:
    """What is wrong with a file of SQLite; empty where nothing is."""
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            found = str(connection.execute("PRAGMA quick_check").fetchone()[0])
    except sqlite3.Error as error:
        return str(error)
    return "" if found == "ok" else one_line(found)


def _put_in_order(store: "Store", instance: "dg.DagsterInstance", *, goes_on: bool) -> list[str]:
    """End the runs whose process has died, and sweep what such processes left half-written.

    Returns:
        What was done, a line each.
    """
    from nfl_lora_pipeline.defs.leases import end_dead_runs, in_words

    lines = [in_words(instance, run) for run in end_dead_runs(instance, goes_on=goes_on)]
    swept = [str(path.relative_to(store.root)) for path in store.sweep()]
    return lines + ([f"left half-written by a process that has ended, and mended: {', '.join(swept)}"] if swept else [])


def _uncaptured(home: Path) -> str:
    """The name of a copy of the instance's settings under which a step's output is not captured.

    Dagster captures it with two helper processes, which a Ctrl-C in the terminal hits as well, and takes the terminal away
    from whatever shows progress. What a step logs is in the UI all the same.
    """
    content = yaml.safe_dump({**_settings(home), "compute_logs": UNCAPTURED})
    replace_file(home / COMMAND_LINE, f"# Made by nfl-lora of dagster.yaml for its own runs.\n{content}".encode())
    return COMMAND_LINE


def _settings(home: Path) -> dict[str, Any]:
    """What stands in `dagster.yaml`; nothing where there is no such file.

    Raises:
        DamagedFile: it is no mapping in YAML.
    """
    file = home / SETTINGS_FILE
    if not os.path.lexists(file):
        return {}
    try:
        settings = yaml.safe_load(read_file(file, mend=WRITTEN_ANEW)) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DamagedFile(file, f"is no YAML ({one_line(str(error))})", WRITTEN_ANEW) from error
    if not isinstance(settings, dict):
        raise DamagedFile(file, "is damaged (no mapping)", WRITTEN_ANEW)
    return settings
