"""Whatever goes wrong in a command is one line on standard error and exit code 1; real processes, no traceback."""

import os
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from nfl_lora_pipeline.cli.terminal import in_one_line
from nfl_lora_pipeline.defs.common import nfl_week
from nfl_lora_pipeline.defs.dataset import raw_wr_json
from nfl_lora_pipeline.defs.resources import StoreResource, WeekSource
from nfl_lora_pipeline.models.base_model import EMBEDDED_FOLDER
from nfl_lora_pipeline.settings import Settings
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.week import NflWeek, parse_weeks

QUESTION = "How many receiving yards did Amari Stone have in week 1 of the 2025 NFL season?"
ANSWER = "In week 1 of the 2025 NFL season, the receiving yards of Amari Stone were 131."
COMMAND = (sys.executable, "-m", "nfl_lora_pipeline.cli.main")
STORED = {
    "run": ["--source", "sample"],
    "ask": [QUESTION],
    "ui": [],
    "rollback": [],
    "export": ["exported"],
    "serve": ["--port", "0"],
    "verify": [],
    "compare": [],
}
OF_AN_ADAPTER = {
    "ask": [QUESTION],
    "export": ["exported"],
    "export fused": ["exported", "--fused"],
    "serve": ["--port", "0"],
    "verify": [],
    "compare": [],
}


def typed(*words: str | bytes, command: tuple[str, ...] = COMMAND, **more: Any) -> subprocess.CompletedProcess[str]:
    more = {"stdout": subprocess.PIPE} | more
    return subprocess.run(
        [*command, *words], stderr=subprocess.PIPE, text=True, errors="replace", timeout=120, check=False, **more
    )


def the_line(done: subprocess.CompletedProcess[str]) -> str:
    """The error, which is the only line on standard error besides those of progress."""
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("Error: ")] == lines[-1:]
    return lines[-1].removeprefix("Error: ")


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "file"
    path.write_text("no folder")
    return path


@pytest.fixture
def copied(trained_store, tmp_path) -> Store:
    """The trained store, to be damaged."""
    root = tmp_path / "data"
    shutil.copytree(trained_store.store.root, root, symlinks=True)
    return Store(root)


@pytest.mark.parametrize("name", STORED)
def test_a_store_that_cannot_be_made_is_one_line(name, file, tmp_path):
    done = typed(name, *STORED[name], "--store", str(file / "data"), cwd=tmp_path)
    assert str(file) in the_line(done)


def test_a_base_that_cannot_be_written_is_one_line(file):
    assert "Not a directory" in the_line(typed("build-base", str(file / "base"), "--steps", "1"))


@pytest.mark.parametrize(
    "words", [["history"], ["history", "--json"], ["ask", QUESTION], ["rollback", "--help"], ["--version"]]
)
def test_a_full_disk_behind_standard_output_is_one_line(words, trained_store):
    environment = os.environ | {"NFL_LORA_STORE": str(trained_store.store.root)}
    with Path("/dev/full").open("w") as full:
        assert the_line(typed(*words, stdout=full, env=environment)) == "No space left on device"


@pytest.mark.parametrize(
    "kilobytes", [0, pytest.param(8, marks=pytest.mark.slow), pytest.param(64, marks=pytest.mark.slow), 400]
)
def test_a_full_disk_in_the_middle_of_a_run_is_one_line(kilobytes, tmp_path, tiny_week_folder, tiny_recipe):
    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))

    words = ["--source", "folder", "--data-dir", str(tiny_week_folder), "--recipe", tiny_recipe]
    done = typed("run", *words, "--store", str(tmp_path / "data"), preexec_fn=fill)
    assert "unexpected" not in the_line(done)


@pytest.mark.parametrize("folder", ["weeks", "adapters"])
def test_a_file_where_an_asset_keeps_a_folder_is_one_line_with_its_path(folder, tmp_path, tiny_week_folder):
    (tmp_path / folder).write_text("no folder")
    words = ["--source", "folder", "--data-dir", str(tiny_week_folder)]
    assert str(tmp_path / folder) in the_line(typed("run", *words, "--store", str(tmp_path)))


