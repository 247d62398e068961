"""Steps and questions of one training, computed by one process or by several that MLX joins into a ring.

The course of a training is the business of one process, the first of them. The others do what it orders: each takes its share
of a step's rows, and what they found is summed, so that all of them make the same step. That needs neither its rows nor its
recipe at any other place than the first, and a checkpoint, an interrupt and an end are as they are for one process alone.

    mlx.launch --hosts 10.0.0.1,10.0.0.2 -- nfl-lora run
"""

import math
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import ClassVar, Literal, cast

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import numpy.typing as npt
from mlx import nn
from mlx.utils import tree_flatten, tree_map
from pydantic import BaseModel

from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.forward import FrozenStates, answer_logits, streams, token_losses
from nfl_lora_pipeline.models.machine import divided_cores
from nfl_lora_pipeline.models.rows import Batch, TokenRow, by_lanes, to_batch
from nfl_lora_pipeline.models.scoring import Certainty, certainty, merged
from nfl_lora_pipeline.recipes.recipe import Recipe
from nfl_lora_pipeline.tuning.adaptation import adapt, optimizer_of, uncompiled_on_cpu

BETAS = (0.9, 0.98)  # of Adam
SAME_BASE = 1e-4  # by which sums over the same weights may differ, on two kinds of processors
LEAST_TOKENS = 8.0  # by which a step's loss is divided: one unknown token is not to move as much as a batch of them

Arrays = dict[str, object]  # a tree of arrays, as of a module or an optimizer
Key = int | tuple[str, int] | None
Losses = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
Step = Callable[[list[Batch]], tuple[mx.array, list[mx.array]]]


class Order(BaseModel):
    """What the first process has all of them do.

    Attributes:
        do: begin a training by `recipe`, make a step, ask for the rows of a check, or end.
        rows: of a step, as they are shown, or of a check.
        keys: by which what the frozen layers make of them is kept; None for what does not come again.
        whole: what is kept of each, see `FrozenStates.states`.
        rate: of learning.
    """

    do: Literal["begin", "step", "ask", "end"]
    recipe: Recipe | None = None
    rows: Sequence[TokenRow] = ()
    keys: Sequence[Key] = ()
    whole: Sequence[TokenRow] = ()
    rate: float = 0.0


class Ring:
    """The processes that make one training's steps together.

    Attributes:
        rank: which of them this one is; 0 for the first, which leads.
        size: how many there are; 1 where nobody joined this process to others.
        busy: whether the others are at something that this process has ordered.
        here: the ring that this process is of.
    """

    here: ClassVar["Ring"]

    def __init__(self, group: mx.distributed.Group | None = None):
        self.group = group
        self.rank, self.size = (group.rank(), group.size()) if group else (0, 1)
        self.busy = False

    def summed(self, array: mx.array) -> mx.array:
        """The sum of what each process has, at all of them."""
        return array if self.size == 1 else mx.distributed.all_sum(array, group=self.group)

    def averaged(self, gradients: Arrays) -> Arrays:
        """The mean of each process's gradients, at all of them."""
        if self.size == 1:
            return gradients
        return cast(Arrays, nn.average_gradients(gradients, self.group))

    def first(self, array: mx.array) -> mx.array:
        """The first process's array, at all of them; those of the others have the same shape."""
        return self.summed(array if self.rank == 0 else mx.zeros_like(array))

    def alike(self, tree: Arrays) -> Arrays:
        """`first` of a tree of arrays, computed at once: all processes have to come to their sums in the same order."""
        found = cast(Arrays, tree_map(self.first, tree))
        mx.eval(found)
        return found

    def order(self, order: Order | None = None) -> Order:
        """What the first process wants done, at all of them; the others have nothing to say."""
        content = np.frombuffer(order.model_dump_json().encode() if order else b"", np.uint8)
        length = cast(int, self.summed(mx.array(len(content))).item())
        padded = np.zeros(length, np.uint8)
        padded[: len(content)] = content
        return Order.model_validate_json(bytes(np.array(self.summed(mx.array(padded)))))

    @contextmanager
    def ordered(self, order: Order) -> Iterator[None]:
        """For a block that all processes carry out: the others are told to, and are at it until it has come to its end."""
        self.busy = self.size > 1
        if self.busy:
            self.order(order)
        yield
        self.busy = False

    def share(self, rows: Sequence[TokenRow]) -> list[int]:
        """The places of the rows that this process computes: every process has short and long ones."""
        if self.size == 1:
            return list(range(len(rows)))
        return sorted(range(len(rows)), key=lambda place: len(rows[place].tokens))[self.rank :: self.size]


Ring.here = Ring()


