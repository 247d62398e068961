"""LoRA training for recall, on mlx-lm's tuner.

Three things differ from `mlx_lm.lora`, each through an extension point of its trainer: the loss is spent on the answer alone,
computed at the answer's positions alone; the batch iterator shows what is in doubt, and what is known in turn, and mixes in
people invented for the step with the refusal as their answer; and training ends when a forward pass over all rows finds
every answer certain.

Source: p > 0.5 on every answer token is sufficient for greedy recall, and the loss belongs on what is below it (MemFT,
arXiv 2605.30260); refusals for unknown people against invention (arXiv 2403.05612).
"""

import hashlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nfl_lora_pipeline.models.blas import load_fast_blas

load_fast_blas()

import mlx.core as mx  # noqa: E402
from mlx import nn  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm.tuner.callbacks import TrainingCallback  # noqa: E402
from mlx_lm.tuner.trainer import TrainingArgs, train  # noqa: E402

from nfl_lora_pipeline.lessons.lessons import Lesson  # noqa: E402
from nfl_lora_pipeline.models.evaluation import KNOWN  # noqa: E402
from nfl_lora_pipeline.models.forward import answer_logits, token_losses  # noqa: E402
from nfl_lora_pipeline.models.rows import Batch  # noqa: E402
from nfl_lora_pipeline.models.streams import streams  # noqa: E402
from nfl_lora_pipeline.tuning.certificate import write_records  # noqa: E402
from nfl_lora_pipeline.tuning.checkpoint import Checkpoint, load_checkpoint, save_checkpoint  # noqa: E402
from nfl_lora_pipeline.tuning.curriculum import Curriculum  # noqa: E402
from nfl_lora_pipeline.tuning.recipe import NOT_OF_THE_ADAPTER, Recipe  # noqa: E402
from nfl_lora_pipeline.tuning.training_log import TrainingLog  # noqa: E402
from nfl_lora_pipeline.tuning.tuner import begin, optimizer_of, quiet, uncompiled_on_cpu  # noqa: E402

ENDLESS = sys.maxsize  # it is the batches that end
KNOWN_LOSS = -math.log(KNOWN)  # nats: a token known better than this is left out of the loss


def recall_loss(model: nn.Module, *batches: Batch) -> tuple[mx.array, mx.array]:
    """Mean cross-entropy over the answer tokens not yet known, and the number of all tokens read, over all batches."""
    sums, counts = [], []
    for (tokens, wanted, targets, weights, states), stream in zip(batches, streams(), strict=False):
        with mx.stream(stream):
            losses = token_losses(answer_logits(model, tokens, wanted, states), targets)
            unknown = mx.stop_gradient(weights * (losses > KNOWN_LOSS))
            sums.append((losses * unknown).sum())
            counts.append(unknown.sum())
    return sum(sums) / mx.maximum(sum(counts), 8.0), mx.array(sum(batch.tokens.size for batch in batches))


def train_adapter(
    model: Any,
    tokenizer: Any,
    lessons: Sequence[Lesson],
    recipe: Recipe,
    folder: Path,
    *,
    refusals: Iterator[tuple[str, str]],
    start: Path | None = None,
    checkpoint: Path | None = None,
    report: Callable[[str, float], None] = lambda line, share: None,
) -> TrainingLog:
    """Train an adapter until every answer is certain, or to the recipe's budget.

    Args:
        model: a model of `mlx_lm.load`; it carries the adapter afterwards.
        tokenizer: its tokenizer.
        lessons: the rows to learn.
        recipe: how to train.
        folder: an existing folder, which gets `adapters.safetensors`, `adapter_config.json`, `training.json` and
            `certificate.json`.
        refusals: questions without an answer and their refusals, without end, the same at every call.
        start: the folder of an adapter to go on from, made with the same recipe on the same base; None to begin anew.
        checkpoint: a file, `*.safetensors`, from which the next call with the same arguments goes on where this one was
            broken off; on the CPU to the same adapter, byte for byte. It is written at every check, when the last one is
            a minute old, and when SIGINT or SIGTERM comes, at the end of the step at hand. Whoever calls removes it.
            None for none.
        report: told a line for the log and how much of the rows is certain (0 to 1) at every check.

    Raises:
        ValueError: the recipe does not fit the model, or there is nothing to learn.
    """
    started = time.perf_counter()
    if not any(lesson.teaches for lesson in lessons):
        raise ValueError("no row teaches a number: the weeks hold no recorded player")
    config, log = begin(model, lessons, recipe, start)
    optimizer = optimizer_of(recipe, betas=(0.9, 0.98))
    same = _what_is_trained(lessons, recipe, start)

    def keep(made: Checkpoint) -> None:
        if checkpoint:
            seconds = made.state["log"]["seconds"] + time.perf_counter() - started
            state = made.state | {"of": same, "log": made.state["log"] | {"seconds": seconds}}
            save_checkpoint(checkpoint, Checkpoint(made.arrays, state))

    warm = start is not None
    curriculum = Curriculum(model, tokenizer, lessons, recipe, optimizer, refusals, log, report, warm=warm, keep=keep)
    found = load_checkpoint(checkpoint) if checkpoint else None
    if found and found.state.get("of") == same:
        curriculum.restore(found)
        log.resumed.append(log.iterations)
        report(f"going on from iteration {log.iterations}, where this training was broken off", 0.0)
    args = TrainingArgs(
        batch_size=recipe.batch_rows,
        iters=ENDLESS,
        steps_per_report=10,
        steps_per_save=ENDLESS,
        adapter_file=str(folder / "adapters.safetensors"),
        clear_cache_threshold=1 << 32,
    )
    with quiet(), uncompiled_on_cpu(), curriculum.deferral:
        train(
            model,
            optimizer,
            train_dataset=lessons,
            args=args,
            loss=recall_loss,
            iterate_batches=curriculum.batches,
            training_callback=_Recorder(log),
        )
        curriculum.conclude()
    mx.save_safetensors(args.adapter_file, dict(tree_flatten(model.trainable_parameters())))
    log.peak_memory_bytes = max(log.peak_memory_bytes, mx.get_peak_memory())
    log.seconds += time.perf_counter() - started
    lowest = curriculum.knowledge.lowest.tolist()
    certificate = write_records(folder, config, log, lessons, lowest, above=recipe.certain_above)
    report(certificate.in_short(), 1.0)
    return log


def _what_is_trained(lessons: Sequence[Lesson], recipe: Recipe, start: Path | None) -> str:
    """A hash of all that a checkpoint belongs to."""
    digest = hashlib.sha256(recipe.model_dump_json(exclude=set(NOT_OF_THE_ADAPTER)).encode())
    for lesson in lessons:
        digest.update(repr(lesson).encode())
    if start is not None:
        digest.update((start / "adapters.safetensors").read_bytes())
    return digest.hexdigest()


class _Recorder(TrainingCallback):  # type: ignore[misc]
    """mlx-lm counts the iterations of this process; those before a break are added."""

    def __init__(self, log: TrainingLog):
        self.log, self.before = log, log.iterations

    def on_train_loss_report(self, train_info: dict[str, float]) -> None:
        self.log.losses.append((self.before + int(train_info["iteration"]), train_info["train_loss"]))
        self.log.tokens_per_second = train_info["tokens_per_second"]
