"""A season on a live daemon and webserver: `nfl-lora ui --watch` on a folder, driven through files and GraphQL."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from deploy.loopback import free_port
from nfl_lora_pipeline.defs.leases import DEAD_TAG
from nfl_lora_pipeline.files import locked
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.sources.folder import week_file
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests import upstream
from nfl_lora_pipeline_tests.servers import command_lines, descendants, living

W1, W2, W3 = (NflWeek(2025, number) for number in (1, 2, 3))
RUNS = (
    """{ runsOrError(limit: 200) { ... on Runs { results { status assetSelection { path } tags { key value } } } } }"""
)
SWITCHES = """{ repositoriesOrError { ... on RepositoryConnection { nodes {
    sensors { name sensorState { status } } schedules { name scheduleState { status } } } } } }"""
FAILED = """{ runsOrError(filter: {statuses: [FAILURE]}) { ... on Runs { results { runId tags { key value } } } } }"""
RUNNING = (
    """{ runsOrError(filter: {statuses: [STARTED]}) { ... on Runs { results { runId assetSelection { path } } } } }"""
)
CANCELED = """{ runsOrError(filter: {statuses: [CANCELED]}) { ... on Runs { results { runId } } } }"""
IGNORING = """trap '' INT TERM HUP; exec "$@\""""  # as `nohup` and a script's `&` have it, and what children inherit
PATIENCE = 420.0  # seconds; a slow machine trains for a minute


@dataclass
class Live:
    """A running deployment."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def store(self) -> Store:
        return Store(self.folder / "data")

    def publish(self, week: NflWeek, *, yards: str) -> None:
        _publish(self.folder, week, yards=yards)

    def ask(self, query: str) -> dict[str, Any]:
        answer = requests.post(f"http://127.0.0.1:{self.port}/graphql", json={"query": query}, timeout=60).json()
        assert "errors" not in answer, answer
        found: dict[str, Any] = answer["data"]
        return found

    def materialise(self, name: str, week: NflWeek) -> None:
        """Click on *Materialize* for one partition."""
        from dagster_graphql import DagsterGraphQLClient

        client = DagsterGraphQLClient("127.0.0.1", port_number=self.port)
        client.submit_job_execution("__ASSET_JOB", asset_selection=[[name]], tags={"dagster/partition": str(week)})

    def ran(self) -> list[str]:
        """What has run or is running, as "players 2025-W01" or "adapter", sorted."""
        found = []
        for run in self.ask(RUNS)["runsOrError"]["results"]:
            keys = [tag["value"] for tag in run["tags"] if tag["key"] == "dagster/partition"]
            found += [" ".join([asset["path"][0], *keys]) for asset in run["assetSelection"] or []]
        return sorted(found)

    def promoted_weeks(self) -> list[str]:
        promoted = self.store.promoted()
        return self.store.provenance(promoted).weeks if promoted else []

    def wait(self, until: Callable[[], bool], *, what: str) -> float:
        began = time.monotonic()
        while not until():
            assert self.process.poll() is None, "nfl-lora ui has ended"
            waited = time.monotonic() - began
            assert waited < PATIENCE, f"{what} did not happen; ran: {self.ran()}; failed: {self.ask(FAILED)}"
            time.sleep(1)
        return time.monotonic() - began


@pytest.fixture(scope="module")
def live(request, tmp_path_factory) -> Iterator[Live]:
    """A deployment in whose store the command line has made week 1, by the recipe of the fixture that is named."""
    with _watching(tmp_path_factory.mktemp("live"), request.getfixturevalue(request.param), _finish) as running:
        yield running


@contextlib.contextmanager
def _watching(folder: Path, recipe: str, begin: Callable[[list[str]], None]) -> Iterator[Live]:
    """The command line is begun on week 1, as `begin` does it with its words; behind it a folder is watched."""
    port = free_port()
    where = ["--source", "folder", "--data-dir", str(folder / "raw"), "--store", str(folder / "data")]
    where += ["--recipe", recipe]
    _publish(folder, W1, yards="84")
    begin([sys.executable, "-m", "nfl_lora_pipeline.cli.main", "run", *where])
    command = [sys.executable, "-m", "nfl_lora_pipeline.cli.main", "ui", "--watch", "--port", str(port), *where]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", IGNORING, "sh", *command],
            env=os.environ | {"NFL_LORA_WATCH_SECONDS": "5"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        running = Live(folder, port, process)
        try:
            running.wait(lambda: _answers(port), what="the webserver's start")
            yield running
        finally:
            started = descendants(process.pid)
            process.terminate()
            if not _have_ended(started, process):
                for each in (*started, process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(each, signal.SIGKILL)
                pytest.fail("nfl-lora ui was ended, and something that it started goes on")


def _publish(folder: Path, week: NflWeek, *, yards: str) -> None:
    """Put a week's file there at once, as a download that is moved into place."""
    first, *others = upstream.tiny_week()
    file = week_file(folder / "raw", week)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    unfinished.write_bytes(upstream.week_bytes([first | {"ReceivingYDS": yards}, *others]))
    unfinished.replace(file)


