"""Where batches are computed side by side.

On the CPU an MLX stream is a thread, and an operation uses no other (but for a BLAS's own), so that two streams keep two
cores busy with a small model.
"""

import os
from functools import cache
from typing import Any

import mlx.core as mx

from nfl_lora_pipeline.models.blas import subnormals_flushed


@cache
def streams() -> list[Any]:
    """Two streams on a CPU with more than one core, else one: the default one first."""
    if mx.default_device() == mx.Device(mx.cpu) and (os.cpu_count() or 1) > 1:
        with subnormals_flushed():
            second = mx.new_stream(mx.cpu)
            mx.eval(mx.zeros(1, stream=second))
        return [mx.default_stream(mx.cpu), second]
    return [mx.default_stream(mx.default_device())]
