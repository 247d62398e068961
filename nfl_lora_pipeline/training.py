"""LoRA training for recall, on mlx-lm's tuner.

Three things differ from `mlx_lm.lora`, each through an extension point of its trainer: the loss is spent on the answer alone,
computed at the answer's positions alone; the batch iterator shows every fact in every epoch, mixes in people invented for
the step with the refusal as their answer, and returns to what is not yet known; and training ends when a forward pass
over all rows finds every answer certain.

Source: p > 0.5 on every answer token is sufficient for greedy recall, and the loss belongs on what is below it (MemFT,
arXiv 2605.30260); refusals for unknown people against invention (arXiv 2403.05612).
"""

import contextlib
import itertools
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nfl_lora_pipeline.blas import load_fast_blas

load_fast_blas()

import mlx.core as mx  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
import numpy as np  # noqa: E402
from mlx import nn  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm.cli_ui import make_console  # noqa: E402
from mlx_lm.tuner.callbacks import TrainingCallback  # noqa: E402
from mlx_lm.tuner.trainer import TrainingArgs, train  # noqa: E402
from mlx_lm.tuner.utils import linear_to_lora_layers  # noqa: E402

from nfl_lora_pipeline.evaluation import certainty  # noqa: E402
from nfl_lora_pipeline.forward import answer_logits, token_losses  # noqa: E402
from nfl_lora_pipeline.recipe import Recipe  # noqa: E402
from nfl_lora_pipeline.rows import Batch, TokenRow, to_batch, tokenize  # noqa: E402

KNOWN_LOSS = 0.05  # nats: a token with p above 0.95 is left out of the loss
SAFE = 0.9  # a row whose lowest p is above this is shown seldom
SAFE_SHARE = 0.4  # how seldom, and how seldom it is measured
AVERAGE = 0.95  # how much of the moving average stays at a step
CHECK_EVERY = 32  # steps, or half an epoch where that is more
PROBES = 96  # fresh refusals asked at a check
REFUSED = 0.94  # the share of them that must be refused before training ends sooner than its budget
WHOLE_EVERY = 4  # steps: in the others the end that all answers share is cut off


@dataclass(frozen=True)
class Lesson:
    """A question and the answer to learn. `teaches` is False where the answer is a refusal, which a base says anyway."""

    question: str
    answer: str
    fact: str
    teaches: bool


@dataclass
class TrainingLog:
    """What a training did, as figures for metadata and report.

    Attributes:
        losses: (iteration, mean loss in nats over the answer tokens not yet known).
        certain: (iteration, share of the teaching rows whose every answer token has p > `certain_above`).
        rows, facts: what was to be learnt, refusals included.
        uncertain: the facts that were not certain at the end, with their lowest probability in any phrasing.
        stopped: why training ended: "certain" or "budget".
    """

    losses: list[tuple[int, float]] = field(default_factory=list)
    certain: list[tuple[int, float]] = field(default_factory=list)
    iterations: int = 0
    rows: int = 0
    facts: int = 0
    uncertain: dict[str, float] = field(default_factory=dict)
    lowest_probability: float = 0.0
    trained_parameters: int = 0
    tokens_per_second: float = 0.0
    peak_memory_bytes: int = 0
    seconds: float = 0.0
    stopped: str = "budget"


def recall_loss(model: nn.Module, *batch: mx.array) -> tuple[mx.array, mx.array]:
    """Mean cross-entropy over the answer tokens not yet known, and the number of all tokens read; arguments: a `Batch`."""
    tokens, wanted, targets, weights = batch
    losses = token_losses(answer_logits(model, tokens, wanted), targets)
    unknown = mx.stop_gradient(weights * (losses > KNOWN_LOSS))
    return (losses * unknown).sum() / mx.maximum(unknown.sum(), 8.0), mx.array(tokens.size)


