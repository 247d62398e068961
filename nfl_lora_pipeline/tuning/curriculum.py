"""The course of a training: what each step shows, when the model is asked what it knows, and when that is enough.

Every so many steps the averaged adapter is asked, and what it answers decides what is shown next.
"""

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from nfl_lora_pipeline.models.blas import load_fast_blas

load_fast_blas()

import mlx.core as mx  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
from mlx.utils import tree_flatten, tree_unflatten  # noqa: E402

from nfl_lora_pipeline.interrupts import Deferral, is_interrupt  # noqa: E402
from nfl_lora_pipeline.lessons.lessons import Lesson  # noqa: E402
from nfl_lora_pipeline.models.frozen import FrozenStates  # noqa: E402
from nfl_lora_pipeline.models.merged import merged  # noqa: E402
from nfl_lora_pipeline.models.rows import Batch, TokenRow, by_lanes, refuse_lossy, to_batch, tokenize  # noqa: E402
from nfl_lora_pipeline.models.streams import streams  # noqa: E402
from nfl_lora_pipeline.tuning.averaging import MovingAverage, Weights  # noqa: E402
from nfl_lora_pipeline.tuning.checkpoint import Checkpoint  # noqa: E402
from nfl_lora_pipeline.tuning.knowledge import Knowledge  # noqa: E402
from nfl_lora_pipeline.tuning.pace import Pace  # noqa: E402
from nfl_lora_pipeline.tuning.recipe import Recipe  # noqa: E402
from nfl_lora_pipeline.tuning.refusals import Refusals  # noqa: E402
from nfl_lora_pipeline.tuning.schedule import learning_rate  # noqa: E402
from nfl_lora_pipeline.tuning.selection import Selection  # noqa: E402
from nfl_lora_pipeline.tuning.training_log import TrainingLog  # noqa: E402

CHECKPOINT_SECONDS = 45.0  # a checkpoint is written at a step's end when the last one is older than this
REFUSED = 0.94  # where strangers are shown: how many of them must be refused for an end before the budget