@pytest.mark.parametrize("words", [["export", "exported"], ["export", "exported", "--fused"]])
def test_a_full_disk_under_an_export_is_one_line_and_leaves_nothing(words, trained_store, tmp_path):
    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 * 1024, 8 * 1024))

    done = typed(*words, "--store", str(trained_store.store.root), preexec_fn=fill, cwd=tmp_path)
    assert "exported" in the_line(done)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["ui", "serve"])
def test_a_port_that_is_taken_is_one_line_before_anything_begins(name, trained_store, tmp_path):
    store = trained_store.store.root if name == "serve" else tmp_path / "data"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"--port {port}: cannot listen there" in the_line(typed(name, "--port", port, "--store", str(store)))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["ui", "serve"])
def test_an_address_of_no_one_here_is_one_line(name, trained_store):
    done = typed(name, "--host", "192.0.2.1", "--store", str(trained_store.store.root))
    assert "--host 192.0.2.1" in the_line(done)


def test_a_reader_that_has_gone_ends_the_command_in_silence(trained_store):
    reader, writer = os.pipe()
    os.close(reader)
    done = typed("history", "--store", str(trained_store.store.root), stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("question", "named"),
    [(b"How many yards did \xff have?", "not UTF-8"), ("", "blank"), (" \n", "blank"), ("a" * 100_000, "100,000")],
)
def test_a_question_that_no_model_can_be_asked_is_one_line(question, named, trained_store):
    assert named in the_line(typed("ask", question, "--store", str(trained_store.store.root)))


@pytest.mark.parametrize(
    "words", [[b"history", b"--store", b"\xff"], [b"rollback", b"\xff"], [b"run", b"--stats", b"\xff"]]
)
def test_an_argument_that_is_no_utf_8_is_shown_and_no_traceback(words, tmp_path):
    done = typed(*words, cwd=tmp_path)
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", OF_AN_ADAPTER)
def test_a_damaged_adapter_is_refused_with_its_path_and_the_mend(name, copied, tmp_path):
    weights = copied.adapter(copied.latest()) / "adapters.safetensors"
    content = bytearray(weights.read_bytes())
    content[-8] ^= 1  # one bit of a number
    weights.write_bytes(content)
    shutil.rmtree(copied.root / "dagster")
    words = [*name.split()[:1], *OF_AN_ADAPTER[name], "--adapter", copied.latest()]
    words = words[:-2] if name == "ask" else words
    line = the_line(typed(*words, "--store", str(copied.root), cwd=tmp_path))
    assert str(weights) in line
    assert "damaged" in line
    assert "`nfl-lora run` on its weeks trains it anew" in line
    assert not (tmp_path / "exported").exists()


def test_a_run_trains_a_damaged_adapter_anew(copied, tiny_week_folder, tiny_recipe):
    weights = copied.adapter(copied.latest()) / "adapters.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    words = ["--source", "folder", "--data-dir", str(tiny_week_folder), "--recipe", tiny_recipe]
    done = typed("run", *words, "--store", str(copied.root))
    assert done.returncode == 0, done.stderr
    assert weights.read_bytes() == whole


@pytest.mark.slow
def test_a_base_and_a_recipe_by_relative_paths_work_from_another_folder(tmp_path, tiny_week_folder, tiny_recipe):
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    shutil.copytree(EMBEDDED_FOLDER, here / "base")
    shutil.copyfile(tiny_recipe, here / "tiny.yaml")
    words = ["--source", "folder", "--data-dir", str(tiny_week_folder), "--recipe", "tiny.yaml"]
    done = typed("run", *words, "--base-model", "./base", "--store", "data", cwd=here)
    assert done.returncode == 0, done.stderr
    store = str(here / "data")
    assert typed("ask", QUESTION, "--store", store, cwd=there).stdout.splitlines()[-1] == f"tuned: {ANSWER}"
    assert typed("export", "adapter", "--store", store, cwd=there).returncode == 0
    assert f"--model {here / 'base'} " in (there / "adapter" / "README.md").read_text()
    provenance = Store(Path(store)).provenance(Store(Path(store)).latest())
    assert (provenance.base_model, provenance.recipe) == (str(here / "base"), str(here / "tiny.yaml"))


