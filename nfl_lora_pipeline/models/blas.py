"""A fast BLAS for MLX on Linux without an accelerator.

The CPU wheel of MLX carries the reference BLAS. MLX calls `cblas_sgemm` by dynamic symbol, so that a library loaded
with global visibility *before* `mlx.core` takes its place: 5.6 GFLOP/s become 150 and more.
"""

import contextlib
import ctypes
import os
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

_MALLOC_TRIM_THRESHOLD, _MALLOC_MMAP_THRESHOLD = -1, -3
_GIB = 1 << 30


@cache
def load_fast_blas() -> str | None:
    """Load MKL (installed with this package on x86-64) or the system's OpenBLAS; call before `import mlx.core`.

    Returns:
        The library as it was loaded; None on macOS, where MLX has Accelerate and Metal, and where none was found.
    """
    if sys.platform != "linux":
        return None
    if "mlx.core" in sys.modules:
        return None
    _keep_freed_memory()
    for library in _candidates():
        try:
            ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return library
    return None


def suit_small_models() -> None:
    """Let the BLAS keep to one thread, and MLX hand out work to several streams at a time.

    Where matrices are small, the threads of a BLAS wait longer than they work. MLX goes through a graph in depth first,
    so that one stream's work is handed out before another's begins, unless it is told how wide to look.
    """
    os.environ.setdefault("MLX_BFS_MAX_WIDTH", "1000")
    library = load_fast_blas()
    if library is None:
        return
    loaded = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    for name in ("MKL_Set_Num_Threads", "openblas_set_num_threads"):
        if hasattr(loaded, name):
            getattr(loaded, name)(1)


def blas_message() -> str:
    """One line for the log: which BLAS serves MLX, or how to get a fast one."""
    if sys.platform != "linux":
        return "MLX uses the system's own BLAS"
    library = load_fast_blas()
    if library is None and "mlx.core" in sys.modules:
        return "no fast BLAS: mlx.core was imported before nfl_lora_pipeline could load one"
    if library is None:
        return (
            "no fast BLAS found: MLX falls back to its reference BLAS, about 30 times slower on the CPU. "
            "Install OpenBLAS (Debian: libopenblas0-pthread) or, on x86-64, `pip install mkl`."
        )
    return f"MLX uses {Path(library).name} for matrix products on the CPU"


def _candidates() -> list[str]:
    found = []
    with contextlib.suppress(PackageNotFoundError):
        found += [str(file.locate()) for file in files("mkl") or [] if file.name.startswith("libmkl_rt.so")]
    found += ["libopenblas.so.0", "libmkl_rt.so.3", "libmkl_rt.so.2", "libblis.so.4"]
    return found


def _keep_freed_memory() -> None:
    """Let malloc keep large freed blocks: MLX takes each array anew, and fresh pages cost more than the arithmetic."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_MALLOC_MMAP_THRESHOLD, _GIB)
        libc.mallopt(_MALLOC_TRIM_THRESHOLD, _GIB)
