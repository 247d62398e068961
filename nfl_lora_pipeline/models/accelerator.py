"""Which GPU MLX computes on, and what MLX is told there.

The memory that it keeps is bounded, and attention is not planned anew for every shape.
"""

import os

KEPT_SHARE = 1 / 8  # of a GPU's memory, that may stay taken between two operations


def kind() -> str:
    """What MLX computes on, by the name that people know it by: "Metal" or "CUDA"; empty for a CPU."""
    import mlx.core as mx

    if mx.default_device() == mx.Device(mx.cpu):
        return ""
    return "Metal" if mx.metal.is_available() else "CUDA"


def memory_bytes() -> int | None:
    """Of the GPU that MLX computes on; None on a CPU, or where it does not say."""
    import mlx.core as mx

    if not kind():
        return None
    said = mx.device_info()
    return next((int(said[name]) for name in ("memory_size", "total_memory") if said.get(name)), None)  # Metal, CUDA


def keep_little() -> None:
    """Bound what MLX keeps of the memory that it has freed.

    Batches differ in shape, so that little of it fits the next one; without a bound a training of a model of 0.7 million
    parameters took all 139 GiB of an H200 within a minute, and ended every other program that used it.
    """
    import mlx.core as mx

    if total := memory_bytes():
        mx.set_cache_limit(int(KEPT_SHARE * total))


def plan_no_attention() -> None:
    """Have CUDA's attention computed as it comes; before the first of it.

    cuDNN works out a plan for each new shape, and in a training nearly every batch has one.
    """
    os.environ.setdefault("MLX_CUDA_USE_CUDNN_SDPA", "0")