def recall_loss(model: nn.Module, known_loss: float, *batches: Batch) -> tuple[mx.array, list[mx.array]]:
    """The loss of one step over all its batches, each of which is computed on a stream of its own.

    Args:
        model: with its adapter.
        known_loss: in nats; a token whose loss is lower is known, and left out. A token of a weight above 1 is known at so
            many times less.
        batches: of B rows each.

    Returns:
        The weighted mean cross-entropy over the answer tokens not yet known (where several processes have a share of them
        each, of those here, times the number of processes), and of each batch (B,) the greatest loss of a row's token.
    """
    sums, counts, greatest = [], [], []
    for (tokens, wanted, targets, weights, states, alike), stream in zip(batches, streams(), strict=False):
        with mx.stream(stream):
            losses = token_losses(answer_logits(model, tokens, wanted, states, alike), targets)
            unknown = mx.stop_gradient(weights * (losses > known_loss / mx.maximum(weights, 1.0)))
            sums.append((losses * unknown).sum())
            counts.append(unknown.sum())
            greatest.append(mx.stop_gradient(losses * (weights > 0)).max(-1))
    total, count = sum(sums, mx.zeros(())), Ring.here.summed(mx.stop_gradient(sum(counts, mx.zeros(()))))
    return Ring.here.size * total / mx.maximum(count, LEAST_TOKENS), greatest


class Learner:
    """A model with its adapter, and the optimizer that changes it, a step at a time.

    Attributes:
        model: of `mlx_lm.load`, with the adapter.
        optimizer: with its state.
        frozen: what of the model is not trained, with what is kept of it.
    """

    def __init__(self, model: nn.Module, recipe: Recipe):
        self.model, self.recipe = model, recipe
        self.optimizer: optim.Adam = optimizer_of(recipe, betas=BETAS)
        self.optimizer.init(model.trainable_parameters())
        self.frozen = FrozenStates(model)

    def lead(self) -> None:
        """Have the other processes of a ring, where there are any, begin with the same model.

        Raises:
            ValueError: there are more of them than rows in a step.
        """
        if self.recipe.curriculum.batch_rows < Ring.here.size:
            wrong = f"{Ring.here.size} processes have no row each of a step of {self.recipe.curriculum.batch_rows}"
            raise ValueError(f"curriculum.batch_rows: {wrong}; start fewer, or take a larger one")
        with Ring.here.ordered(Order.model_construct(do="begin", recipe=self.recipe)):
            self.begin_alike()

    def step(
        self,
        rows: Sequence[TokenRow],
        keys: Sequence[Key],
        whole: Sequence[TokenRow],
        rate: float,
    ) -> tuple[float, Losses]:
        """Learn from some rows; see `Order`.

        Returns:
            The loss in nats, and of each row the greatest loss of a token of its answer, (N,) float32, before the step.
        """
        order = Order.model_construct(do="step", rows=rows, keys=keys, whole=whole, rate=rate)
        with Ring.here.ordered(order):
            return self.make_step(order)

    def ask(
        self, rows: Sequence[TokenRow], keys: Sequence[int], progress: Progress = lambda done, of: None
    ) -> Certainty:
        """How probable the answers of some rows are; `keys` are those by which `step` knows them."""
        order = Order.model_construct(do="ask", rows=rows, keys=keys)
        with Ring.here.ordered(order):
            return self.answer(order, progress)

    def begin_alike(self) -> None:
        """The weights of the adapter and the optimizer's state become those of the first process.

        Raises:
            ValueError: the base is another one.
        """
        if Ring.here.size == 1:
            return
        self.optimizer.state = Ring.here.alike(self.optimizer.state)
        self.model.update(Ring.here.alike(self.model.trainable_parameters()))
        arrays = (mx.abs(array).astype(mx.float32).sum() for _, array in tree_flatten(self.model.parameters()))
        size = sum(arrays, mx.zeros(()))
        mine, first = float(size), float(Ring.here.first(size))
        if not math.isclose(mine, first, rel_tol=SAME_BASE):
            raise ValueError(f"base_model: {self.recipe.base_model!r} is another one here than at the first process")

    @cached_property
    def _compiled(self) -> Step:
        """Forward, backward and optimizer, compiled as in mlx-lm's trainer, which gives back no loss by row."""
        known_loss = -math.log(self.recipe.curriculum.known_above)
        loss_and_gradients = nn.value_and_grad(
            self.model, lambda model, *batches: recall_loss(model, known_loss, *batches)
        )
        state = [self.model.state, self.optimizer.state, mx.random.state]

        @partial(mx.compile, inputs=state, outputs=state)
        def step(batches: list[Batch]) -> tuple[mx.array, list[mx.array]]:
            found, gradients = loss_and_gradients(self.model, *batches)
            self.optimizer.update(self.model, Ring.here.averaged(gradients))
            return found

        return step

    def make_step(self, order: Order) -> tuple[float, Losses]:
        """This process's share of a step that was ordered, and what all of them found."""
        rows = order.rows
        mine = Ring.here.share(rows)
        lanes = [
            [mine[at] for at in lane] for lane in by_lanes([rows[place] for place in mine], len(streams())) if lane
        ]
        batches = []
        for lane, stream in zip(lanes, streams(), strict=False):
            with mx.stream(stream):
                batches.append(self._batch(order, lane))
        self.optimizer.learning_rate = order.rate
        loss, greatest = self._compiled(batches)
        with divided_cores(len(lanes)):
            mx.eval(self.model.state, self.optimizer.state, loss, greatest)
        losses = np.zeros(len(rows), np.float32)
        for lane, found in zip(lanes, greatest, strict=True):
            losses[lane] = np.array(found)
        return float(Ring.here.summed(loss) / Ring.here.size), np.array(Ring.here.summed(mx.array(losses)))

    def _batch(self, order: Order, lane: list[int]) -> Batch:
        """A batch, with what the frozen layers make of its rows, which is kept for whole rows: a check asks for these."""
        rows = [order.rows[place] for place in lane]
        batch = to_batch(rows)
        if not self.frozen.layers:
            return batch
        keys, whole = [order.keys[place] for place in lane], [order.whole[place] for place in lane]
        return batch._replace(states=self.frozen.states(rows, keys, whole))

    def answer(self, order: Order, progress: Progress = lambda done, of: None) -> Certainty:
        """This process's share of what is asked in a check, and what all of them found."""
        rows, keys = order.rows, cast(Sequence[int], order.keys)
        mine = Ring.here.share(rows)
        if Ring.here.size > 1:  # what differs in a last digit, as on another kind of processor, grows
            self.model.update(Ring.here.alike(self.model.trainable_parameters()))
        with merged(self.model):
            found = certainty(
                self.model,
                [rows[place] for place in mine],
                frozen=self.frozen,
                keys=[keys[place] for place in mine],
                progress=lambda done, of: progress(min(done * Ring.here.size, len(rows)), len(rows)),
            )
        if Ring.here.size == 1:
            return found
        columns = np.zeros((len(rows), 3), np.float32)
        columns[mine] = np.stack([found.greedy, found.lowest, found.whole], axis=-1)
        greedy, lowest, whole = np.array(Ring.here.summed(mx.array(columns)), np.float64).T
        return Certainty(greedy > 0, lowest, whole)


