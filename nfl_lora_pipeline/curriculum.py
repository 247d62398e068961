"""Which rows a training step sees, and when training has seen enough. No data of its own: it works on any lessons."""

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from nfl_lora_pipeline.blas import load_fast_blas

load_fast_blas()

import mlx.core as mx  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
import numpy as np  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from nfl_lora_pipeline.evaluation import certainty  # noqa: E402
from nfl_lora_pipeline.recipe import Recipe  # noqa: E402
from nfl_lora_pipeline.rows import Batch, TokenRow, to_batches, tokenize  # noqa: E402
from nfl_lora_pipeline.streams import streams  # noqa: E402

SAFE = 0.9  # a row whose lowest p is above this is shown seldom
SAFE_SHARE = 0.4  # how seldom, and how seldom it is measured
IN_HAND = 1000  # rows worked on at a time: what comes round too seldom is forgotten before it is learnt
REPLAY = 0.4  # safe rows shown for each doubtful one, at most
SAMPLE = 1000  # rows that are measured at a check besides those in hand
LEAST_STEPS = 320  # of a budget, however little there is to learn
WARM_EPOCHS = 2  # times the recipe's epochs over new rows, where most of what is shown is replayed
LEAST_REPLAY = 4  # batches: safe rows between two looks at a doubtful one, where there are that many
AVERAGE = 0.95  # how much of the moving average stays at a step
CHECK_EVERY = 32  # steps, or half an epoch where that is more, but not twice as many
PROBES = 96  # fresh refusals asked at a check
REFUSED = 0.94  # the share of them that must be refused before training ends sooner than its budget
NEARLY = 0.99  # the share of teaching rows that are certain when the end is set
ENDING = 0.4  # of the steps made until then: how many follow
LOWEST_RATE = 0.12  # of the peak learning rate
UNKNOWN_POWER = 0.3  # the learning rate falls with the share of rows not yet certain, to this power
OVERTIME = 64  # steps behind the budget, at the lowest learning rate, while a row is not certain
OVERTIME_CHECK = 16  # steps
WHOLE_EVERY = 4  # steps: in the others, answers end at their last doubtful token


