"""`nfl-lora ui` as somebody uses it: at a terminal, and by clicking in a browser. One deployment for all, on a tiny week."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from deploy.loopback import free_port
from nfl_lora_pipeline.defs.common import CODE, nfl_week
from nfl_lora_pipeline.defs.instance import opened
from nfl_lora_pipeline.evaluation.summary import key_figures
from nfl_lora_pipeline.files import locked
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.reports.report import read_report
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline_tests.recipes import TOO_LITTLE_TAUGHT
from nfl_lora_pipeline_tests.servers import command_lines, descendants, living

FLOW = ["raw_wr_json", "players", "qa_pairs", "dataset_splits", "adapter", "evaluation_report", "promoted_adapter"]
PATIENCE = 300.0  # seconds, for a training on a slow machine
PAGE_PATIENCE = 90.0  # and for what is to be seen on a page
END_SECONDS = 5.0
WEEK = "2025-W01"
GROUP = "/locations/nfl_lora_pipeline.definitions/asset-groups/{}"
RUNS = "{ runsOrError { ... on Runs { results { runId status } } } }"
LOG = """query Log($run: ID!) { logsForRun(runId: $run) {
    ... on EventConnection { events { ... on MessageEvent { message } } } } }"""


@dataclass
class Ui:
    """The command at a terminal."""

    pid: int
    terminal: int
    port: int
    folder: Path
    shown: str = ""

    @property
    def store(self) -> Store:
        return Store(self.folder / "data")

    def listen(self) -> None:
        """Take in what it writes, to its end."""
        with contextlib.suppress(OSError):  # the terminal is closed when the process has ended
            while True:
                self.shown += os.read(self.terminal, 65_536).decode(errors="replace")

    @property
    def address(self) -> str:
        """Where it says that it is."""
        found = re.search(r"The UI is at (\S+); Ctrl-C ends it", self.shown)
        return found[1] if found else ""

    def page(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def ask(self, query: str, **variables: str) -> Any:
        answer = requests.post(self.page("/graphql"), json={"query": query, "variables": variables}, timeout=60).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def runs(self) -> dict[str, str]:
        """The status of each by its id, the newest first."""
        return {run["runId"]: run["status"] for run in self.ask(RUNS)["runsOrError"]["results"]}

    def next_run(self, before: dict[str, str]) -> str:
        """The run that comes to those that were there."""
        self.wait(lambda: len(self.runs()) == len(before) + 1, what="a run")
        return next(iter(self.runs()))

    def log(self, run: str) -> list[str]:
        return [event.get("message", "") for event in self.ask(LOG, run=run)["logsForRun"]["events"]]

    def wait(self, until: Callable[[], bool], *, what: str) -> None:
        began = time.monotonic()
        while not until():
            assert time.monotonic() - began < PATIENCE, f"{what} did not happen: {self.shown[-2000:]}"
            time.sleep(0.2)

    def start_run(self, *assets: str, **tags: str) -> str:
        """Have assets materialised; the run, once it is there."""
        from dagster_graphql import DagsterGraphQLClient

        before = self.runs()
        client = DagsterGraphQLClient("127.0.0.1", port_number=self.port)
        client.submit_job_execution("__ASSET_JOB", asset_selection=[[name] for name in assets], tags=tags)
        return self.next_run(before)

    def train_for_long(self) -> str:
        """Have a training begin that takes minutes, and wait for its first steps; the run."""
        if not self.store.weeks():  # no browser has made them
            with opened(self.store) as instance:
                instance.add_dynamic_partitions(str(nfl_week.name), [WEEK])
            week = self.start_run("raw_wr_json", "players", "qa_pairs", **{"dagster/partition": WEEK})
            self.wait(lambda: self.runs()[week] == "SUCCESS", what="the end of the week's run")
        write_recipe(self.folder, max_epochs=400, fresh_known=0.999, fresh_patience=1.0)
        run = self.start_run("dataset_splits", "base_model", "adapter")
        self.wait(lambda: "known when last shown" in str(self.log(run)), what="some steps")
        return run


def write_recipe(folder: Path, **values: Any) -> Path:
    """The recipe of the deployment: a dozen people teach little of strangers, so that only what is taught has to be known."""
    loose = {
        "min_refused": 0.0,
        "min_refused_positions": 0.0,
        "max_over_refused": 1.0,
        "min_retained": 0.0,
        "advisory": TOO_LITTLE_TAUGHT,
        "floors": {},
    }
    recipe = load_recipe("embedded").changed(batch_rows=16, **loose, **values)
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.model_dump()))
    return file


@contextmanager
def running_ui(folder: Path, data: Path) -> Iterator[Ui]:
    port = free_port()
    command = [sys.executable, "-m", "nfl_lora_pipeline.cli.main", "ui", "--port", str(port), "--source", "folder"]
    command += ["--data-dir", str(data), "--store", str(folder / "data"), "--recipe", str(folder / "recipe.yaml")]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], command)
    running = Ui(pid, terminal, port, folder)
    threading.Thread(target=running.listen, daemon=True).start()
    children: set[int] = set()
    try:
        running.wait(lambda: bool(running.address), what="the start")
        children = descendants(pid)
        yield running
    finally:
        for process in {*children, *descendants(pid), pid} & living().keys():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@pytest.fixture(scope="module")
def ui(tmp_path_factory, tiny_week_folder) -> Iterator[Ui]:
    folder = tmp_path_factory.mktemp("ui")
    write_recipe(
        folder, max_steps=24, ending_steps=8, fresh_known=0.0, min_recall=None
    )  # what is learnt does not matter
    with running_ui(folder, tiny_week_folder) as running:
        yield running


@pytest.fixture
def page(browser, ui):
    opened = browser.new_page(viewport={"width": 1800, "height": 900})
    opened.set_default_timeout(PAGE_PATIENCE * 1000)
    yield opened
    opened.close()


def season_clicked_on(ui, page):
    """Have the season materialised as somebody does it in the browser; the run."""
    before = ui.runs()
    page.goto(ui.page(GROUP.format("season")))
    page.get_by_role("button", name="Materialize all").first.click()
    return ui.next_run(before)


def test_the_lineage_is_where_the_ui_says_that_it_is_in_the_order_of_the_flow(ui, page):
    page.goto(ui.address)
    places = []
    for name in FLOW:
        node = page.locator("foreignObject").filter(has=page.get_by_text(name, exact=True)).last
        node.wait_for()
        places.append(node.bounding_box()["x"])
    assert places == sorted(set(places))


def test_a_week_is_materialised_by_clicking_as_the_document_says(ui, page):
    page.goto(ui.page(GROUP.format("weeks")))
    page.get_by_role("button", name="Materialize all").first.click()
    page.get_by_text("Add a partition").click()
    page.get_by_placeholder("name").fill(WEEK)
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Launch 1 run").click()
    run = ui.next_run({})
    ui.wait(lambda: ui.runs()[run] == "SUCCESS", what="the end of the week's run")
    assert [str(week) for week in ui.store.weeks()] == [WEEK]


def test_a_check_that_failed_is_seen_and_says_why(ui, page):
    assert ui.store.weeks(), "the test before has made none"
    page.goto(ui.page("/assets/players?view=checks&checkDetail=size_is_usual"))
    page.get_by_text("11 rows; a full week has 300 to 700").first.wait_for()
    assert page.get_by_text("Failed").first.is_visible()


def test_a_season_is_materialised_by_clicking(ui, page):
    assert ui.store.weeks(), "the test before has made none"
    run = season_clicked_on(ui, page)
    ui.wait(lambda: ui.runs()[run] == "SUCCESS", what="the end of the season's run")
    assert ui.store.promoted()


@pytest.mark.slow
def test_a_training_that_was_cancelled_by_clicking_goes_on_from_there(ui, page):
    assert ui.store.weeks(), "the test before has made none"
    write_recipe(ui.folder, max_epochs=30, ending_steps=60, fresh_known=0.0)  # which no adapter was made with yet
    run = season_clicked_on(ui, page)
    page.goto(ui.page(f"/runs/{run}"))
    ui.wait(lambda: "known when last shown" in str(ui.log(run)), what="some steps")
    page.get_by_role("button", name="Terminate").click()
    page.get_by_role("button", name="Terminate 1 run").click()
    ui.wait(lambda: ui.runs()[run] == "CANCELED", what="the end of the run")
    ui.wait(lambda: run not in command_lines(), what="the end of its process")
    (unfinished,) = ui.store.all_unfinished()
    assert [file.name for file in unfinished.iterdir()] == ["checkpoint.safetensors"]
    with locked(ui.store.lock("accelerator"), wait=False) as free:
        assert free
    run = season_clicked_on(ui, page)
    ui.wait(lambda: ui.runs()[run] == "SUCCESS", what="the end of the season's run")
    assert any("going on from iteration" in line for line in ui.log(run))
    assert ui.store.promoted()
    assert ui.store.all_unfinished() == []


def test_the_page_of_the_adapter_shows_its_course_as_a_picture_and_draws_its_figures(ui, page):
    assert ui.store.promoted(), "the test before has made none"
    page.goto(ui.page("/assets/adapter?view=overview"))
    page.get_by_text("[Show Markdown]").click()
    page.locator("img[alt=loss]").wait_for()
    assert page.locator("img[alt=loss]").bounding_box()["width"] > 200
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Plots").click()
    for name in ("certain (%)", "loss"):
        page.get_by_text(name, exact=True).wait_for()
    assert page.locator("canvas").count() > 5


def test_the_page_of_the_report_shows_the_verdict_five_figures_and_the_reports_head(ui, page):
    assert ui.store.promoted(), "the test before has made none"
    page.goto(ui.page("/assets/evaluation_report?view=overview"))
    summary, _ = read_report(ui.store.report(str(ui.store.promoted())), evaluation_code=CODE["evaluation_report"])
    page.get_by_text(summary.head_line.partition(". ")[0]).wait_for()
    for figure in key_figures(summary):
        page.get_by_text(f"{figure.name} (%)", exact=True).wait_for()
    page.get_by_text("[Show Markdown]").click()
    page.get_by_text("report.html").last.wait_for()
    for shown in summary.questions:
        assert page.get_by_text(shown.question).is_visible()


def test_a_ctrl_c_ends_it_with_all_its_children_and_what_runs_in_them(ui):
    """Last of those that click: nothing is left to click on behind it."""
    run = ui.train_for_long()
    children = descendants(ui.pid)
    assert len(children) >= 5, "the shell that watches, webserver, daemon, code server and the training"
    began = time.monotonic()
    os.write(ui.terminal, b"\x03")
    while children & living().keys():
        time.sleep(0.1)
        assert time.monotonic() - began < END_SECONDS, ui.shown[-2000:]
    _, status = os.waitpid(ui.pid, 0)
    assert time.monotonic() - began < 2 * END_SECONDS, "it notes down what was broken off"
    assert os.waitstatus_to_exitcode(status) == 130
    assert f"run {run[:8]} (" in ui.shown
    assert list(ui.store.root.rglob("checkpoint.safetensors")), "what it had learnt is kept"


def test_what_a_killed_process_keeps_together_is_killed_with_it_and_so_is_what_that_has_started():
    service = ["sh", "-c", "sleep 300 & sleep 300"]
    code = f"import os, time; from nfl_lora_pipeline.processes import Together; Together(60.0).start({service}, os.environ)"
    killed = subprocess.Popen([sys.executable, "-c", f"{code}; time.sleep(300)"])
    try:
        while (
            len(children := descendants(killed.pid)) < 4
        ):  # the shell that watches, the service, and the two that it has started
            time.sleep(0.05)
    finally:
        killed.kill()
    began = time.monotonic()
    while children & living().keys():
        assert time.monotonic() - began < END_SECONDS
    killed.wait()


@pytest.mark.slow
def test_nothing_outlives_a_command_that_was_killed_and_what_it_left_is_noted_down(ui, tiny_week_folder):
    with running_ui(ui.folder, tiny_week_folder) as killed:
        run = killed.train_for_long()
        children = descendants(killed.pid)
        assert len(children) >= 5
        began = time.monotonic()
        os.kill(killed.pid, signal.SIGKILL)
        while children & living().keys():
            time.sleep(0.1)
            assert time.monotonic() - began < END_SECONDS
        os.waitpid(killed.pid, 0)
    told: list[str] = []
    with opened(ui.store, told.append):
        assert f"run {run[:8]} (" in str(told)