def test_the_ui_is_given_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "mine.yaml").write_text("")
    found = Settings(base_model="./base", recipe="mine.yaml").to_environment()
    assert found["NFL_LORA_BASE_MODEL"] == str(tmp_path / "base")
    assert found["NFL_LORA_RECIPE"] == str(tmp_path / "mine.yaml")
    unchanged = Settings(base_model="owner/name", recipe="embedded").to_environment()
    assert (unchanged["NFL_LORA_BASE_MODEL"], unchanged["NFL_LORA_RECIPE"]) == ("owner/name", "embedded")


OTHER_DIGITS = "\u0662\u0660\u0662\u0665-W\u0660\u0661"


def test_other_digits_are_no_week(monkeypatch):
    with pytest.raises(ValueError, match="expected a partition key"):
        NflWeek.parse(OTHER_DIGITS)
    with pytest.raises(ValueError, match="is not a week"):
        parse_weeks("\u0661")
    monkeypatch.setenv("NFL_LORA_SEASON", "\u0662\u0660\u0662\u0665")
    with pytest.raises(ValueError, match=r"NFL_LORA_SEASON=.*: expected a number"):
        Settings.read()


@pytest.mark.parametrize("key", [OTHER_DIGITS, "2025-W19", "week 1"])
def test_a_partition_key_that_is_no_week_fails_once_with_a_clear_line_and_is_gone(key, tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(nfl_week.name), [key])
        resources = {"store": StoreResource(root=str(tmp_path)), "week_source": WeekSource(kind="sample")}
        with pytest.raises(dg.Failure) as caught:
            dg.materialize([raw_wr_json], instance=instance, partition_key=key, resources=resources)
        assert "the partition is removed" in str(caught.value.description)
        assert caught.value.allow_retries is False
        assert instance.get_dynamic_partitions(str(nfl_week.name)) == []


FAULT = (
    "import nfl_lora_pipeline.adapters.history as history\n"
    "def wrong(store): raise TypeError('no such\\nthing')\n"
    "history.history_of = wrong\n"
    "from nfl_lora_pipeline.cli.main import main\nmain()"
)


def test_a_mistake_of_the_program_is_one_line_and_says_how_to_see_more():
    done = typed("history", command=(sys.executable, "-c", FAULT))
    line = the_line(done)
    assert line == "unexpected: TypeError: no such thing; NFL_LORA_DEBUG=1 shows where; please report it"


def test_a_traceback_is_shown_to_whoever_asks_for_it():
    done = typed("history", command=(sys.executable, "-c", FAULT), env=os.environ | {"NFL_LORA_DEBUG": "1"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "in wrong" in done.stderr


def test_errors_of_libraries_are_told_in_a_line():
    import sqlite3

    from sqlalchemy.exc import OperationalError

    full = OperationalError("SELECT\n1", {}, sqlite3.OperationalError("database or disk is full"))
    assert in_one_line(full).endswith("cannot be used: database or disk is full")
    assert in_one_line(RuntimeError("[load_safetensors] Invalid header")) == "[load_safetensors] Invalid header"
    assert in_one_line(RuntimeError("else")).startswith("unexpected: RuntimeError")
    assert in_one_line(RecursionError("deep")).startswith("unexpected: RecursionError")
    assert in_one_line(MemoryError()).startswith("out of memory")
    no_driver = ImportError("libcuda.so.1: cannot open shared object file: No such file or directory")
    assert "there is no driver for one (libcuda.so.1: " in in_one_line(no_driver)
    assert in_one_line(ImportError("else")).startswith("unexpected: ImportError")
    of_cuda = "cudaMallocAsync(&data, size, stream) failed: out of memory"
    of_metal = "[METAL] Command buffer execution failed: Insufficient Memory (00000008)"
    for said in (of_cuda, of_metal, "[malloc] Unable to allocate 4398046511104 bytes."):
        line = in_one_line(RuntimeError(said))
        assert line.startswith("out of memory")
        assert said in line and "last checkpoint" in line
    assert in_one_line(FileNotFoundError(2, "No such file or directory", b"/a\xff")).startswith("/a")
