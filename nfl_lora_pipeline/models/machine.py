"""What MLX computes on, and what it needs to be told there.

*A GPU.* The memory that MLX keeps is bounded, and attention is not planned anew for every shape.

*The CPU of a Linux machine.* A BLAS, and threads that take numbers next to nothing as 0.

The CPU wheel of MLX carries the reference BLAS. MLX calls `cblas_sgemm` by dynamic symbol, so that a library loaded
with global visibility *before* `mlx.core` takes its place: 5.6 GFLOP/s become 150 and more.

Gradients of a model that knows its answers are full of numbers below 1.2e-38, which float32 holds as subnormals, and a Xeon
takes a hundred times as long over each: a training step took 1,080 ms so, and takes 165 ms where they are taken as 0.
"""

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from types import ModuleType

KEPT_SHARE = 1 / 8  # of a GPU's memory, that may stay taken between two operations
_MALLOC_TRIM_THRESHOLD, _MALLOC_MMAP_THRESHOLD = -1, -3
_GIB = 1 << 30
_FLUSH_TO_ZERO, _SUBNORMALS_ARE_ZERO = 0x8000, 0x0040  # bits of MXCSR, the register that says how SSE and AVX count
_MXCSR, _FENV_WORDS = 7, 8  # where it stands in C's `fenv_t` on x86-64, in words of 32 bits, and how many there are


MLX_CAME_FIRST = "mlx.core" in sys.modules


@cache
def load_fast_blas() -> str | None:
    """Load MKL (installed here on x86-64) or the system's OpenBLAS, which MLX, imported afterwards, then uses.

    Returns:
        The library as it was loaded; None on macOS, where MLX has Accelerate and Metal, and where none was found.
    """
    if sys.platform != "linux" or MLX_CAME_FIRST:
        return None
    _keep_freed_memory()
    return next(filter(_loads, _candidates()), None)


def cores() -> int:
    """How many of this machine's cores this process may use (`taskset`, a container's set of them)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class BlasFirst(MetaPathFinder):
    """Stands before the other finders: whoever imports `mlx.core`, the BLAS is loaded before it."""

    @classmethod
    def install(cls) -> None:
        """Put one in place, on Linux, if there is none and MLX has not come first."""
        standing = any(isinstance(finder, cls) for finder in sys.meta_path)
        if sys.platform == "linux" and not MLX_CAME_FIRST and not standing:
            sys.meta_path.insert(0, cls())

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The way to `mlx.core` that every import takes, but for what `_Flushed` does on it."""
        if fullname != "mlx.core":
            return None
        load_fast_blas()
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Flushed(spec.loader)
        return spec


class _Flushed(Loader):
    """Loads MLX and starts the thread of its default stream where subnormals are flushed.

    That is MLX's first evaluation, at which it reads how wide to look.
    """

    def __init__(self, loader: Loader):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        with subnormals_flushed():
            return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        look_wide()
        with subnormals_flushed():
            self.loader.exec_module(module)
            module.eval(module.zeros(1, stream=module.cpu))


@contextmanager
def subnormals_flushed() -> Iterator[None]:
    """Threads that are started in the block take float32 below 1.2e-38 as 0, on x86-64; this one does so in the block alone.

    A thread has the register that says so from the thread that starts it. C's `fesetenv` is the way to it from Python.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        yield
        return
    libm, environment = ctypes.CDLL("libm.so.6"), (ctypes.c_uint32 * _FENV_WORDS)()
    libm.fegetenv(environment)
    before = environment[_MXCSR]
    try:
        environment[_MXCSR] = before | _FLUSH_TO_ZERO | _SUBNORMALS_ARE_ZERO
        libm.fesetenv(environment)
        yield
    finally:
        environment[_MXCSR] = before
        libm.fesetenv(environment)


def suit_small_models() -> None:
    """Let the BLAS keep to one thread: where matrices are small, its threads wait longer than they work."""
    _set_threads(1)


def look_wide() -> None:
    """Have MLX hand out work to several streams at a time; before its first evaluation.

    It goes through a graph in depth first, so that one stream's work is handed out before another's begins, unless it is told
    how wide to look.
    """
    os.environ.setdefault("MLX_BFS_MAX_WIDTH", "1000")


@contextmanager
def divided_cores(streams: int) -> Iterator[None]:
    """For the block give each of several streams its share of the cores, and no more, for the threads of the BLAS.

    SmolLM2 on two cores, two streams, medians of three in turn: with a thread each a training step takes 1.76 s and a forward
    pass of 16 rows 2.29 s, with two each 2.13 s and 2.92 s.
    """
    before = _threads() if streams > 1 else None
    if before is None:
        yield
        return
    _set_threads(min(before, max(1, cores() // streams)))
    try:
        yield
    finally:
        _set_threads(before)


def _threads() -> int | None:
    """How many threads the BLAS may use; None where there is none that says so."""
    get = _function("MKL_Get_Max_Threads", "openblas_get_num_threads")
    return int(get()) if get else None


def _set_threads(count: int) -> None:
    if put := _function("MKL_Set_Num_Threads", "openblas_set_num_threads"):
        put(count)


@cache
def _function(*names: str) -> Callable[..., int] | None:
    """The first of these functions that the loaded BLAS has."""
    library = load_fast_blas()
    loaded = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL) if library else None
    return next((getattr(loaded, name) for name in names if hasattr(loaded, name)), None)


def blas_message() -> str:
    """One line for the log: which BLAS serves MLX, or how to get a fast one."""
    if sys.platform != "linux":
        return "MLX uses the system's own BLAS"
    library = load_fast_blas()
    if MLX_CAME_FIRST:
        return "no fast BLAS: mlx.core was imported before nfl_lora_pipeline could load one"
    if library is None:
        return (
            "no fast BLAS found: MLX falls back to its reference BLAS, about 30 times slower on the CPU. "
            "Install OpenBLAS (Debian: libopenblas0-pthread) or, on x86-64, `pip install mkl`."
        )
    return f"MLX uses {Path(library).name} for matrix products on the CPU"


def _loads(library: str) -> bool:
    with contextlib.suppress(OSError):
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        return True
    return False


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


def suit_gpu() -> None:
    """Bound what MLX keeps of the memory that it has freed, and have CUDA's attention computed as it comes.

    Batches differ in shape, so that little of it fits the next one; without a bound a training of a model of 0.7 million
    parameters took all 139 GiB of an H200 within a minute, and ended every other program that used it. And cuDNN works out a
    plan of attention for each new shape, unless it is told not to before the first of it.
    """
    import mlx.core as mx

    os.environ.setdefault("MLX_CUDA_USE_CUDNN_SDPA", "0")
    if total := memory_bytes():
        mx.set_cache_limit(int(KEPT_SHARE * total))
