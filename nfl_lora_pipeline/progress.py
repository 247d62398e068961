"""How a long step tells how far it is, without knowing who listens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, str, float | None], None]
_listener: ContextVar[Listener | None] = ContextVar("progress_listener", default=None)


def tell(step: str, line: str, share: float | None = None) -> None:
    """Tell the listener, if there is one, what a step says and how much of it is done (0 to 1)."""
    if listener := _listener.get():
        listener(step, line, share)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send what is told inside the block to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
