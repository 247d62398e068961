"""LoRA training for recall: until a forward pass over all rows finds every answer certain.

It differs from `mlx_lm.lora` in four things. The loss is spent on the answer alone, and of that on the tokens that are not
known yet. A step shows facts that are in doubt, each beside another one about the same subject, and known ones in turn
(`sampler`). Questions drawn for the step are mixed in: people who do not exist, known ones in other weeks, seasons and stats,
with the refusal as the answer; and taught facts in other wordings and spellings. The learning rate stays at its peak until
nearly all is known, and then goes down to the end.

Source: p > 0.5 on every answer token is sufficient for greedy recall, and the loss belongs on what is below it (MemFT,
arXiv 2605.30260); refusals for unknown people against invention (arXiv 2403.05612); a stable learning rate and a decay that
may begin at any time (arXiv 2405.18392).
"""

import hashlib
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.utils import maybe_set_recommended_wired_limit

from nfl_lora_pipeline import progress
from nfl_lora_pipeline.dataset.examples import Example
from nfl_lora_pipeline.dataset.unanswerable import Drawn
from nfl_lora_pipeline.interrupts import Deferral, is_interrupt
from nfl_lora_pipeline.models.prompt import Tokenizer
from nfl_lora_pipeline.models.rows import (
    TokenRow,
    shared_tail,
)
from nfl_lora_pipeline.models.scoring import Certainty
from nfl_lora_pipeline.progress import Silence
from nfl_lora_pipeline.recipes.recipe import (
    NOT_OF_THE_ADAPTER,
    Recipe,
    learning_rate,
    steps_at_peak,
    steps_expected,
    steps_of_patience,
)
from nfl_lora_pipeline.tuning.adaptation import begin, token_rows, uncompiled_on_cpu
from nfl_lora_pipeline.tuning.learner import Key, Learner, others_are_there
from nfl_lora_pipeline.tuning.records import (
    Checkpoint,
    Course,
    TrainingLog,
    TrainingState,
    certified_of,
    load_checkpoint,
    save_checkpoint,
    write_records,
)
from nfl_lora_pipeline.tuning.sampler import Fresh, Rehearsed, Sampler

CHECKPOINT_SECONDS = 45.0  # a checkpoint is written at a step's end when the last one is older than this
REPORT_STEPS = 10  # how often the loss is written down, and it is said how far it is
FRESH_KNOWN_SHARE = 0.5  # of the rows for questions drawn afresh, while enough of them are right before they are shown
TRIAL_STEPS = 2  # by whose last it is told how long all will take


def train_adapter(
    model: nn.Module,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    recipe: Recipe,
    folder: Path,
    *,
    fresh: Iterator[Drawn],
    start: Path | None = None,
    checkpoint: Path | None = None,
    belongs_to: Sequence[str] = (),
    report: Callable[[str, float], None] = lambda line, share: None,
) -> TrainingLog:
    """Train an adapter until every answer is certain, or to the recipe's budget.

    Args:
        model: a model of `mlx_lm.load`; it carries the adapter afterwards.
        tokenizer: its tokenizer.
        examples: the rows to learn.
        recipe: how to train.
        folder: an existing folder, which gets the adapter and its config, `training.json` and `certificate.json`.
        fresh: questions with what is to be said, without end, the same at every call: those without an answer, and facts asked
            about in other words.
        start: the folder of an adapter to go on from, made with the same recipe on the same base; None to begin anew.
        checkpoint: a file, `*.safetensors`, from which the next call with the same arguments goes on where this one was
            broken off; on the CPU to the same adapter, byte for byte. It is written before every check, when the last one is
            `CHECKPOINT_SECONDS` old, and when SIGINT or SIGTERM comes, at the end of the step at hand. Whoever calls
            removes it. None for none.
        belongs_to: what a checkpoint belongs to beside examples, recipe and start.
        report: told a line and how far it is (0 to 1) every `REPORT_STEPS` steps, at every check, and after silence.

    Raises:
        ValueError: the recipe does not fit the model, or there is nothing to learn.
    """
    if not any(example.teaches for example in examples):
        raise ValueError("no row teaches a number: the weeks hold no recorded player")
    rehearsed = _rehearsed(model, tokenizer, recipe, report)
    config, log = begin(model, examples, recipe, start)
    certified = None if start is None else certified_of(examples, start)
    training = Training(
        model, tokenizer, examples, recipe, fresh, log, report, checkpoint, rehearsed=rehearsed, certified=certified
    )
    training.go_on(_what_is_trained(examples, recipe, start, belongs_to))
    with uncompiled_on_cpu(), others_are_there(), training.deferral:
        training.run()
    mx.save_safetensors(str(folder / "adapters.safetensors"), dict(tree_flatten(model.trainable_parameters())))
    log.peak_memory_bytes = mx.get_peak_memory()
    certificate = write_records(folder, config, log, examples, training.found, above=recipe.curriculum.certain_above)
    report(certificate.in_short(), 1.0)
    return log


