"""One training by several processes of `mlx.launch`: the same certificate, one Ctrl-C, a line when one of them dies."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
import yaml
from mlx.utils import tree_flatten

from deploy.loopback import free_port
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.rows import TokenRow
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.tuning import learner
from nfl_lora_pipeline.tuning.adaptation import adapt
from nfl_lora_pipeline.tuning.learn import learn
from nfl_lora_pipeline_tests import upstream
from nfl_lora_pipeline_tests.own_facts import TEMPLATES, another_league, written

GONE = "another process of this training is gone; the same command goes on from the last checkpoint"
LAUNCH = Path(sys.executable).with_name("mlx.launch")


@pytest.fixture
def scene(tmp_path) -> Path:
    """A folder with six people's facts, and templates."""
    people = [(name, "receiving yards", yards) for name, yards in another_league(6)]
    written(tmp_path / "facts.csv", [("subject", "attribute", "value"), *people])
    (tmp_path / "templates.yaml").write_text(TEMPLATES, encoding="utf-8")
    return tmp_path


WORDS = "-m nfl_lora_pipeline.cli.main learn facts.csv adapter --templates templates.yaml --recipe".split()
SEASON = "-m nfl_lora_pipeline.cli.main run --source folder --data-dir raw --store data --recipe".split()


def started(scene: Path, command: list[str], **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command,
        cwd=scene,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def alone(scene: Path, recipe: str) -> str:
    """What one process says."""
    return started(scene, [sys.executable, *WORDS, recipe]).communicate(timeout=300)[0]


def two(scene: Path, recipe: str, *more: str, words: list[str] = WORDS) -> "list[subprocess.Popen[str]]":
    """The same command by two processes, told of one another as by `mlx.launch`, which itself takes a core while they run."""
    hosts = scene / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{free_port()}"] for _ in range(2)]))
    command = [sys.executable, *words, recipe, *more]
    return [started(scene, command, MLX_HOSTFILE=str(hosts), MLX_RANK=str(rank)) for rank in range(2)]


def until(process: "subprocess.Popen[str]", text: str) -> list[str]:
    """What it says up to a line with some text."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return said
    raise AssertionError(f"it never said {text!r}: {said[-5:]}")


def losses_of(scene: Path, processes: "list[subprocess.Popen[str]]") -> dict[int, float]:
    """By step, of a training by these processes, whose adapter is removed."""
    for process in processes:
        process.communicate(timeout=300)
    log = json.loads((scene / "adapter" / "training.json").read_text())
    shutil.rmtree(scene / "adapter")
    return dict(log["losses"])


def test_two_processes_make_the_steps_that_one_makes(scene, tiny_recipe):
    values = load_recipe(tiny_recipe).changed(max_steps=10, ending_steps=1, ending_share=0.0).model_dump()
    (scene / "short.yaml").write_text(yaml.safe_dump(values))
    by_two = losses_of(scene, two(scene, "short.yaml"))
    by_one = losses_of(scene, [started(scene, [sys.executable, *WORDS, "short.yaml"])])
    assert by_two[10] == pytest.approx(by_one[10], rel=1e-4)


@pytest.mark.slow  # the same up to the end, as `mlx.launch` starts it
def test_two_processes_come_to_the_certificate_that_one_comes_to(scene, tiny_recipe):
    launch = [str(LAUNCH), "-n", "2", "--backend", "ring", "--starting-port", str(free_port()), "--"]
    said, _ = started(scene, [*launch, sys.executable, *WORDS, tiny_recipe]).communicate(timeout=300)
    assert "process 1 trains along on embedded" in said
    assert said.count("6 of 6 facts certain") == 2, said  # once by the training, once by the command
    assert said.count(" right\n") == 3
    training = json.loads((scene / "adapter" / "training.json").read_text())
    assert training["stopped"] == "certain"
    (scene / "adapter").rename(scene / "by two")
    assert "6 of 6 facts certain" in alone(scene, tiny_recipe)
    single = json.loads((scene / "adapter" / "training.json").read_text())
    by_two, by_one = (dict(log["losses"]) for log in (training, single))
    assert by_two[10] == pytest.approx(
        by_one[10], rel=1e-4
    )  # sums in another order; of gradients not averaged it is 1.7%
    assert not list(scene.glob(".*"))


@pytest.mark.slow
def test_ctrl_c_ends_both_and_one_alone_goes_on(scene, tiny_recipe):
    first, second = two(scene, tiny_recipe)
    until(first, "iteration 10")
    for process in (first, second):  # as a terminal does it, whose Ctrl-C goes to all
        process.send_signal(signal.SIGINT)
    said, _ = first.communicate(timeout=120)
    assert re.search(r"Interrupted: kept at iteration \d+; the same command goes on from there\.", said), said
    second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (130, 0)
    again = alone(scene, tiny_recipe)
    assert "going on from iteration" in again
    assert "6 of 6 facts certain" in again


@pytest.mark.slow  # two runs of the whole job; what hung here is looked at alone in a test below
def test_a_week_is_added_by_two_processes(scene, tiny_recipe):
    """The first thing of an update is a check, before any step: nothing may be left to compute then."""
    for number in (1, 2):
        rows = [row | {"ReceivingYDS": str(10 * number + place)} for place, row in enumerate(upstream.tiny_week())]
        upstream.write_week(scene / "raw", upstream.week_bytes(rows), number)
    for weeks, said_of_start in (("1", ""), ("1-2", "going on from adapter ")):
        first, second = two(scene, tiny_recipe, "--weeks", weeks, words=SEASON)
        said, _ = first.communicate(timeout=300)
        second.communicate(timeout=60)
        assert (first.returncode, second.returncode) == (0, 0), said
        assert said_of_start in said
        assert "22 of 22 facts certain" in said or weeks == "1"


@pytest.mark.parametrize("dies", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_where_one_dies_the_other_says_so_in_a_line_and_ends(scene, tiny_recipe, dies):
    processes = two(scene, tiny_recipe)
    until(processes[0], "iteration 10")
    processes[dies].kill()
    said, _ = processes[1 - dies].communicate(timeout=120)
    assert said.splitlines()[-1] == f"Error: {GONE}"
    assert "Traceback" not in said
    assert processes[1 - dies].returncode == 1
    processes[dies].communicate()
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
    loss, greatest = taught.make_step(learner.Order(do="step", rows=[row], keys=[None], whole=[row], rate=0.01))
    assert (loss, greatest.tolist()) == (0.0, [0.0]), "the other process has the row, and its loss"
    after = dict(tree_flatten(taught.model.trainable_parameters()))
    assert all(mx.array_equal(after[name], array) for name, array in before.items())


def test_what_has_to_be_alike_is_computed_at_once(monkeypatch):
    """Or the first process would come to these sums when it writes a checkpoint, and the others to another sum meanwhile."""
    ring, computed = learner.Ring(), list[object]()
    ring.size = 2
    monkeypatch.setattr(ring, "summed", lambda array: array + 1)
    monkeypatch.setattr(learner.mx, "eval", computed.append)
    assert computed == [ring.alike({"a": mx.array(1.0)})]


def test_what_several_processes_cannot_train_is_refused(taught, monkeypatch, tmp_path):
    ring = learner.Ring()
    ring.size = 64
    monkeypatch.setattr(learner.Ring, "here", ring)
    with pytest.raises(
        ValueError, match=r"curriculum\.batch_rows: 64 processes have no row each of a step of \d+; start fewer"
    ):
        taught.lead()
    plain = load_recipe("original").changed(base_model="embedded")
    with pytest.raises(ValueError, match="method: mlx_lm trains in one process alone"):
        learn([("Who?", "Nobody.")], tmp_path, recipe=plain)


def test_an_interrupt_while_an_order_is_sent_leaves_the_others_to_notice(monkeypatch):
    ring = learner.Ring()
    ring.size = 2

    def interrupted(order: learner.Order) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ring, "order", interrupted)
    with pytest.raises(KeyboardInterrupt), ring.ordered(learner.Order(do="ask")):
        pass
    assert ring.busy, "they are in the middle of it, and an order to end would be taken for a part of it"


def test_a_process_with_another_base_refuses_to_train_along(taught, monkeypatch):
    ring = learner.Ring()
    ring.size = 2
    monkeypatch.setattr(ring, "summed", lambda array: array if array.ndim else array * 1.01)
    monkeypatch.setattr(learner.Ring, "here", ring)
    with pytest.raises(ValueError, match="base_model: 'embedded' is another one here than at the first process"):
        taught.begin_alike()
