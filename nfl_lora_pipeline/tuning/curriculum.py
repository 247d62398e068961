"""Which rows a training step sees, and when training has seen enough. No data of its own: it works on any lessons.

Each step shows facts in doubt, each in one of its doubtful phrasings, safe ones in turn so that none is lost, and questions
without an answer. Every so many steps the averaged adapter is asked, and what it answers decides what is shown next.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from nfl_lora_pipeline.models.blas import load_fast_blas

load_fast_blas()

import mlx.core as mx  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
import numpy as np  # noqa: E402
from mlx.utils import tree_flatten, tree_unflatten  # noqa: E402

from nfl_lora_pipeline.lessons.lessons import Lesson  # noqa: E402
from nfl_lora_pipeline.models.frozen import FrozenStates  # noqa: E402
from nfl_lora_pipeline.models.merged import merged  # noqa: E402
from nfl_lora_pipeline.models.rows import Batch, TokenRow, by_lanes, to_batch, tokenize  # noqa: E402
from nfl_lora_pipeline.models.streams import streams  # noqa: E402
from nfl_lora_pipeline.tuning.averaging import MovingAverage, Weights  # noqa: E402
from nfl_lora_pipeline.tuning.checkpoint import Checkpoint  # noqa: E402
from nfl_lora_pipeline.tuning.knowledge import SAFE, Knowledge  # noqa: E402
from nfl_lora_pipeline.tuning.pace import Pace  # noqa: E402
from nfl_lora_pipeline.tuning.recipe import Recipe  # noqa: E402
from nfl_lora_pipeline.tuning.refusals import Refusals  # noqa: E402
from nfl_lora_pipeline.tuning.schedule import learning_rate  # noqa: E402
from nfl_lora_pipeline.tuning.training_log import TrainingLog  # noqa: E402

IN_HAND = 1000  # facts worked on at a time: what comes round too seldom is forgotten before it is learnt
REPLAY = 0.25  # safe facts shown for each doubtful one
LEAST_REPLAY = 32  # safe facts shown between two looks at a doubtful one, where there are that many
SAMPLE = 1000  # rows of safe facts that are asked about at a check
SAMPLE_SHARE = 0.4  # of them, at most
LATE_SAMPLE, LATE_SHARE = 1500, 0.15  # rows, or that share of them where it is more, towards the end
REST = 0.7  # of the places for what teaches: what is left of them when all of it is known
FEW = 3  # times the share that is not known: how the places go back
SAFE_PEOPLE = 6  # of the places that are left, one in so many is for somebody without a record who is refused already
REFUSED = 0.94  # the share of strangers that must be refused before training ends sooner than its budget
WHOLE_EVERY = 4  # steps: in the others, answers end at their last doubtful token


class Curriculum:
    """Which rows a step sees. Its `batches` is an `iterate_batches` for mlx-lm's `train`; when it ends, training ends.

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
        self.report, self.keep = report, keep
        self.rows = tokenize(tokenizer, ((lesson.question, lesson.answer) for lesson in lessons))
        teaches = [lesson.teaches for lesson in lessons]
        self.knowledge = Knowledge(self.rows, [lesson.fact for lesson in lessons], teaches, above=recipe.certain_above)
        self.pace = Pace(recipe, sum(teaches), warm=warm)
        self.rng = random.Random(recipe.seed)
        self.refusals = Refusals(refusals, tokenizer, self.rng)
        self.average = MovingAverage(model)
        self.frozen = FrozenStates(model)
        self.best: tuple[list[float], Weights] | None = None
        self.tail = shared_tail(self.rows)
        self.shown = np.zeros(len(self.rows), np.int32)
        self.waiting: list[int] = []
        self.first_step, self.resumes = 0, False

    def batches(self, dataset: object, batch_size: int, **_: object) -> Iterator[list[Batch]]:
        """The batches of one step, until training is at its end."""
        for step in itertools.count(self.first_step):
            self.log.iterations = step
            if self.resumes:  # all until the rows was done before the checkpoint was written
                self.resumes = False
            elif self._is_over(step):
                return
            yield self._batches(*self._rows(step, batch_size))

    def conclude(self) -> None:
        """Put the best adapter on the model, and have it measured."""
        assert self.best is not None, "conclude() before training has ended"
        self.model.load_weights(self.best[1], strict=False)
        if self.best[1] is not self.average.weights:
            self.knowledge.measure_all(self.model)

    def checkpoint(self, step: int) -> Checkpoint:
        """All that is needed to go on with step `step`."""
        parts: dict[str, Weights] = {
            "model": tree_flatten(self.model.trainable_parameters()),
            "average": self.average.weights,
            "best": self.best[1] if self.best else [],
            "optimizer": tree_flatten(self.optimizer.state),
        }
        hard = [[row.tokens, row.start] for row in self.refusals.hard]
        return Checkpoint(
            {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays},
            {
                "step": step,
                "pace": {name: value for name, value in asdict(self.pace).items() if name != "recipe"},
                "log": asdict(self.log),
                "rng": self.rng.getstate(),
                "random": random_seed(),
                "drawn": self.refusals.drawn,
                "hard": hard,
                "best": self.best[0] if self.best else None,
                "waiting": self.waiting,
                "shown": self.shown.tolist(),
                "lowest": self.knowledge.lowest.tolist(),
                "until": self.knowledge.until.tolist(),
                "latest": self.knowledge.latest.tolist(),
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
        self.refusals.skip(state["drawn"])
        self.refusals.hard = [TokenRow(tokens, start) for tokens, start in state["hard"]]
        self.waiting = state["waiting"]
        self.shown = np.array(state["shown"], np.int32)
        self.knowledge.lowest, self.knowledge.latest = np.array(state["lowest"]), np.array(state["latest"])
        self.knowledge.until = np.array(state["until"], np.int32)
        self.first_step, self.resumes = state["step"], True

    def _is_over(self, step: int) -> bool:
        """Do what comes before a step's rows; whether there is to be no such step."""
        self.optimizer.learning_rate = learning_rate(self.recipe, step, self.pace.budget, self.pace.unknown)
        self.average.update(step)
        if not self.pace.is_time_to_check(step):
            return False
        with self.average.in_place(), merged(self.model):
            done = self._check(step)
        if done or step >= self.pace.last_step:
            return True
        self.waiting = []
        self.keep(self.checkpoint(step))
        return False

    def _check(self, step: int) -> bool:
        """Ask the model what it knows; whether training may end."""
        known = self.knowledge
        if step == 0:
            known.measure_all(self.model)
        else:
            asked = self._in_hand() + known.doubtful(taught=False).tolist()
            known.measure(self.model, self._sample(known.safe_rows(), late=self.pace.is_late(step)))
            known.look(self.model, asked, self.rng)
        refused = self.refusals.probe(self.model)
        enough = refused >= REFUSED or step >= self.pace.budget
        done = False
        if (enough and bool(np.all(known.latest > known.above))) or step >= self.pace.last_step:
            done = known.measure_all(self.model) and enough
            self._keep_best(refused)
        rows = len(self.rows)
        self.pace.progress(step, unknown := known.unknown_rows(), rows)
        self.log.certain.append((step, 1 - unknown / rows))
        loss = f", loss {self.log.losses[-1][1]:.3f}" if self.log.losses else ""
        self.report(
            f"iteration {step}{loss}: about {rows - unknown:,} of {rows:,} rows certain, {refused:.0%} of strangers refused",
            1.0 if done else (1 - unknown / rows) * refused,
        )
        self.log.stopped = "certain" if done else "budget"
        return done

    def _keep_best(self, refused: float) -> None:
        score = [float(np.sum(self.knowledge.lowest > self.knowledge.above)), refused]
        if self.best is None or score >= self.best[0]:
            self.best = score, self.average.weights

    def _sample(self, rows: list[int], *, late: bool) -> list[int]:
        """Some of what is thought to be known; towards the end more of it."""
        count = max(LATE_SAMPLE, LATE_SHARE * len(rows)) if late else min(SAMPLE, SAMPLE_SHARE * len(rows))
        return self.rng.sample(rows, min(math.ceil(count), len(rows)))

    def _in_hand(self) -> list[int]:
        """The facts to work on: all that are nearly safe, and the first so many of those that are not certain."""
        doubtful = self.knowledge.doubtful(taught=True)
        certain = self.knowledge.latest[doubtful] > self.knowledge.above
        return doubtful[~certain][:IN_HAND].tolist() + doubtful[certain].tolist()

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

    def _rows(self, step: int, batch_rows: int) -> tuple[list[TokenRow], list[int | None]]:
        """The rows of a step, some that teach, some people without a record, some questions without an answer.

        With them their indices; None for those that are none of the lessons'.
        """
        most = batch_rows * (1 - self.recipe.refusal_share)
        teaching = max(1, round(most * min(1.0, REST + (1 - REST) * FEW * self.knowledge.unknown_share())))
        while len(self.waiting) < teaching:
            self.waiting = self._next_pass() + self.waiting
        self.waiting, taken = self.waiting[:-teaching], self.waiting[-teaching:]
        known = taken + self._some_refusing(batch_rows - teaching)
        fresh = self.refusals.take(batch_rows - len(known))
        rows, keys = [self.rows[index] for index in known] + fresh, [*known, *[None] * len(fresh)]
        if step % WHOLE_EVERY:
            until = [*self.knowledge.until[known].tolist(), *[0] * len(fresh)]
            rows = [self._shortened(row, last) for row, last in zip(rows, until, strict=True)]
        return rows, keys

    def _next_pass(self) -> list[int]:
        """One row of each doubtful fact in hand, and of some safe ones, shuffled."""
        doubtful, safe = self._in_hand(), self.knowledge.safe(taught=True).tolist()
        replayed = min(len(safe), math.ceil(max(REPLAY * len(doubtful), LEAST_REPLAY)))
        rows = [self._next_phrasing(fact) for fact in doubtful + self._longest_not_shown(safe, replayed)]
        self.rng.shuffle(rows)
        return rows

    def _some_refusing(self, count: int) -> list[int]:
        """People without a record: the doubtful ones in up to half of the places, others in some."""
        doubtful = self.knowledge.doubtful(taught=False).tolist()
        safe = self.knowledge.safe(taught=False).tolist()
        facts = self.rng.sample(doubtful, min(len(doubtful), math.ceil(count / 2)))
        left = count - len(facts)
        facts += self._longest_not_shown(safe, min(len(safe), math.ceil(left / SAFE_PEOPLE)))
        return [self._next_phrasing(fact) for fact in facts]

    def _longest_not_shown(self, facts: list[int], count: int) -> list[int]:
        """The facts shown least, so that none is lost; which of those that are even, by chance."""
        times = [int(self.shown[self.knowledge.of_fact[fact]].sum()) for fact in facts]
        order = sorted(zip(times, (self.rng.random() for _ in facts), facts, strict=True))
        return [fact for _, _, fact in order[:count]]

    def _next_phrasing(self, fact: int) -> int:
        """The doubtful phrasing of a fact, or of a safe one any, that was shown least."""
        indices = self.knowledge.of_fact[fact].tolist()
        doubtful = [index for index in indices if self.knowledge.lowest[index] < SAFE] or indices
        index: int = min(doubtful, key=lambda index: (self.shown[index], self.rng.random()))
        self.shown[index] += 1
        return index

    def _shortened(self, row: TokenRow, doubtful_until: int) -> TokenRow:
        """The row up to its last doubtful token, or else to where all answers go on alike: what follows teaches little."""
        end = row.start + doubtful_until if doubtful_until else len(row.tokens) - self.tail
        return TokenRow(row.tokens[:end], row.start)


def shared_tail(rows: Sequence[TokenRow]) -> int:
    """How many tokens all answers end with alike, but for one that is left to every answer."""
    answers = [row.tokens[row.start :] for row in rows]
    shortest = min(len(answer) for answer in answers)
    alike = itertools.takewhile(lambda at: len({answer[-at] for answer in answers}) == 1, range(1, shortest))
    return max(0, sum(1 for _ in alike) - 1)


def random_seed() -> int:
    """What `mx.random.seed` takes to go on with the numbers that MLX would draw now: its two words of state in one."""
    state: Any = mx.random.state
    high, low = state[0].tolist()
    return int(high) << 32 | int(low)
