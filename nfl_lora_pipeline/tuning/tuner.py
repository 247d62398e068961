"""What both ways of training do alike around mlx-lm's trainer: they begin, keep it quiet, and write down what came of it."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_flatten
from mlx_lm.cli_ui import make_console

from nfl_lora_pipeline.lessons.lessons import Lesson
from nfl_lora_pipeline.tuning.adaptation import adapt
from nfl_lora_pipeline.tuning.recipe import Recipe
from nfl_lora_pipeline.tuning.training_log import TrainingLog


def begin(
    model: Any, lessons: Sequence[Lesson], recipe: Recipe, start: Path | None
) -> tuple[dict[str, Any], TrainingLog]:
    """Put an adapter on the model: a new one, drawn by the recipe's seed, or the one in `start`.

    Returns:
        The content of `adapter_config.json`, and a log that has only begun.

    Raises:
        ValueError: the recipe does not fit the model.
    """
    mx.random.seed(recipe.seed)
    mx.reset_peak_memory()
    config = adapt(model, recipe)
    if start is not None:
        model.load_weights(str(start / "adapters.safetensors"), strict=False)
    log = TrainingLog(rows=len(lessons), facts=len({lesson.fact for lesson in lessons}))
    log.trained_parameters = sum(array.size for _, array in tree_flatten(model.trainable_parameters()))
    return config, log


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
