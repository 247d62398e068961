"""Training as `mlx_lm.lora` does it: its trainer, its loss over whole rows, its batches, to the last step.

What the recipe `original` stands for, and what `training` is compared with. The order of seeds and draws is that of
`mlx_lm.lora`, so that the same rows and recipe give the same adapter there and here.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx import nn
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.datasets import CacheDataset, CompletionsDataset
from mlx_lm.tuner.trainer import TrainingArgs, iterate_batches, train

from nfl_lora_pipeline.dataset.examples import Example
from nfl_lora_pipeline.models.prompt import Tokenizer
from nfl_lora_pipeline.models.scoring import certainty
from nfl_lora_pipeline.progress import Silence
from nfl_lora_pipeline.recipes.recipe import Recipe, learning_rate
from nfl_lora_pipeline.tuning.adaptation import begin, optimizer_of, quiet, token_rows, uncompiled_on_cpu
from nfl_lora_pipeline.tuning.records import TrainingLog, write_records

BETAS = (0.9, 0.999)  # of mlx-lm's Adam


def train_plainly(
    model: nn.Module,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    recipe: Recipe,
    folder: Path,
    *,
    held_out: Sequence[tuple[str, str]] = (),
    start: Path | None = None,
    report: Callable[[str, float], None] = lambda line, share: None,
) -> TrainingLog:
    """Train an adapter for the recipe's steps.

    Args:
        model: a model of `mlx_lm.load`; it carries the adapter afterwards.
        tokenizer: its tokenizer.
        examples: the rows of `train.jsonl`, in their order.
        recipe: how to train. Where it names more layers than the model has, all are trained.
        folder: an existing folder, which gets `adapters.safetensors`, `adapter_config.json`, `training.json` and
            `certificate.json`.
        held_out: the rows of `valid.jsonl`; their loss is reported where they fill a batch.
        start: the folder of an adapter to go on from, made with the same recipe on the same base; None to begin anew.
        report: told a line for the log and how much of the training is done (0 to 1).

    Raises:
        ValueError: the recipe does not fit the model, or there are fewer rows than a batch has.
    """
    started, steps = time.perf_counter(), steps_of(recipe, len(examples))
    recipe = recipe.changed(num_layers=min(recipe.lora.num_layers, len(model.layers)))
    np.random.seed(recipe.seed)
    config, log = begin(model, examples, recipe, start)
    rows = token_rows(model, tokenizer, examples)
    optimizer, recorder = optimizer_of(recipe, betas=BETAS), _Recorder(log, steps, report)
    with quiet(), uncompiled_on_cpu():
        train(
            model,
            optimizer,
            train_dataset=_dataset(tokenizer, [(example.question, example.answer) for example in examples]),
            val_dataset=_dataset(tokenizer, held_out) if len(held_out) >= recipe.curriculum.batch_rows else None,
            args=_arguments(recipe, steps, folder),
            iterate_batches=_Scheduled(recipe, optimizer, recorder),
            training_callback=recorder,
        )
    found, above = certainty(model, rows, progress=recorder.tell_asked), recipe.curriculum.certain_above
    log.certain.append((log.iterations, float((found.whole > above).mean())))
    log.peak_memory_bytes = mx.get_peak_memory()
    log.seconds = time.perf_counter() - started
    report(write_records(folder, config, log, examples, found, above=above).in_short(), 1.0)
    return log


def _arguments(recipe: Recipe, steps: int, folder: Path) -> TrainingArgs:
    return TrainingArgs(
        batch_size=recipe.curriculum.batch_rows,
        iters=steps,
        steps_per_save=sys.maxsize,
        adapter_file=str(folder / "adapters.safetensors"),
    )


def steps_of(recipe: Recipe, rows: int) -> int:
    """How many steps the recipe has for so many rows, of which each step needs a whole batch."""
    batch_rows = recipe.curriculum.batch_rows
    if rows < batch_rows:
        raise ValueError(f"curriculum.batch_rows: {batch_rows}, but there are {rows} rows; use {rows or 1}")
    return min(recipe.curriculum.max_steps, recipe.curriculum.max_epochs * (rows // batch_rows))


def _dataset(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> CacheDataset:
    rows = [{"prompt": question, "completion": answer} for question, answer in pairs]
    return CacheDataset(CompletionsDataset(rows, tokenizer, "prompt", "completion", mask_prompt=False))


class _Scheduled:
    """mlx-lm's own batches; before a step's, the learning rate is set, and how far it is is told where nothing was for long."""

    def __init__(self, recipe: Recipe, optimizer: optim.Optimizer, recorder: "_Recorder"):
        self.recipe, self.optimizer, self.recorder = recipe, optimizer, recorder

    def __call__(self, *args: object, loop: bool = False, **options: object) -> Iterator[tuple[mx.array, mx.array]]:
        for step, batch in enumerate(iterate_batches(*args, loop=loop, **options)):
            if loop:  # which validation does not
                self.recorder.step = step
                self.optimizer.learning_rate = learning_rate(self.recipe, step, 0, self.recorder.steps)
            self.recorder.tell_if_silent()
            yield batch


class _Recorder(TrainingCallback):  # type: ignore[misc]
    """Writes the losses down, and tells how far it is."""

    def __init__(self, log: TrainingLog, steps: int, report: Callable[[str, float], None]):
        self.log, self.steps, self.report = log, steps, report
        self.step, self.loss, self.held_out, self.silence = 0, "", "", Silence()

    def on_train_loss_report(self, train_info: dict[str, float]) -> None:
        self.step, loss = int(train_info["iteration"]), train_info["train_loss"]
        self.log.losses.append((self.step, loss))
        self.log.iterations = self.step
        self.log.tokens_per_second = train_info["tokens_per_second"]
        self.loss = f", loss {loss:.3f}"
        if self.step % 50 == 0 or self.step == self.steps:
            self._tell(f"{self.loss}{self.held_out}")

    def on_val_loss_report(self, val_info: dict[str, float]) -> None:
        self.held_out = f", {val_info['val_loss']:.3f} on held-out rows"

    def tell_if_silent(self) -> None:
        """Tell how far it is where nothing was told for long."""
        if self.silence.is_long():
            self._tell(f"{self.loss}{self.held_out}")

    def tell_asked(self, done: int, total: int) -> None:
        """The same of how many rows have been asked in the end."""
        if self.silence.is_long():
            self._tell(f": {done:,} of {total:,} rows are asked")

    def _tell(self, words: str) -> None:
        self.report(f"iteration {self.step} of {self.steps}{words}", self.step / self.steps)
        self.silence.broken()