def _rehearsed(
    model: nn.Module, tokenizer: Tokenizer, recipe: Recipe, report: Callable[[str, float], None]
) -> Rehearsed:
    """What the recipe has the base go on saying, which is asked of it before anything is put on it."""
    if not recipe.curriculum.rehearsal_share:
        return Rehearsed([])
    report("the base answers general requests, so that its answers can be rehearsed", 0.0)
    return Rehearsed.of_base(model, tokenizer)


class Training:
    """The course of a training, step by step."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        examples: Sequence[Example],
        recipe: Recipe,
        fresh: Iterator[Drawn],
        log: TrainingLog,
        report: Callable[[str, float], None] = lambda line, share: None,
        checkpoint: Path | None = None,
        *,
        rehearsed: Rehearsed | None = None,
        certified: Mapping[str, float] | None = None,
    ):
        self.model, self.recipe, self.log, self.report = model, recipe, log, report
        self.examples = examples
        self.warm = certified is not None
        self.curriculum = curriculum = recipe.curriculum
        self.rows = token_rows(model, tokenizer, examples)
        self.tail = shared_tail(self.rows)
        self.rng = random.Random(recipe.seed)
        teaches = [example.teaches for example in examples]
        facts, subjects = [example.fact for example in examples], [example.subject for example in examples]
        self.sampler = Sampler(facts, teaches, curriculum, self.rng, subjects)
        self.fresh = Fresh(fresh, tokenizer, again_share=curriculum.again_share)
        self.rehearsed = rehearsed or Rehearsed([])
        self.learner = Learner(model, recipe)
        self.found = Certainty.of_nothing(len(self.rows))
        self.step, self.peak_share, self.loss_sum = 0, 1.0, 0.0
        self.teaches = np.array(teaches)
        self.certified = np.array([(certified or {}).get(fact, 0.0) for fact in facts])
        self.to_learn = int(self.teaches.sum())
        self.budget = steps_at_peak(curriculum, self.to_learn)
        begun = recipe.optimizer.schedule != "wsd"
        self.ending, self.end = (0, self.budget) if begun else (self.budget, self.budget + curriculum.ending_steps)
        self.deferral, self.file, self.of = Deferral(), checkpoint, ""
        self.tokens, self.first_step = 0, 0
        self.silence = Silence()
        self.began = self.kept_at = time.monotonic()

    def run(self) -> None:
        """Make steps until the end; `found` says what the adapter knows then."""
        maybe_set_recommended_wired_limit()
        self.model.train()
        self.learner.lead()
        while True:
            self.log.iterations = self.step
            self._keep_if_due()
            if self._is_over():
                break
            began = time.monotonic()
            self._make_step()
            self.step += 1
            if self.step - self.first_step == TRIAL_STEPS:
                self._tell(self._forecast(time.monotonic() - began))
        if self.log.stopped != "certain":
            with self._interruptible():
                self._ask(list(range(len(self.rows))))
        seconds = time.monotonic() - self.began
        self.log.seconds += seconds
        self.log.tokens_per_second = self.tokens / seconds

    def trial(self) -> float:
        """Make a few steps that nobody keeps; the seconds of the last, since the first ones set things up."""
        self.model.train()
        seconds = 0.0
        with uncompiled_on_cpu():
            for _ in range(TRIAL_STEPS):
                began = time.monotonic()
                self._make_step()
                seconds = time.monotonic() - began
        return seconds

    def steps_expected(self) -> tuple[int, int]:
        """How many steps it will be, where the taught facts are known before the questions drawn afresh are, and at most."""
        return steps_expected(self.recipe, self.to_learn), self.budget + self.curriculum.ending_steps

    def _forecast(self, seconds: float) -> str:
        """What there is to learn, and how long that will take, by the seconds of a step."""
        steps, most = (max(0, count - self.step) for count in self.steps_expected())
        tokens = sum(len(row.tokens) for row in self.rows)
        time_left = f"about {steps:,} steps of {seconds:.2g} s ({most:,} at most), {steps * seconds:,.0f} s"
        return f"{len(self.rows):,} rows, {tokens:,} tokens; {time_left}"

    def checkpoint(self) -> Checkpoint:
        """All that is needed to go on with the step at hand."""
        parts = {
            "model": tree_flatten(self.model.trainable_parameters()),
            "optimizer": tree_flatten(self.learner.optimizer.state),
        }
        version, numbers, gauss = self.rng.getstate()
        state = TrainingState(
            of=self.of,
            course=Course.model_validate(self, from_attributes=True),
            log=replace(self.log, seconds=self.log.seconds + time.monotonic() - self.began),
            rng=(version, list(numbers), gauss),
            random=random_seed(),
            fresh=self.fresh.state(),
            sampler=self.sampler.state(),
        )
        return Checkpoint({f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays}, state)

    def go_on(self, of: str) -> None:
        """Go on where a checkpoint was written, where there is one of the same training, whose hash is `of`."""
        self.of = of
        found = load_checkpoint(self.file) if self.file else None
        if found is None or found.state.of != of:
            return
        state = found.state
        self.model.load_weights(found.part("model"), strict=False)
        self.learner.optimizer.state = tree_unflatten(found.part("optimizer"))
        mx.random.seed(state.random)
        vars(self.log).update(vars(state.log))
        vars(self).update(state.course)
        version, numbers, gauss = state.rng
        self.rng.setstate((version, tuple(numbers), gauss))
        self.fresh.restore(state.fresh)
        self.sampler.restore(state.sampler)
        self.log.resumed.append(self.step)
        self.first_step = self.step
        self._tell(f"going on from iteration {self.step}, where this training was broken off", 0.0)

    def _keep_if_due(self) -> None:
        """Write a checkpoint where the last one is old, or where somebody wants an end, which then comes."""
        if self.deferral.pending:
            with self._interruptible():
                pass  # what was put off takes its course on the way in
        elif time.monotonic() - self.kept_at > CHECKPOINT_SECONDS:
            self._save()

    def _save(self) -> None:
        if self.file:
            save_checkpoint(self.file, self.checkpoint())
            self.kept_at = time.monotonic()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """An interrupt ends the block at once; what was before it is kept, since the block moves weights and draws numbers."""
        self._save()
        try:
            with self.deferral.suspended():
                yield
        except BaseException as error:
            if is_interrupt(error) and self.file:
                self.report(f"kept at iteration {self.step}", 0.0)
            raise

    def _is_over(self) -> bool:
        """Whether there is to be no further step. What is certain where the way down begins is so by little."""
        if self.warm and self.step == 0:
            self._begin_warm()
        if self.step < self.ending and self.step and self._is_nearly_known():
            self.ending = self.step
            self.end = self.step + self._steps_down()
        last = self.step >= max(self.end, self.budget + self.curriculum.ending_steps)
        if not (self._is_to_check() or last):
            return False
        is_certain = self._check()
        return last or (is_certain and self.step > self.ending)

    def _steps_down(self) -> int:
        """How many steps the way down takes: a share of those before it.

        An update is long at the peak since old and new are hard to tell apart, and not since it knows little: no more of its
        steps count than it may wait for.
        """
        patience = steps_of_patience(self.curriculum, self.to_learn)
        before = min(self.step, patience) if self.warm else self.step
        return max(self.curriculum.ending_steps, math.ceil(self.curriculum.ending_share * before))

    def _is_nearly_known(self) -> bool:
        is_patient = self.step < steps_of_patience(self.curriculum, self.to_learn)
        return self.sampler.unknown_share() <= self.curriculum.nearly_known and (
            self.fresh.right_share() >= self.curriculum.fresh_known or not is_patient
        )

    def _is_to_check(self) -> bool:
        """At the beginning, in the middle and at the end of the way down, and then now and again."""
        every = max(self.curriculum.check_every, len(self.sampler.of_fact) // self.curriculum.batch_rows)
        if self.step >= self.end:
            return (self.step - self.end) % every == 0
        return self.step in (self.ending, (self.ending + self.end) // 2) and self.step > 0

    def _begin_warm(self) -> None:
        """Look at what is known already: the less there is to learn, the slower, since there is much to lose.

        What the adapter before is certified to know is not asked again.
        """
        with self._interruptible():
            self._ask(np.flatnonzero(self.certified == 0).tolist())
        lowest = np.where(self.certified > 0, self.certified, self._lowest())
        self.sampler.observe(range(len(self.rows)), lowest)
        self.to_learn = int(np.sum(self.teaches & (lowest <= self.curriculum.certain_above)))
        self.peak_share = max(self.recipe.optimizer.lowest_rate, math.sqrt(self.sampler.unknown_share()))

    def _check(self) -> bool:
        """Ask the adapter for its rows, part after part; whether all are certain.

        Where some of a part are not certain, the next ones are not asked.
        """
        asked: list[int] = []
        with self._interruptible():
            for part in self._parts():
                self._ask(part.tolist())
                asked += part.tolist()
                uncertain = int(np.sum(self._lowest()[asked] <= self.curriculum.certain_above))
                if uncertain:
                    break
        self.sampler.observe(asked, self._lowest()[asked])
        self.sampler.choose_anew()
        self.log.certain.append((self.step, 1 - uncertain / len(self.rows)))
        self.log.stopped = "budget" if uncertain else "certain"
        self._measure(1 - uncertain / len(self.rows), checked=True)
        line = f"iteration {self.step}: {uncertain:,} of {len(asked):,} rows asked are not certain"
        self._tell(line, 1 - uncertain / len(self.rows))
        return not uncertain

    def _lowest(self) -> npt.NDArray[np.float64]:
        """Of each row the probability of its least probable token; no more than is just not certain where the answer is not."""
        limit = self.curriculum.certain_above
        return np.where(self.found.whole > limit, self.found.lowest, np.minimum(self.found.lowest, limit))

    def _parts(self) -> list[npt.NDArray[np.int64]]:
        """Rows to ask for together, each part with the least sure ones first.

        Until the way down has ended first what teaches, and what the adapter before was not certified to know; at its end
        all; behind that a few at a time.
        """
        ordered = np.argsort(self.sampler.lowest, kind="stable")
        if self.step > self.end:
            return np.array_split(ordered, max(len(rows) for rows in self.sampler.of_fact))
        if self.step == self.end:
            return [ordered]
        first = (self.teaches | (self.certified == 0))[ordered]
        return [ordered[first], ordered[~first]]

    def _ask(self, indices: list[int]) -> None:
        """How probable some rows' answers are, into `found`."""
        if not indices:
            return
        self.found.put(indices, self.learner.ask([self.rows[index] for index in indices], indices, self._tell_asked))

    def _tell_asked(self, done: int, total: int) -> None:
        if self.silence.is_long():
            self._tell(f"iteration {self.step}: {done:,} of {total:,} rows are asked")

    def _make_step(self) -> None:
        """Show some rows that teach, some people without a record, some questions drawn afresh, and learn from them."""
        rows, shown = self._rows()
        keys: list[Key] = [*shown, *(None for _ in self.fresh.taken)]
        places = self.rehearsed.take(self.curriculum.rehearsed_rows, self.step)
        keys += [("rehearsed", place) for place in places]
        rows += [self.rehearsed.rows[place] for place in places]
        whole = [self.rows[key] if isinstance(key, int) else row for key, row in zip(keys, rows, strict=True)]
        rate = self.peak_share * learning_rate(self.recipe, self.step, self.ending, self.end)
        loss, greatest = self.learner.step(rows, keys, whole, rate)
        self.tokens += sum(len(row.tokens) - 1 for row in rows)
        self._observe(greatest, shown)
        self.loss_sum += loss
        if (self.step + 1) % REPORT_STEPS == 0:
            self.log.losses.append((self.step + 1, self.loss_sum / REPORT_STEPS))
            self._measure(1 - self.sampler.unknown_share())
            self._tell(f"iteration {self.step + 1}, loss {self.loss_sum / REPORT_STEPS:.3f}: {self._so_far()}")
            self.loss_sum = 0.0
        elif self.silence.is_long():
            self._tell(f"iteration {self.step + 1}: {self._so_far()}")

    def _so_far(self) -> str:
        """How far it is, by what the steps saw, and what is still to come."""
        line = f"{1 - self.sampler.unknown_share():.0%} of the facts known when last shown"
        if self.fresh.right:
            line += f", {self.fresh.right_share():.0%} of what was asked afresh right"
        if self.step < self.ending:
            return f"{line}; the learning rate goes down at {1 - self.curriculum.nearly_known:.0%}"
        if self.step >= self.end:
            return f"{line}; it ends when a check finds all certain"
        left = self.end - self.step - 1
        made = max(1, self.step + 1 - self.first_step)
        seconds = left * (time.monotonic() - self.began) / made
        return f"{line}; {left} steps of the way down are left, about {seconds:.0f} s"

    def _tell(self, line: str, share: float | None = None) -> None:
        """Tell a line, and how far it is: by what the steps saw where nothing else is known."""
        seen = (1 - self.sampler.unknown_share()) * self.fresh.right_share()
        self.report(line, seen if share is None else share)
        self.silence.broken()

    def _measure(self, certain: float, *, checked: bool = False) -> None:
        loss = self.log.losses[-1][1] if self.log.losses else math.nan
        progress.measure(progress.Figures(self.step + (not checked), certain, loss, checked))

    def _rows(self) -> tuple[list[TokenRow], list[int]]:
        """A step's rows: first those of examples, whose indices come with them, and then those drawn afresh."""
        count, is_ending = self.curriculum.batch_rows, self.step >= self.ending
        is_fresh_known = len(self.fresh.right) >= count and self.fresh.right_share() >= self.curriculum.fresh_known
        share = FRESH_KNOWN_SHARE if is_fresh_known else 1.0
        refusing = round(self.curriculum.refusal_share * share * count)
        varied = round(self.curriculum.varied_share * share * count)
        taken = self.sampler.take(max(1, count - refusing - varied))
        taken += self.sampler.take_untaught(refusing)
        fresh = [self._shortened(row) for row in self.fresh.take(max(0, count - len(taken)))]
        known = [self.rows[at] if is_ending else self._shortened(self.rows[at]) for at in taken]
        return known + fresh, taken

    def _observe(self, greatest: npt.NDArray[np.float32], indices: list[int]) -> None:
        """Take in how the rows of a step fared, before the step."""
        lowest = np.exp(-greatest.astype(np.float64))
        self.sampler.observe(indices, lowest[: len(indices)])
        drawn = lowest[len(indices) :][: len(self.fresh.taken)]
        self.fresh.observe(drawn > self.curriculum.certain_above)

    def _shortened(self, row: TokenRow) -> TokenRow:
        """The row up to where all answers go on alike, which teaches little; one that does not end so as it is."""
        begins = len(row.tokens) - len(self.tail)
        ends_alike = row.start < begins and row.tokens[begins:] == self.tail
        return row._replace(tokens=row.tokens[:begins]) if ends_alike else row


def random_seed() -> int:
    """What `mx.random.seed` takes to go on with the numbers that MLX would draw now: its two words of state in one."""
    (state,) = cast(list[mx.array], mx.random.state)
    high, low = cast(list[int], state.tolist())
    return int(high) << 32 | int(low)


def _what_is_trained(examples: Sequence[Example], recipe: Recipe, start: Path | None, more: Sequence[str]) -> str:
    """A hash of all that a checkpoint belongs to."""
    digest = hashlib.sha256(recipe.model_dump_json(exclude=set(NOT_OF_THE_ADAPTER)).encode())
    for each in (*examples, *more):
        digest.update(repr(each).encode())
    if start is not None:
        digest.update((start / "adapters.safetensors").read_bytes())
    return digest.hexdigest()
