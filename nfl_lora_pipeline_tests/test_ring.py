"""One training by several processes of `mlx.launch`: the same certificate, one Ctrl-C, a line when one of them dies."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.rows import TokenRow
from nfl_lora_pipeline.tuning import learner
from nfl_lora_pipeline.tuning.adaptation import adapt
from nfl_lora_pipeline.tuning.recipe import load_recipe
from nfl_lora_pipeline_tests.test_learn import TEMPLATES, another_league, written

LAUNCH = Path(sys.executable).with_name("mlx.launch")


@pytest.fixture
def scene(tmp_path) -> Path:
    """A folder with six people's facts, and templates."""
    people = [(name, "receiving yards", yards) for name, yards in another_league(6)]
    written(tmp_path / "facts.csv", [("subject", "attribute", "value"), *people])
    (tmp_path / "templates.yaml").write_text(TEMPLATES, encoding="utf-8")
    return tmp_path


def launched(scene: Path, recipe: str, *, processes: int) -> "subprocess.Popen[str]":
    """`nfl-lora learn` by so many processes; without `mlx.launch` where it is one."""
    words = ["learn", "facts.csv", "adapter", "--templates", "templates.yaml", "--recipe", recipe]
    command = [sys.executable, "-m", "nfl_lora_pipeline.cli.main", *words]
    if processes > 1:
        ports = str(20_000 + os.getpid() % 10_000)  # tests run side by side
        command = [str(LAUNCH), "-n", str(processes), "--backend", "ring", "--starting-port", ports, "--", *command]
    return subprocess.Popen(
        command,
        cwd=scene,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def children(process: "subprocess.Popen[str]") -> list[int]:
    """Those of `mlx.launch`, by their ranks."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            session = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
        except OSError:
            continue
        rank = next((each.removeprefix(b"MLX_RANK=") for each in environment if each.startswith(b"MLX_RANK=")), None)
        if rank is not None and session == process.pid:
            found.append((int(rank), int(folder.name)))
    return [pid for _, pid in sorted(found)]


def until(process: "subprocess.Popen[str]", text: str) -> list[str]:
    """What it says up to a line with some text."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return said
    raise AssertionError(f"it never said {text!r}: {said[-5:]}")


def test_two_processes_come_to_the_certificate_that_one_comes_to(scene, tiny_recipe):
    said, _ = launched(scene, tiny_recipe, processes=2).communicate(timeout=300)
    assert "process 1 trains along on embedded" in said
    assert said.count("6 of 6 facts certain") == 2, said  # once by the training, once by the command
    assert said.count(" right\n") == 3
    training = json.loads((scene / "adapter" / "training.json").read_text())
    assert training["stopped"] == "certain"
    (scene / "adapter").rename(scene / "by two")
    assert "6 of 6 facts certain" in launched(scene, tiny_recipe, processes=1).communicate(timeout=300)[0]
    alone = json.loads((scene / "adapter" / "training.json").read_text())
    by_two, by_one = (dict(log["losses"]) for log in (training, alone))
    assert by_two[10] == pytest.approx(by_one[10], rel=0.02)  # sums in another order, and what follows from that
    assert not list(scene.glob(".*"))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the processes are found in /proc, which only Linux has")
def test_ctrl_c_ends_all_of_them_and_one_alone_goes_on(scene, tiny_recipe):
    process = launched(scene, tiny_recipe, processes=2)
    until(process, "iteration 10")
    pids = children(process)
    assert len(pids) == 2
    for pid in pids:  # as a terminal does it, whose Ctrl-C goes to all
        os.kill(pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert re.search(r"Interrupted: kept at iteration \d+; the same command goes on from there\.", said), said
    assert children(process) == []
    again = launched(scene, tiny_recipe, processes=1).communicate(timeout=300)[0]
    assert "going on from iteration" in again
    assert "6 of 6 facts certain" in again


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the processes are found in /proc, which only Linux has")
def test_where_one_dies_the_first_says_so_in_a_line_and_is_gone_as_well(scene, tiny_recipe):
    process = launched(scene, tiny_recipe, processes=2)
    until(process, "iteration 10")
    os.kill(children(process)[1], signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    line = r"Error: another process of this training is gone; the same command goes on from the last checkpoint"
    assert re.search(line, said) or "Interrupted" in said, (
        said
    )  # mlx.launch ends the others itself, if it is the sooner
    assert "Traceback" not in said
    assert not (scene / "adapter").exists()


def test_every_row_is_one_process_s_and_each_has_short_and_long_ones():
    rows = [TokenRow([0] * length, 1) for length in (9, 3, 7, 5, 8)]
    shares = []
    for rank in range(2):
        ring = learner.Ring()
        ring.rank, ring.size = rank, 2
        shares.append(ring.share(rows))
    assert shares == [[1, 2, 0], [3, 4]]
    assert learner.Ring().share(rows) == [0, 1, 2, 3, 4]


@pytest.fixture
def taught():
    """A learner of the embedded base, whose adapter is as it was drawn."""
    recipe = load_recipe("embedded")
    model, _ = base_models.load(base_models.resolve("embedded"))
    adapt(model, recipe)
    return learner.Learner(model, recipe)


def test_a_process_that_a_step_has_no_row_for_makes_it_all_the_same(taught, monkeypatch):
    ring = learner.Ring()
    ring.rank, ring.size = 1, 2
    monkeypatch.setattr(ring, "summed", lambda array: array)
    monkeypatch.setattr(learner.Ring, "here", ring)
    before = dict(tree_flatten(taught.model.trainable_parameters()))
    row = TokenRow([5, 6, 7, 8], 2)
    loss, greatest = taught._step([row], [None], [row], 0.01, [])
    assert (loss, greatest.tolist()) == (0.0, [0.0]), "the other process has the row, and its loss"
    after = dict(tree_flatten(taught.model.trainable_parameters()))
    assert all(mx.array_equal(after[name], array) for name, array in before.items())


def test_a_process_with_another_base_refuses_to_train_along(taught, monkeypatch):
    ring = learner.Ring()
    ring.size = 2
    monkeypatch.setattr(
        ring, "alike", lambda tree: tree if "size" not in tree else {"size": tree["size"] * mx.array(1.01)}
    )
    monkeypatch.setattr(learner.Ring, "here", ring)
    with pytest.raises(ValueError, match="base_model: 'embedded' is another one here than at the first process"):
        taught.begin_alike()