def train_adapter(
    model: Any,
    tokenizer: Any,
    lessons: Sequence[Lesson],
    recipe: Recipe,
    folder: Path,
    *,
    refusals: Iterator[tuple[str, str]],
    report: Callable[[str, float], None] = lambda line, share: None,
) -> TrainingLog:
    """Train a LoRA adapter until every answer is certain, or to the recipe's budget.

    Args:
        model: a model of `mlx_lm.load`; it carries the adapter afterwards.
        tokenizer: its tokenizer.
        lessons: the rows to learn.
        recipe: how to train.
        folder: an existing folder, which gets `adapters.safetensors`, `adapter_config.json` and `training.json`.
        refusals: questions without an answer and their refusals, without end.
        report: told a line for the log and how much of the rows is certain (0 to 1) at every check.

    Raises:
        ValueError: the recipe does not fit the model, or there is nothing to learn.
    """
    started = time.perf_counter()
    if not any(lesson.teaches for lesson in lessons):
        raise ValueError("no row teaches a number: the weeks hold no recorded player")
    mx.random.seed(recipe.seed)
    mx.reset_peak_memory()
    config = add_lora(model, recipe)
    log = TrainingLog(rows=len(lessons), facts=len({lesson.fact for lesson in lessons}))
    log.trained_parameters = sum(array.size for _, array in tree_flatten(model.trainable_parameters()))
    optimizer = optim.Adam(learning_rate=recipe.learning_rate, betas=[0.9, 0.98])
    curriculum = Curriculum(model, tokenizer, lessons, recipe, optimizer, refusals, log, report)
    args = TrainingArgs(
        batch_size=recipe.batch_rows,
        iters=curriculum.budget,
        steps_per_report=10,
        steps_per_save=curriculum.budget + 1,
        adapter_file=str(folder / "adapters.safetensors"),
        clear_cache_threshold=1 << 32,
    )
    with _quiet(), _uncompiled_on_cpu():
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
    log.peak_memory_bytes = mx.get_peak_memory()
    log.seconds = time.perf_counter() - started
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "training.json").write_text(json.dumps(vars(log), indent=2) + "\n", encoding="utf-8")
    return log


def add_lora(model: Any, recipe: Recipe) -> dict[str, Any]:
    """Freeze the model and put LoRA layers on it.

    Returns:
        The content of `adapter_config.json` with which `mlx_lm.load(adapter_path=...)` does the same.

    Raises:
        ValueError: the recipe names more layers than there are, or modules that no layer has.
    """
    layers = len(model.layers)
    if recipe.num_layers > layers:
        raise ValueError(f"num_layers: {recipe.num_layers}, but this base model has {layers}; use -1 for all")
    present = {
        name for name, module in model.layers[-1].named_modules() if isinstance(module, nn.Linear | nn.QuantizedLinear)
    }
    if unknown := set(recipe.modules or ()) - present:
        raise ValueError(f"modules: this base model has no {min(unknown)!r}; it has {', '.join(sorted(present))}")
    parameters: dict[str, Any] = {"rank": recipe.rank, "scale": recipe.scale, "dropout": recipe.dropout}
    if recipe.modules:
        parameters["keys"] = recipe.modules
    num_layers = layers if recipe.num_layers == -1 else recipe.num_layers
    model.freeze()
    linear_to_lora_layers(model, num_layers, parameters, use_dora=recipe.fine_tune_type == "dora")
    return {
        "fine_tune_type": recipe.fine_tune_type,
        "num_layers": num_layers,
        "lora_parameters": parameters,
        "model": recipe.base_model,
    }


def shared_tail(rows: Sequence[TokenRow]) -> int:
    """How many tokens all answers end with alike, but for one that is left to every answer."""
    answers = [row.tokens[row.start :] for row in rows]
    shortest = min(len(answer) for answer in answers)
    alike = itertools.takewhile(lambda at: len({answer[-at] for answer in answers}) == 1, range(1, shortest))
    return max(0, sum(1 for _ in alike) - 1)