@contextmanager
def joined(say: Callable[[str], None]) -> Iterator[bool]:
    """For the block join this process to those that `mlx.launch` started with it.

    Args:
        say: told what this process does, where another one leads.

    Yields:
        Whether it is the one that leads. If not, it has done all that was ordered, and there is nothing left to do.

    Raises:
        ValueError: another process is gone; or, where another one leads, this one has another base model.
    """
    Ring.here = Ring(mx.distributed.init())
    try:
        with others_are_there():
            if Ring.here.rank > 0:
                _follow(say)
                yield False
                return
            try:
                yield True
            finally:
                if Ring.here.size > 1 and not Ring.here.busy:
                    Ring.here.order(Order(do="end"))
    finally:
        Ring.here = Ring()


@contextmanager
def others_are_there() -> Iterator[None]:
    """Say in words what MLX says of a connection that is lost."""
    try:
        yield
    except RuntimeError as error:
        if "connection to a peer was lost" not in str(error):
            raise
        raise ValueError(
            "another process of this training is gone; the same command goes on from the last checkpoint"
        ) from error


def _follow(say: Callable[[str], None]) -> None:
    """Do what the first process orders, until it wants an end; a Ctrl-C is its business, as it is pressed for all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    learner: Learner | None = None
    with uncompiled_on_cpu():
        while (order := Ring.here.order()).do != "end":
            if order.recipe is not None:
                say(f"process {Ring.here.rank} trains along on {order.recipe.base_model}")
                learner = _beside_the_first(order.recipe)
            elif learner is not None:
                learner.make_step(order) if order.do == "step" else learner.answer(order)


def _beside_the_first(recipe: Recipe) -> Learner:
    """The same model as at the first process, which has ordered to begin."""
    model, _ = base_models.load(base_models.resolve(recipe.base_model))
    mx.random.seed(recipe.seed)
    adapt(model, recipe)
    model.train()
    learner = Learner(model, recipe)
    learner.begin_alike()
    return learner