def _finish(command: list[str]) -> None:
    """Run the command line to its end."""
    subprocess.run(command, check=True, capture_output=True)


def _kill_in_training(command: list[str]) -> None:
    """Run the command line, and kill it behind its first checkpoint, so that nothing can be tidied up."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(line.startswith("adapter: iteration") and "rows asked" in line for line in process.stderr)
        process.kill()


def _have_ended(started: set[int], process: "subprocess.Popen[bytes]") -> bool:
    """Whether a process and all that it started end within 20 seconds; it kills the last of them after 3."""
    for _ in range(200):
        if process.poll() is not None and not started & living().keys():
            return True
        time.sleep(0.1)
    return False


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/server_info", timeout=5).ok
    except requests.ConnectionError:
        return False


@pytest.mark.parametrize("live", ["hasty_recipe", pytest.param("tiny_recipe", marks=pytest.mark.slow)], indirect=True)
def test_a_week_dropped_into_a_watched_folder_ends_in_a_promoted_adapter_and_only_changes_run(live, request, capsys):
    (repository,) = live.ask(SWITCHES)["repositoriesOrError"]["nodes"]
    states = [sensor["sensorState"]["status"] for sensor in repository["sensors"]]
    states += [schedule["scheduleState"]["status"] for schedule in repository["schedules"]]
    assert states == ["RUNNING"] * 4
    assert live.promoted_weeks() == [str(W1)]

    live.publish(W2, yards="31")
    seconds = live.wait(lambda: live.promoted_weeks() == [str(W1), str(W2)], what="an adapter of weeks 1 and 2")
    promoted = live.store.promoted()
    report = json.loads((live.store.report(promoted) / "report.json").read_text())
    assert set(report["recall_by_week"]) == {str(W1), str(W2)}
    if request.node.callspec.params["live"] == "tiny_recipe":  # by the other one nobody learns enough
        assert min(report["recall_by_week"].values()) >= 0.99
    assert live.store.provenance(promoted).parent, "week 2 went on from the adapter of week 1"
    assert live.ask(FAILED)["runsOrError"]["results"] == []

    before = live.ran()
    assert f"qa_pairs {W1}" not in before, "week 2 made nothing of week 1 anew, which the command line had made"
    live.materialise("raw_wr_json", W1)
    live.wait(lambda: live.ran() == sorted([*before, f"raw_wr_json {W1}"]), what="the same file again")
    time.sleep(25)  # two ticks of the conditions
    assert live.ran() == sorted([*before, f"raw_wr_json {W1}"])
    with capsys.disabled():
        print(f" [from the file of week 2 to its adapter {seconds:.0f} s]", end="")


@pytest.mark.slow
def test_a_run_that_was_killed_is_gone_on_with_by_the_daemon(tmp_path, tiny_recipe):
    with _watching(tmp_path, tiny_recipe, _kill_in_training) as live:
        live.wait(lambda: live.promoted_weeks() == [str(W1)], what="an adapter of week 1, whose training was killed")
        log = json.loads((live.store.adapter(str(live.store.promoted())) / "training.json").read_text())
        assert log["resumed"], "it went on from the checkpoint of the killed run"
        (failed,) = live.ask(FAILED)["runsOrError"]["results"]
        assert DEAD_TAG in {tag["key"] for tag in failed["tags"]}, "the killed one alone"


@pytest.mark.slow  # with a browser the same is clicked on in `test_ui.py`
@pytest.mark.parametrize("live", ["tiny_recipe"], indirect=True)
def test_a_training_cancelled_in_the_ui_leaves_no_process_and_no_lock_and_is_gone_on_with(live):
    from dagster_graphql import DagsterGraphQLClient

    client, known = DagsterGraphQLClient("127.0.0.1", port_number=live.port), live.store.adapters()
    live.publish(W3, yards="17")

    def checkpoints() -> list[Path]:
        return [file for folder in live.store.all_unfinished() for file in folder.glob("checkpoint.safetensors")]

    live.wait(lambda: bool(checkpoints()), what="a checkpoint of the training on three weeks")
    (run,) = [each["runId"] for each in live.ask(RUNNING)["runsOrError"]["results"] if "adapter" in str(each)]
    client.terminate_run(run)
    live.wait(lambda: run in str(live.ask(CANCELED)), what="the end of the cancelled run")
    live.wait(lambda: run not in command_lines(), what="the end of its process")
    (checkpoint,) = checkpoints()
    assert [file.name for file in checkpoint.parent.iterdir()] == ["checkpoint.safetensors"]
    with locked(live.store.lock("accelerator"), wait=False) as free:
        assert free
    assert live.store.adapters() == known

    client.submit_job_execution("__ASSET_JOB", asset_selection=[["adapter"]])
    live.wait(lambda: len(live.store.adapters()) > len(known), what="the rest of the training")
    (new,) = set(live.store.adapters()) - set(known)
    log = json.loads((live.store.adapter(new) / "training.json").read_text())
    assert log["resumed"], "it went on from the checkpoint"
    live.wait(lambda: not live.store.all_unfinished(), what="the end of what was unfinished")
