"""What is told to MLX on a GPU; no machine of the tests has one, so that MLX's answers are put in its place."""

import os
import subprocess
import sys

import mlx.core as mx
import pytest
from click.testing import CliRunner

from nfl_lora_pipeline.cli.adapters import _device
from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.models import machine
from nfl_lora_pipeline.models.base_model import load, resolve
from nfl_lora_pipeline.tuning.memory import machine_memory

OF_AN_H200 = {"total_memory": 150_754_820_096, "device_name": "NVIDIA H200"}
OF_A_MAC = {"memory_size": 17_179_869_184, "device_name": "Apple M2"}


@pytest.fixture
def limits(monkeypatch) -> list[int]:
    """The bounds that MLX is given."""
    given: list[int] = []
    monkeypatch.setattr(mx, "set_cache_limit", given.append)
    return given


@pytest.mark.parametrize(("said", "total"), [(OF_AN_H200, 150_754_820_096), (OF_A_MAC, 17_179_869_184)])
def test_mlx_keeps_an_eighth_of_a_gpu_and_a_training_may_have_all_of_it(said, total, limits, monkeypatch):
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    monkeypatch.setattr(mx, "device_info", lambda: said)
    monkeypatch.setattr(mx.metal, "is_available", lambda: said is OF_A_MAC)
    assert machine.kind() == ("Metal" if said is OF_A_MAC else "CUDA")
    assert _device(None) == (f"{machine.kind()}, {said['device_name']}", True)
    machine.suit_gpu()
    assert limits == [total // 8]
    assert machine_memory() == total


@pytest.mark.skipif(mx.default_device() != mx.Device(mx.cpu), reason="MLX computes on a GPU here")
def test_on_a_cpu_nothing_is_bounded_when_a_model_is_loaded(limits):
    load(resolve("embedded"))
    assert limits == []
    assert machine.memory_bytes() is None
    assert machine.kind() == ""


@pytest.mark.parametrize(("given", "wanted"), [({}, "0"), ({"MLX_CUDA_USE_CUDNN_SDPA": "1"}, "1")])
def test_attention_is_not_planned_by_shape_unless_somebody_wants_it(given, wanted):
    load_it = "from nfl_lora_pipeline.models.base_model import load, resolve; load(resolve('embedded'))"
    show = "import os; print(os.environ['MLX_CUDA_USE_CUDNN_SDPA'])"
    environment = {key: value for key, value in os.environ.items() if key != "MLX_CUDA_USE_CUDNN_SDPA"} | given
    command = [sys.executable, "-c", f"{load_it}; {show}"]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == f"{wanted}\n"


@pytest.mark.skipif(mx.is_available(mx.gpu), reason="MLX has a GPU here")
def test_a_base_is_not_made_on_a_gpu_that_is_not_there(tmp_path):
    folder = tmp_path / "base"
    done = CliRunner().invoke(main, ["build-base", str(folder), "--gpu"])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: --gpu: MLX computes on the CPU here; leave it out")
    assert not folder.exists()