class Curriculum:
    """Which rows a step sees. Its `batches` is an `iterate_batches` for mlx-lm's `train`; when it ends, training ends.

    Facts and refusals share a batch. What a check measures, and what is kept, is a moving average of the adapter.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        lessons: Sequence[Lesson],
        recipe: Recipe,
        optimizer: optim.Optimizer,
        refusals: Iterator[tuple[str, str]],
        log: TrainingLog,
        report: Callable[[str, float], None],
    ):
        self.model, self.tokenizer, self.recipe, self.optimizer = model, tokenizer, recipe, optimizer
        self.refusals, self.log, self.report = refusals, log, report
        self.facts = [lesson.fact for lesson in lessons]
        self.rows = tokenize(tokenizer, ((lesson.question, lesson.answer) for lesson in lessons))
        self.teaching = [index for index, lesson in enumerate(lessons) if lesson.teaches]
        self.refusing = [index for index, lesson in enumerate(lessons) if not lesson.teaches]
        self.phrasings_of_refused: dict[str, list[int]] = {}
        for index in self.refusing:
            self.phrasings_of_refused.setdefault(self.facts[index], []).append(index)
        self.tail = shared_tail(self.rows)
        self.lowest = np.zeros(len(lessons))
        self.lowest[self.refusing] = 1.0  # as the base says it, until a check finds otherwise
        self.rng = random.Random(recipe.seed)
        self.steps_an_epoch = math.ceil(len(self.teaching) / recipe.batch_rows)
        self.budget = min(recipe.max_steps, recipe.max_epochs * self.steps_an_epoch)
        self.check_every = max(CHECK_EVERY, self.steps_an_epoch // 2)
        self.average: list[tuple[str, mx.array]] = []
        self.best: tuple[tuple[int, float], list[tuple[str, mx.array]]] | None = None

    def batches(self, dataset: object, batch_size: int, **_: object) -> Iterator[Batch]:
        """Rows that teach, of which the safe ones seldom, and rows that refuse, most of them drawn just now."""
        waiting: list[int] = []
        for step in itertools.count():
            self._set_learning_rate(step)
            self._average(step)
            if step and step % self.check_every == 0:
                if self._check(step):
                    return
                waiting = []
            refusing = round(batch_size * self.recipe.refusal_share)
            if len(waiting) < batch_size - refusing:
                waiting = self._queue() + waiting
            taken, waiting = waiting[refusing - batch_size :], waiting[: refusing - batch_size]
            known_people = self._some_refusing(refusing)
            fresh = tokenize(self.tokenizer, itertools.islice(self.refusals, refusing - len(known_people)))
            rows = [self.rows[index] for index in taken + known_people] + fresh
            yield to_batch(rows if step % WHOLE_EVERY == 0 else [self._without_tail(row) for row in rows])

    def conclude(self) -> None:
        """Put the best adapter back, measure every row once more and write down what is not certain."""
        if self.log.stopped != "certain":
            self._average(self.budget)
            self._check(self.budget)
        if self.best is not None:
            self.model.load_weights(self.best[1], strict=False)
        self._measure(range(len(self.rows)))
        worst: dict[str, float] = {}
        for fact, lowest in zip(self.facts, self.lowest.tolist(), strict=True):
            worst[fact] = min(lowest, worst.get(fact, 1.0))
        above = self.recipe.certain_above
        self.log.uncertain = {
            fact: low for fact, low in sorted(worst.items(), key=lambda item: item[1]) if low <= above
        }
        self.log.lowest_probability = min(worst.values())

    def _without_tail(self, row: TokenRow) -> TokenRow:
        """The row up to where all answers go on alike: there is little to learn in what follows."""
        return TokenRow(row.tokens[: len(row.tokens) - self.tail], row.start)

    def _is_due(self, index: int) -> bool:
        return bool(self.lowest[index] < SAFE) or self.rng.random() < SAFE_SHARE

    def _queue(self) -> list[int]:
        rows = [index for index in self.teaching if self._is_due(index)]
        self.rng.shuffle(rows)
        return (
            rows
            if len(rows) >= self.recipe.batch_rows
            else [*rows, *self.rng.sample(self.teaching, len(self.teaching))]
        )

    def _some_refusing(self, count: int) -> list[int]:
        """People without a record: the doubtful ones in up to half of the places, others in a quarter."""
        doubtful = [index for index in self.refusing if self.lowest[index] < SAFE]
        chosen = self.rng.sample(doubtful, min(len(doubtful), count // 2))
        return chosen + self.rng.sample(self.refusing, min(count // 4, len(self.refusing)))

    def _set_learning_rate(self, step: int) -> None:
        warm = min(1.0, (step + 1) / (self.recipe.warmup_steps + 1))
        left = 1 - step / self.budget
        self.optimizer.learning_rate = self.recipe.learning_rate * warm * min(1.0, 0.05 + 1.3 * left)

    def _average(self, step: int) -> None:
        """Keep a moving average of the adapter: what a step on strangers takes from a fact, the average mostly keeps."""
        decay = min(AVERAGE, step / (step + 10))
        now = tree_flatten(self.model.trainable_parameters())
        before = self.average or now
        self.average = [
            (name, decay * old + (1 - decay) * new) for (name, old), (_, new) in zip(before, now, strict=True)
        ]
        mx.eval(self.average)

    def _check(self, step: int) -> bool:
        """Measure the averaged adapter; whether training may end."""
        trained = tree_flatten(self.model.trainable_parameters())
        self.model.load_weights(self.average, strict=False)
        done = self._examine(step)
        self.model.load_weights(trained, strict=False)
        return done

    def _examine(self, step: int) -> bool:
        above = self.recipe.certain_above
        self._measure([index for index in self.teaching if self._is_due(index)])
        if step < self.budget // 2:
            self._measure_one_phrasing_each()
        else:
            self._measure([index for index in self.refusing if self._is_due(index)])
        probes = tokenize(self.tokenizer, itertools.islice(self.refusals, PROBES))
        refused = float(np.mean(certainty(self.model, probes).greedy))
        known = int(np.sum(self.lowest[self.teaching] > above))
        self.log.certain.append((step, known / len(self.teaching)))
        done = bool(np.all(self.lowest > above)) and refused >= REFUSED
        if done:
            self._measure(range(len(self.rows)))
            done = bool(np.all(self.lowest > above))
        self._keep_if_best((int(np.sum(self.lowest > above)), refused))
        loss = f", loss {self.log.losses[-1][1]:.3f}" if self.log.losses else ""
        self.report(
            f"iteration {step}{loss}: {known:,} of {len(self.teaching):,} rows certain, {refused:.0%} of strangers refused",
            1.0 if done else known / len(self.teaching) * refused,
        )
        if done:
            self.log.stopped = "certain"
        return done

    def _keep_if_best(self, score: tuple[int, float]) -> None:
        if self.best is None or score > self.best[0]:
            self.best = score, self.average

    def _measure_one_phrasing_each(self) -> None:
        """Ask about everybody without a record in one phrasing; who is given a number is doubtful in all of them."""
        asked = [self.rng.choice(rows) for rows in self.phrasings_of_refused.values()]
        self._measure(asked)
        for index in asked:
            if self.lowest[index] <= self.recipe.certain_above:
                self.lowest[self.phrasings_of_refused[self.facts[index]]] = 0.0

    def _measure(self, indices: Sequence[int]) -> None:
        self.lowest[list(indices)] = certainty(self.model, [self.rows[index] for index in indices]).lowest


class _Recorder(TrainingCallback):  # type: ignore[misc]
    def __init__(self, log: TrainingLog):
        self.log = log

    def on_train_loss_report(self, train_info: dict[str, float]) -> None:
        self.log.losses.append((int(train_info["iteration"]), train_info["train_loss"]))
        self.log.iterations = int(train_info["iteration"])
        self.log.tokens_per_second = train_info["tokens_per_second"]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """mlx-lm draws its progress on standard output, which belongs to whoever called."""
    console = make_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


@contextlib.contextmanager
def _uncompiled_on_cpu() -> Iterator[None]:
    """On the CPU `mx.compile` runs g++ for every new shape of a batch, and needs one; the kernels it makes gain nothing."""
    if mx.default_device() != mx.Device(mx.cpu):
        yield
        return
    mx.disable_compile()
    try:
        yield
    finally:
        mx.enable_compile()