class Curriculum:
    """Its `batches` is an `iterate_batches` for mlx-lm's `train`; when it ends, training ends.

    What a check measures, and what is kept, is a moving average of the adapter.
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
        *,
        warm: bool = False,
        keep: Callable[[Checkpoint], None] = lambda checkpoint: None,
    ):
        self.model, self.recipe, self.optimizer, self.log = model, recipe, optimizer, log
        self.report, self.keep, self.deferral = report, keep, Deferral()
        rows = tokenize(tokenizer, ((lesson.question, lesson.answer) for lesson in lessons))
        refuse_lossy(tokenizer, rows, (lesson.answer for lesson in lessons))
        teaches = [lesson.teaches for lesson in lessons]
        self.knowledge = Knowledge(rows, [lesson.fact for lesson in lessons], teaches, above=recipe.certain_above)
        self.pace = Pace(recipe, sum(teaches), warm=warm)
        self.rng = random.Random(recipe.seed)
        self.refusals = Refusals(refusals, tokenizer, self.rng, shorten=self.knowledge.shortened)
        self.selection = Selection(self.knowledge, self.refusals, self.rng, recipe)
        self.average = MovingAverage(model)
        self.frozen = FrozenStates(model)
        self.best: tuple[list[float], Weights] | None = None
        self.first_step, self.resumes = 0, False
        self.before_check: Checkpoint | None = None
        self.kept_at = time.monotonic()

    def batches(self, dataset: object, batch_size: int, **_: object) -> Iterator[list[Batch]]:
        """The batches of one step, until training is at its end."""
        for step in itertools.count(self.first_step):
            self.log.iterations = step
            if self.resumes:  # all until the rows was done before the checkpoint was written
                self.resumes = False
            else:
                self._keep_if_due(step)
                if self._is_over(step):
                    return
            yield self._batches(*self.selection.take(step, batch_size))

    def conclude(self) -> None:
        """Put the best adapter on the model, and have it measured."""
        assert self.best is not None, "conclude() before training has ended"
        self.model.load_weights(self.best[1], strict=False)
        if self.log.stopped != "certain":
            with self._kept_when_interrupted():
                self.knowledge.measure_all(self.model)

    def checkpoint(self, step: int, *, prepared: bool) -> Checkpoint:
        """All that is needed to go on with step `step`.

        Args:
            step: the step.
            prepared: whether what comes before its rows (the average, a check) has been done.
        """
        parts: dict[str, Weights] = {
            "model": tree_flatten(self.model.trainable_parameters()),
            "average": self.average.weights,
            "best": self.best[1] if self.best else [],
            "optimizer": tree_flatten(self.optimizer.state),
        }
        return Checkpoint(
            {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays},
            {
                "step": step,
                "prepared": prepared,
                "pace": {name: value for name, value in asdict(self.pace).items() if name != "recipe"},
                "log": asdict(self.log),
                "rng": self.rng.getstate(),
                "random": random_seed(),
                "best": self.best[0] if self.best else None,
                "knowledge": self.knowledge.state(),
                "refusals": self.refusals.state(),
                "selection": self.selection.state(),
            },
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on where a checkpoint of the same training was written."""
        state = checkpoint.state
        self.model.load_weights(checkpoint.part("model"), strict=False)
        average = dict(checkpoint.part("average"))
        self.average.weights = [(name, average[name]) for name, _ in self.average.weights]
        self.best = (state["best"], checkpoint.part("best")) if state["best"] else None
        self.optimizer.init(self.model.trainable_parameters())
        self.optimizer.state = tree_unflatten(checkpoint.part("optimizer"))
        mx.random.seed(state["random"])
        self.pace = Pace(self.recipe, **state["pace"])
        self.log.__dict__.update(state["log"])
        version, numbers, gauss = state["rng"]
        self.rng.setstate((version, tuple(numbers), gauss))
        self.knowledge.restore(state["knowledge"])
        self.refusals.restore(state["refusals"])
        self.selection.restore(state["selection"])
        self.first_step, self.resumes = state["step"], state["prepared"]

    def _keep_if_due(self, step: int) -> None:
        """Write a checkpoint where the last one is old, or where somebody wants an end, which then comes."""
        if self.deferral.pending:
            self._keep(self.checkpoint(step, prepared=False))
            self.report(f"kept at iteration {step}", 0.0)
            self.deferral.act()
        elif time.monotonic() - self.kept_at > CHECKPOINT_SECONDS:
            self._keep(self.checkpoint(step, prepared=False))

    def _keep(self, checkpoint: Checkpoint) -> None:
        self.keep(checkpoint)
        self.kept_at = time.monotonic()

    @contextmanager
    def _kept_when_interrupted(self) -> Iterator[None]:
        """An interrupt ends the block at once, and what was before the check is kept."""
        try:
            with self.deferral.suspended():
                yield
        except BaseException as error:
            if is_interrupt(error) and self.before_check:
                self._keep(self.before_check)
                self.report(f"kept at iteration {self.before_check.state['step']}", 0.0)
            raise

    def _is_over(self, step: int) -> bool:
        """Do what comes before a step's rows; whether there is to be no such step."""
        checks = self.pace.is_time_to_check(step)
        if checks:
            self.before_check = self.checkpoint(step, prepared=False)
        self.optimizer.learning_rate = learning_rate(self.recipe, step, self.pace.budget, self.pace.unknown)
        self.average.update(step)
        if not checks:
            return False
        with self._kept_when_interrupted(), self.average.in_place(), merged(self.model):
            done = self._check(step)
        if done or step >= self.pace.last_step:
            return True
        self.selection.look_again()
        self._keep(self.checkpoint(step, prepared=True))
        return False

    def _check(self, step: int) -> bool:
        """Ask the model what it knows; whether training may end."""
        known = self.knowledge
        if step == 0:
            known.measure_all(self.model)
        else:
            asked = self.selection.in_hand() + known.doubtful(taught=False).tolist()
            known.measure(self.model, self.selection.some_safe_rows(late=self.pace.is_late(step)))
            known.look(self.model, asked, self.rng)
        refused = self.refusals.probe(self.model, self.pace.check_every)
        enough = refused >= REFUSED or step >= self.pace.budget or not self.recipe.refusal_share
        done = enough and not known.unknown_rows() and known.confirm(self.model)
        rows, unknown = len(known.rows), known.unknown_rows()
        if done or step >= self.pace.budget:
            self._keep_best([-float(unknown), refused])
        self.pace.progress(step, unknown, rows)
        self.log.certain.append((step, 1 - unknown / rows))
        loss = f", loss {self.log.losses[-1][1]:.3f}" if self.log.losses else ""
        self.report(
            f"iteration {step}{loss}: about {rows - unknown:,} of {rows:,} rows certain, {refused:.0%} of strangers refused",
            1.0 if done else (1 - unknown / rows) * refused,
        )
        self.log.stopped = "certain" if done else "budget"
        return done

    def _keep_best(self, score: list[float]) -> None:
        if self.best is None or score >= self.best[0]:
            self.best = score, self.average.weights

    def _batches(self, rows: Sequence[TokenRow], keys: Sequence[int | None]) -> list[Batch]:
        """One batch a stream, with what the frozen layers make of its rows."""
        made = []
        for lane in by_lanes(rows, len(streams())):
            batch = to_batch([rows[index] for index in lane])
            if self.frozen.layers:
                states = self.frozen.states([rows[index] for index in lane], [keys[index] for index in lane])
                batch = batch._replace(states=states)
            made.append(batch)
        return made


def random_seed() -> int:
    """What `mx.random.seed` takes to go on with the numbers that MLX would draw now: its two words of state in one."""
    state: Any = mx.random.state
    high, low = state[0].tolist()
    return int(high) << 32 | int(low)
