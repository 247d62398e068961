"""What MLX's threads on the CPU are given before they are started."""

import platform
import sys

import mlx.core as mx
import pytest

from nfl_lora_pipeline.models.streams import streams

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
