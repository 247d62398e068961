"""How a long step tells how far it is, without knowing who listens."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

Value = TypeVar("Value")

SILENT_SECONDS = 8.0  # after which a training and an exam say how far they are in any case
SPOKEN_IN_SECONDS, SPOKEN_IN_MINUTES = 120.0, 5400.0  # what is longer is told in minutes, and in hours


class Figures(NamedTuple):
    """How far a training is, in numbers that a curve is drawn of.

    Attributes:
        iteration: steps made.
        certain: share of the facts that are certain, from 0 to 1: as the steps saw them, or as a check has found.
        loss: the mean of the last steps.
        checked: whether a check has found it.
    """

    iteration: int
    certain: float
    loss: float
    checked: bool


Gauge = Callable[[Figures], None]
Listener = Callable[[str, str, float | None], None]
_listener: ContextVar[Listener | None] = ContextVar("progress_listener", default=None)
_gauge: ContextVar[Gauge | None] = ContextVar("progress_gauge", default=None)


def tell(step: str, line: str, share: float | None = None) -> None:
    """Tell the listener, if there is one, what a step says and how much of it is done (0 to 1)."""
    if listener := _listener.get():
        listener(step, line, share)


def listening(listener: Listener) -> AbstractContextManager[None]:
    """Send what is told inside the block to `listener`."""
    return _set(_listener, listener)


def measure(figures: Figures) -> None:
    """Give figures of a training to whoever draws them, if there is somebody."""
    if gauge := _gauge.get():
        gauge(figures)


def measuring(gauge: Gauge) -> AbstractContextManager[None]:
    """Give the figures of a training inside the block to `gauge`."""
    return _set(_gauge, gauge)


class Silence:
    """How long nothing was told by whoever has it."""

    def __init__(self) -> None:
        self.told_at = time.monotonic()

    def is_long(self) -> bool:
        """Whether it is time to say how far something is."""
        return time.monotonic() - self.told_at > SILENT_SECONDS

    def broken(self) -> None:
        """Something was told."""
        self.told_at = time.monotonic()


@contextmanager
def _set(variable: ContextVar[Value | None], value: Value) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def spoken_time(seconds: float) -> str:
    """How long, for people: "42 s", "7 min", "1.5 h"."""
    if seconds < SPOKEN_IN_SECONDS:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < SPOKEN_IN_MINUTES else f"{seconds / 3600:,.1f} h"
