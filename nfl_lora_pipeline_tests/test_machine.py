"""What MLX's threads on the CPU are given before they are started."""

import os
import platform
import subprocess
import sys

import mlx.core as mx
import pytest

from nfl_lora_pipeline.models.forward import streams

SMALLEST_NORMAL = 2.0**-126  # of float32; half of it is subnormal


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64" or mx.default_device() != mx.Device(mx.cpu),
    reason="subnormals are flushed on the CPU of x86-64 Linux alone, where they are slow",
)
def test_every_stream_takes_subnormals_as_zero_and_python_does_not():
    for stream in streams():
        with mx.stream(stream):
            halved = mx.array([SMALLEST_NORMAL]) * 0.5
            assert halved.tolist() == [0.0]
    assert 2.0**-1022 / 2 > 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MLX has a BLAS of its own")
def test_the_blas_is_loaded_before_mlx_whoever_imports_it_and_not_before_somebody_does():
    program = (
        "import sys, nfl_lora_pipeline\n"
        "print('mlx.core' in sys.modules)\n"
        "import mlx.core as mx\n"
        "from nfl_lora_pipeline.models.machine import blas_message\n"
        "print(blas_message())\n"
    )
    lines = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    assert lines[0] == "False"
    assert lines[1].startswith(("MLX uses ", "no fast BLAS found: "))
    late = program.replace("import sys, nfl_lora_pipeline", "import sys, mlx.core, nfl_lora_pipeline")
    lines = subprocess.run([sys.executable, "-c", late], capture_output=True, text=True, check=True).stdout.split("\n")
    assert lines[1] == "no fast BLAS: mlx.core was imported before nfl_lora_pipeline could load one"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing stands before the import of MLX")
def test_mlx_is_told_to_hand_out_work_to_several_streams_before_its_first_evaluation():
    program = "import nfl_lora_pipeline, os, mlx.core; print(os.environ.get('MLX_BFS_MAX_WIDTH'))"
    bare = {name: value for name, value in os.environ.items() if name != "MLX_BFS_MAX_WIDTH"}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=bare)
    assert run.stdout.strip() == "1000", "whoever sets it later sets it for nobody: MLX reads it once"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MLX has a BLAS of its own")
def test_each_stream_has_its_share_of_the_cores_for_the_threads_of_the_blas():
    cores = os.cpu_count() or 1
    program = (
        "from nfl_lora_pipeline.models import machine\n"
        f"machine._set_threads({cores})\n"
        "for streams in (1, 2):\n"
        "    with machine.divided_cores(streams): print(machine._threads(), end=' ')\n"
        "print(machine._threads(), end=' ')\n"
        "machine._set_threads(1)\n"
        "with machine.divided_cores(2): print(machine._threads())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    if done.stdout.startswith("None"):
        pytest.skip("no BLAS that says how many threads it has")
    all_threads, halved, after, of_a_small_model = map(int, done.stdout.split())
    assert all_threads == after
    assert halved == min(all_threads, max(1, cores // 2))
    assert of_a_small_model == 1