@dataclass(frozen=True)
class Lesson:
    """A question and the answer to learn. `teaches` is False where the answer is a refusal that a base gives anyway."""

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
        stopped: why training ended: "certain" (every row is) or "budget".
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
        *,
        warm: bool = False,
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
        order = {fact: place for place, fact in enumerate(dict.fromkeys(self.facts))}
        self.places = [order[fact] for fact in self.facts]
        self.tail = shared_tail(self.rows)
        self.lowest = np.zeros(len(lessons))
        self.until = np.zeros(len(lessons), np.int32)
        self.lowest[self.refusing] = 1.0  # as the base says it, until a check finds otherwise
        self.rng = random.Random(recipe.seed)
        self.budget = self.last_step = self.check_every = 0
        self.warm, self.unknown = warm, 1.0
        self.to_learn = len(self.teaching)
        self._plan()
        self.average: list[tuple[str, mx.array]] = []
        self.ending = False
        self.best: tuple[tuple[int, float], list[tuple[str, mx.array]]] | None = None

    def batches(self, dataset: object, batch_size: int, **_: object) -> Iterator[list[Batch]]:
        """Rows that teach, of which the safe ones seldom, and rows that refuse, most of them drawn just now."""
        waiting: list[int] = []
        for step in itertools.count():
            self._set_learning_rate(step)
            self._average(step)
            if self._is_time_to_check(step):
                if self._check(step) or step >= self.last_step:
                    return
                waiting = []
            refusing = round(batch_size * self.recipe.refusal_share)
            if len(waiting) < batch_size - refusing:
                waiting = self._queue() + waiting
            taken, waiting = waiting[refusing - batch_size :], waiting[: refusing - batch_size]
            known_people = self._some_refusing(refusing)
            fresh = tokenize(self.tokenizer, itertools.islice(self.refusals, refusing - len(known_people)))
            known = [*taken, *known_people]
            rows = [self.rows[index] for index in known] + fresh
            if step % WHOLE_EVERY:
                until = [*self.until[known].tolist(), *[0] * len(fresh)]
                rows = [self._shortened(row, last) for row, last in zip(rows, until, strict=True)]
            yield to_batches(rows, len(streams()))

    def conclude(self) -> None:
        """Put the best adapter back and write down what is not certain."""
        assert self.best is not None, "conclude() before training has ended"
        self.model.load_weights(self.best[1], strict=False)
        if self.log.stopped != "certain":
            self._measure(range(len(self.rows)))
        worst: dict[str, float] = {}
        for fact, lowest in zip(self.facts, self.lowest.tolist(), strict=True):
            worst[fact] = min(lowest, worst.get(fact, 1.0))
        above = self.recipe.certain_above
        self.log.uncertain = {
            fact: low for fact, low in sorted(worst.items(), key=lambda item: item[1]) if low <= above
        }
        self.log.lowest_probability = min(worst.values())

    def _shortened(self, row: TokenRow, doubtful_until: int) -> TokenRow:
        """The row up to its last doubtful token, or else to where all answers go on alike: what follows teaches little."""
        end = row.start + doubtful_until if doubtful_until else len(row.tokens) - self.tail
        return TokenRow(row.tokens[:end], row.start)

    def _set_end(self, step: int) -> None:
        """Nearly all is known: what is left of the budget shrinks to a share of the steps made so far."""
        if not self.ending:
            self.ending = True
            self.budget = min(self.budget, step + math.ceil(ENDING * step))
            self.last_step = self.budget + OVERTIME

    def _plan(self) -> None:
        """Budget and checks for so many rows to learn."""
        epoch = math.ceil(self.to_learn / self.recipe.batch_rows)
        epochs = self.recipe.max_epochs * (WARM_EPOCHS if self.warm else 1)
        self.budget = self.last_step = min(self.recipe.max_steps, max(LEAST_STEPS, epochs * epoch))
        self.check_every = min(max(CHECK_EVERY, epoch // 2), 2 * CHECK_EVERY)

    def _progress(self, step: int, known: int) -> None:
        """How much of what was to be learnt is unknown, and what follows from it."""
        if step == 0:
            self.to_learn = len(self.teaching) - known
            self._plan()
        self.unknown = (len(self.teaching) - known) / max(1, self.to_learn)
        if step and self.unknown <= 1 - NEARLY:
            self._set_end(step)

    def _is_time_to_check(self, step: int) -> bool:
        if step == 0:
            return self.warm
        if step < self.budget:
            return step % self.check_every == 0
        return (step - self.budget) % OVERTIME_CHECK == 0 or step >= self.last_step

    def _due(self, rows: list[int]) -> list[int]:
        """The doubtful rows that are in hand, and a sample of the others."""
        doubtful = set(self._in_hand([index for index in rows if self.lowest[index] < SAFE]))
        others = [index for index in rows if index not in doubtful]
        return sorted(doubtful) + self.rng.sample(others, min(SAMPLE, math.ceil(SAFE_SHARE * len(others))))

    def _queue(self) -> list[int]:
        """The doubtful rows, and of the safe ones a share, but not many more than there are doubtful ones."""
        doubtful = self._in_hand([index for index in self.teaching if self.lowest[index] < SAFE])
        safe = [index for index in self.teaching if self.lowest[index] >= SAFE]
        replayed = min(SAFE_SHARE * len(safe), max(REPLAY * len(doubtful), LEAST_REPLAY * self.recipe.batch_rows))
        rows = doubtful + self.rng.sample(safe, math.ceil(replayed))
        self.rng.shuffle(rows)
        while len(rows) < self.recipe.batch_rows:
            rows += self.rng.sample(self.teaching, len(self.teaching))
        return rows

    def _in_hand(self, doubtful: list[int]) -> list[int]:
        """The rows to work on: all that are nearly certain, and the first so many of those that are not."""
        unknown = [index for index in doubtful if self.lowest[index] <= self.recipe.certain_above]
        unknown.sort(key=self.places.__getitem__)
        return unknown[:IN_HAND] + [index for index in doubtful if self.lowest[index] > self.recipe.certain_above]

    def _some_refusing(self, count: int) -> list[int]:
        """People without a record: the doubtful ones in up to half of the places, others in a quarter."""
        doubtful = [index for index in self.refusing if self.lowest[index] < SAFE]
        chosen = self.rng.sample(doubtful, min(len(doubtful), count // 2))
        return chosen + self.rng.sample(self.refusing, min(count // 4, len(self.refusing)))

    def _set_learning_rate(self, step: int) -> None:
        warm = min(1.0, (step + 1) / (self.recipe.warmup_steps + 1))
        left = min(max(0.0, 1 - step / self.budget), min(1.0, self.unknown) ** UNKNOWN_POWER)
        self.optimizer.learning_rate = self.recipe.learning_rate * warm * min(1.0, LOWEST_RATE + 1.3 * left)

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
        self._measure(self._due(self.teaching) if step else self.teaching)
        if step < self.budget // 2:
            self._measure_one_phrasing_each()
        else:
            self._measure(self._due(self.refusing) if step < self.budget else self.refusing)
        probes = tokenize(self.tokenizer, itertools.islice(self.refusals, PROBES))
        refused = float(np.mean(certainty(self.model, probes).greedy))
        known = int(np.sum(self.lowest[self.teaching] > above))
        self.log.certain.append((step, known / len(self.teaching)))
        done = bool(np.all(self.lowest > above)) and (refused >= REFUSED or step >= self.budget)
        if done:
            self._measure(range(len(self.rows)))
            done = bool(np.all(self.lowest > above))
        self._progress(step, known)
        score = int(np.sum(self.lowest > above)), refused
        if done or self.best is None or score > self.best[0]:
            self.best = score, self.average
        loss = f", loss {self.log.losses[-1][1]:.3f}" if self.log.losses else ""
        self.report(
            f"iteration {step}{loss}: {known:,} of {len(self.teaching):,} rows certain, {refused:.0%} of strangers refused",
            1.0 if done else known / len(self.teaching) * refused,
        )
        if done:
            self.log.stopped = "certain"
        return done

    def _measure_one_phrasing_each(self) -> None:
        """Ask about people without a record in one phrasing; who is given a number is doubtful in all of them."""
        facts = self.rng.sample(list(self.phrasings_of_refused.values()), min(SAMPLE, len(self.phrasings_of_refused)))
        asked = [self.rng.choice(rows) for rows in facts]
        self._measure(asked)
        for index in asked:
            if self.lowest[index] <= self.recipe.certain_above:
                self.lowest[self.phrasings_of_refused[self.facts[index]]] = 0.0

    def _measure(self, indices: Sequence[int]) -> None:
        measured = certainty(self.model, [self.rows[index] for index in indices])
        self.lowest[list(indices)] = measured.lowest
        self.until[list(indices)] = measured.doubtful_until
