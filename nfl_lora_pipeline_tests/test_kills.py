"""The command is ended in the middle, by a kill, a signal, a key: a share of `kills`, and what it leaves out."""

import contextlib
import json
import os
import pty
import random
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time

import dagster as dg
import pytest
from dagster._core.events import EngineEventData  # what Dagster itself logs of a process that it starts

from nfl_lora_pipeline.defs.instance import dagster_home
from nfl_lora_pipeline.defs.leases import LEASE_SECONDS, PROCESS_TAG, RENEWED_TAG, end_dead_runs
from nfl_lora_pipeline.files import locked
from nfl_lora_pipeline.processes import Process
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline_tests import kills
from nfl_lora_pipeline_tests.kills import Run, Scene
from nfl_lora_pipeline_tests.servers import with_fault

SHORTLY = 10.0  # seconds, however busy the machine is; the campaign, on a quiet one, allows 3
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CLEARED = "\x1b[?25h"  # the cursor is shown again: what comes after it is what the command says at its end


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    return Scene.make(tmp_path_factory.mktemp("kills"))


@pytest.fixture(scope="module")
def wanted(scene) -> str:
    """The hash of the adapter of a run that was left alone, whose store is `scene.folder / "alone"`."""
    return kills.left_alone(scene)


@pytest.mark.parametrize(
    ("step", "signum"),
    [
        ("adapter", signal.SIGKILL),
        pytest.param("evaluation_report", signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param("storage", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("adapter", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("check", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_ended_is_gone_on_with_by_the_same_command(scene, wanted, step, signum):
    kill = kills.disturbed(
        scene,
        scene.folder / f"{step}-{signum}",
        step,
        signum,
        wanted,
        rng=random.Random(3 * signum),
        most_seconds=SHORTLY,
    )
    assert kill is not None, "the run was over before the signal"
    assert kill.problems == ()


@pytest.mark.slow
def test_a_training_goes_on_from_the_step_at_which_it_was_asked_to_end(scene, wanted):
    store = scene.folder / "asked"
    run = Run.start(scene, store)
    assert run.has_said("adapter: iteration")
    run.process.send_signal(signal.SIGTERM)
    assert run.end(30) == 143
    assert run.said[-1].startswith("Interrupted: adapter is kept at iteration ")
    kept = int(run.said[-1].split("iteration ")[1].split(";")[0])
    again = Run.start(scene, store)
    assert again.end() == 0
    held = Store(store)
    log = json.loads((held.adapter(held.latest()) / "training.json").read_text())
    assert log["resumed"] == [kept]
    assert kills.problems_of_the_store(store, wanted) == []


@pytest.mark.slow  # that a run waits, and says for whom, is seen below
def test_two_runs_at_once_take_turns_and_the_second_says_whom_it_waits_for(scene, wanted):
    store = scene.folder / "two"
    first = Run.start(scene, store)
    assert first.has_said("raw_wr_json:")
    second = Run.start(scene, store)
    assert second.has_said(f"waiting for nfl-lora run: process {first.process.pid} on ")
    assert first.end() == 0
    assert second.end() == 0
    assert any("is there already" in line for line in second.said), second.said
    assert kills.problems_of_the_store(store, wanted) == []


@pytest.mark.parametrize(
    ("lock", "signum"), [pytest.param("season", signal.SIGINT, marks=pytest.mark.slow), ("accelerator", signal.SIGTERM)]
)
def test_a_run_that_waits_ends_when_it_is_told_to(scene, tmp_path, lock, signum):
    with locked(Store(tmp_path).lock(lock), purpose="somebody's update"):
        run = Run.start(scene, tmp_path)
        assert run.has_said(f"waiting for somebody's update: process {os.getpid()} on ")
        sent = time.monotonic()
        run.process.send_signal(signum)
        assert run.end(30) == 128 + signum
        assert time.monotonic() - sent < SHORTLY


def test_a_run_of_the_command_line_that_is_terminated_in_the_ui_ends_and_is_cancelled(scene, tmp_path):
    run = Run.start(scene, tmp_path)
    assert run.has_said("adapter: iteration")
    with dg.DagsterInstance.from_config(str(Store(tmp_path).dagster)) as instance:
        (going_on,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        instance.report_run_canceling(going_on)  # what *Terminate* does first; there is no code server to do the rest
        assert run.end(30) == 143
        assert run.said[-1].startswith("Interrupted: ")
        assert instance.get_run_by_id(going_on.run_id).status == dg.DagsterRunStatus.CANCELED


@pytest.mark.slow
def test_a_run_started_where_interrupts_are_ignored_ends_by_them_all_the_same(scene, tmp_path):
    run = Run.start(scene, tmp_path, under=["sh", "-c", """trap '' HUP INT TERM; exec "$@\"""", "sh"])
    assert run.has_said("players:")
    run.process.send_signal(signal.SIGHUP)  # as `nohup` has it
    run.process.send_signal(signal.SIGTERM)
    assert run.end(30) == 143


def test_what_a_killed_process_held_is_free_and_its_leftovers_are_swept(tmp_path):
    held = Store(tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from nfl_lora_pipeline.files import locked, replacing_folder\n"
        "with locked(Path(sys.argv[1])), replacing_folder(Path(sys.argv[2])) as folder:\n"
        "    (folder / 'adapters.safetensors').write_bytes(b'weights')\n"
        "    print('holds', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code, str(held.lock("accelerator")), str(held.adapter("0123"))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        (unfinished,) = (tmp_path / "adapters").iterdir()
        assert held.sweep() == [], "what a living process writes is left alone"
        with locked(held.lock("accelerator"), wait=False) as free:
            assert not free
        process.kill()
    with locked(held.lock("accelerator"), wait=False) as free:
        assert free
    assert held.sweep() == [unfinished]
    assert list((tmp_path / "adapters").iterdir()) == []


def test_a_folder_whose_successor_never_came_is_put_back(tmp_path):
    held = Store(tmp_path)
    moved = held.report("0123").with_name(".0123.aabbccddeeff.old")
    moved.mkdir(parents=True)
    (moved / "alternatives.json").write_text("{}")
    theirs = moved.with_name(".notes.tmp")
    theirs.write_text("somebody's")
    assert held.sweep() == [held.report("0123")]
    assert theirs.exists(), "what others have called so is theirs"
    assert (held.report("0123") / "alternatives.json").read_text() == "{}"


def test_a_link_that_was_made_and_never_moved_into_its_place_is_swept_when_it_is_old(tmp_path):
    held = Store(tmp_path)
    link = held.current.with_name(".current.aabbccddeeff.tmp")
    link.parent.mkdir()
    link.symlink_to("0123")
    assert held.sweep() == [], "somebody may be about to move it"
    os.utime(link, (0, 0), follow_symlinks=False)
    assert held.sweep() == [link]
    assert not link.is_symlink()


def test_a_process_is_told_from_another_that_was_given_its_number():
    me = Process.this()
    assert me.is_alive
    assert Process.from_json(json.loads(json.dumps(me.to_json()))) == me
    assert not Process(me.host, me.pid, "another start").is_alive
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    assert not Process(me.host, child.pid, "any").is_alive


@pytest.mark.parametrize("after", [pytest.param("base_model", marks=pytest.mark.slow), "adapter"])
def test_control_c_in_a_terminal_gives_the_prompt_back_and_says_one_line(scene, tmp_path, after):
    pid, terminal = pty.fork()
    if pid == 0:
        words = scene.command(tmp_path)
        os.execve(words[0], words, os.environ | {"COLUMNS": "120"})
    screen, sent, said_before = "", None, 0
    while True:
        if select.select([terminal], [], [], 60)[0]:
            try:
                read = os.read(terminal, 65536).decode(errors="replace")
            except OSError:  # the terminal is closed when the process has ended
                break
            screen += read
        if sent is None and after in screen:
            os.write(terminal, b"\x03")
            sent, said_before = time.monotonic(), len(screen)
    assert sent is not None, screen[-500:]
    _, status = os.waitpid(pid, 0)
    assert time.monotonic() - sent < SHORTLY
    assert os.waitstatus_to_exitcode(status) == 130
    said = screen[said_before:]
    assert "Traceback" not in said
    last = ESCAPES.sub("", said.rsplit(CLEARED, 1)[-1]).strip().splitlines()
    assert len(last) <= 3, last
    assert last[-1].startswith("Interrupted: "), last


def test_no_function_of_the_product_is_left_with_a_retry_policy():
    """A retry policy of Dagster's takes an interrupt for a failure: what may pass is tried again where it is known to."""
    from nfl_lora_pipeline.definitions import build_definitions
    from nfl_lora_pipeline.settings import Settings

    repository = build_definitions(Settings()).get_repository_def()
    with_policy = [
        node.name
        for job in repository.get_all_jobs()
        for node in job.nodes
        if node.retry_policy or getattr(node.definition, "retry_policy", None)
    ]
    assert with_policy == []


def test_the_storage_of_a_run_left_behind_by_another_machine_waits_for_its_lease(tmp_path):
    @dg.job
    def nothing() -> None: ...

    elsewhere = json.dumps(Process("another machine", 1, "then").to_json())
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        runs = {
            age: instance.create_run_for_job(
                nothing,
                status=dg.DagsterRunStatus.STARTED,
                tags={PROCESS_TAG: elsewhere, RENEWED_TAG: f"{time.time() - age:.0f}"},
            )
            for age in (LEASE_SECONDS / 2, LEASE_SECONDS * 2)
        }
        fresh, old = runs.values()
        assert [run.run_id for run in end_dead_runs(instance)] == [old.run_id]
        assert instance.get_run_by_id(fresh.run_id).status == dg.DagsterRunStatus.STARTED
        assert instance.get_run_by_id(old.run_id).status == dg.DagsterRunStatus.FAILURE


def test_a_process_that_dagster_names_is_looked_for_on_one_machine_alone(tmp_path):
    """Before a run bears its process as a tag there is a number in Dagster's own events, which says nothing elsewhere."""

    @dg.job
    def nothing() -> None: ...

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTING)
        gone = EngineEventData(metadata={"pid": dg.MetadataValue.text(str(2**22))})
        instance.report_engine_event("Started process for run.", run, gone)
        assert end_dead_runs(instance, on_one_machine=False) == []
        assert [each.run_id for each in end_dead_runs(instance)] == [run.run_id]


def test_a_run_that_is_made_anew_is_not_taken_for_the_dead_one_whose_tags_it_bears(tmp_path):
    """Dagster copies a run's tags to its retry, and to what somebody executes again in the UI."""

    @dg.job
    def nothing() -> None: ...

    process = Process.this().to_json()
    dead, later = (json.dumps(process | {"pid": 2**22, "began": began}) for began in ("another time", "a later time"))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        old = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: dead})
        assert [run.run_id for run in end_dead_runs(instance)] == [old.run_id]
        anew = instance.create_run_for_job(
            nothing,
            status=dg.DagsterRunStatus.STARTING,
            tags=instance.get_run_by_id(old.run_id).tags,
            parent_run_id=old.run_id,
            root_run_id=old.run_id,
        )
        assert end_dead_runs(instance) == []
        instance.add_run_tags(anew.run_id, {PROCESS_TAG: later})
        assert [run.run_id for run in end_dead_runs(instance)] == [anew.run_id], "a process of its own, which has died"


LATE = """\
import os, signal
from nfl_lora_pipeline.interrupts import heard

class Tidied:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

with heard():
    tidied = Tidied()
    del tidied
"""


def test_an_interrupt_that_was_lost_and_is_to_come_again_does_not_come_into_the_end_of_the_interpreter():
    ended = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


def run_lines(code: str) -> "subprocess.CompletedProcess[str]":
    """Lines of Python in a process of their own."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)


def test_an_interrupt_that_a_library_logs_before_it_lets_it_go_on_is_not_printed():
    code = (
        "import logging, signal\nfrom nfl_lora_pipeline.interrupts import Interrupted, heard\n"
        "try:\n    with heard():\n        try:\n            signal.raise_signal(signal.SIGINT)\n"
        "        except BaseException:\n            logging.getLogger('sqlalchemy.pool').error('closing', exc_info=True)\n"
        "            raise\n"
        "except Interrupted as interrupt:\n    logging.error('this is told')\n    print(interrupt.exit_code)"
    )
    ended = run_lines(code)
    assert ended.stdout == "130\n"
    assert "closing" not in ended.stderr
    assert "this is told" in ended.stderr


def test_neither_is_an_error_that_comes_of_what_an_interrupt_left_half_closed():
    code = (
        "import logging, signal\nfrom nfl_lora_pipeline.interrupts import Interrupted, heard\n"
        "try:\n    with heard():\n        try:\n            signal.raise_signal(signal.SIGINT)\n"
        "        except BaseException:\n            try:\n                raise OSError('half closed')\n"
        "            except OSError:\n                logging.getLogger('sqlalchemy.pool').error('reset', exc_info=True)\n"
        "            raise\n"
        "except Interrupted as interrupt:\n    print(interrupt.exit_code)"
    )
    ended = run_lines(code)
    assert (ended.stdout, ended.stderr) == ("130\n", "")


def test_a_closed_terminal_that_is_put_off_is_told_as_one():
    code = (
        "import signal\nfrom nfl_lora_pipeline.interrupts import Deferral, Interrupted, heard\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # under `nohup` it would be ignored, as it should be
        "try:\n    with heard(), Deferral():\n        signal.raise_signal(signal.SIGHUP)\n"
        "except Interrupted as interrupt:\n    print(interrupt.exit_code)"
    )
    ended = run_lines(code)
    assert ended.stdout == "129\n"


ENDLESS_STEP = (
    "import time\nfrom nfl_lora_pipeline.tuning.sampler import Sampler\n"
    "def take(self, count):\n    print('a step that never ends', flush=True)\n    while True:\n        time.sleep(0.01)\n"
    "Sampler.take = take"
)


def test_what_is_put_off_ends_at_once_when_it_comes_again_a_while_after():
    code = (
        "import os, signal, time\nfrom nfl_lora_pipeline.interrupts import Deferral, Interrupted, heard\n"
        "try:\n    with heard(), Deferral():\n"
        "        for pause in (0.0, 0.1, 1.2):\n"
        "            time.sleep(pause)\n            os.kill(os.getpid(), signal.SIGINT)\n            print('goes on')\n"
        "except Interrupted as interrupt:\n    print(interrupt.exit_code)"
    )
    ended = run_lines(code)
    assert ended.stdout == "goes on\ngoes on\n130\n"


@pytest.mark.slow
def test_a_second_ctrl_c_ends_a_training_whose_step_never_ends(scene, tmp_path):
    words = [sys.executable, *with_fault(ENDLESS_STEP), *scene.command(tmp_path)[3:]]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        assert any("a step that never ends" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        time.sleep(1.5)
        assert process.poll() is None, "it waits for the end of the step"
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        assert process.wait(SHORTLY) == 130
    assert "Traceback" not in said


def test_a_storage_that_lacks_a_table_is_named_with_its_mend_and_is_made_whole_once_it_is_moved_away(scene, tmp_path):
    run = Run.start(scene, tmp_path)
    assert run.has_said("raw_wr_json:")
    run.process.kill()
    run.end(30)
    home = Store(tmp_path).dagster
    with contextlib.closing(sqlite3.connect(home / "history" / "runs" / "index.db")) as index:
        index.execute("DROP TABLE dynamic_partitions")
    again = Run.start(scene, tmp_path)
    assert again.end(60) == 1
    assert f"{home / 'history'}: lacks tables" in again.said[-1]
    assert "move the folder `dagster` of the store away" in again.said[-1]
    assert not any("Traceback" in line for line in again.said)
    home.rename(tmp_path / "away")
    last = Run.start(scene, tmp_path)
    assert last.has_said("players:"), last.said
    last.process.kill()
    last.end(30)


def test_settings_that_were_there_before_the_storage_are_kept(tmp_path):
    settings = Store(tmp_path).dagster / "dagster.yaml"
    settings.parent.mkdir()
    settings.write_text("telemetry:\n  enabled: false\n# mine\n")
    home = dagster_home(Store(tmp_path))
    assert settings.read_text().endswith("# mine\n")
    assert (home / "history" / "runs.db").is_file()
