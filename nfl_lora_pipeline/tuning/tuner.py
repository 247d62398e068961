"""mlx-lm's trainer as both ways of training run it: its optimizer, without its progress on standard output."""

import contextlib
from collections.abc import Iterator, Sequence

from nfl_lora_pipeline.models.blas import load_fast_blas

load_fast_blas()

import mlx.core as mx  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
from mlx_lm.cli_ui import make_console  # noqa: E402

from nfl_lora_pipeline.tuning.recipe import Recipe  # noqa: E402


def optimizer_of(recipe: Recipe, *, betas: Sequence[float]) -> optim.Adam:
    """Adam, or AdamW where the recipe has weights decay."""
    if recipe.weight_decay:
        return optim.AdamW(recipe.learning_rate, betas=list(betas), weight_decay=recipe.weight_decay)
    return optim.Adam(recipe.learning_rate, betas=list(betas))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """mlx-lm draws its progress on standard output, which belongs to whoever called."""
    console = make_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


@contextlib.contextmanager
def uncompiled_on_cpu() -> Iterator[None]:
    """On the CPU `mx.compile` runs g++ for every new shape of a batch, and needs one; the kernels it makes gain nothing."""
    if mx.default_device() != mx.Device(mx.cpu):
        yield
        return
    mx.disable_compile()
    try:
        yield
    finally:
        mx.enable_compile()
