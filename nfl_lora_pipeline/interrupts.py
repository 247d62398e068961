"""Ctrl-C, SIGTERM and a terminal that is closed: heard wherever they come, and acted on where nothing is half done.

Three parties have a say. The command line turns a signal into `Interrupted`, whatever the process inherited (a shell ignores
SIGINT for what it starts in the background). Dagster takes the handlers over while it executes, raises its own exception in
the body of an asset, and loses what comes between two bodies, so that arrivals are written down here as well, by the
interpreter itself. A training puts a signal off to the end of its step, to keep what it has learnt.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

ENDS = (signal.SIGINT, signal.SIGTERM)
AGAIN_SECONDS = 0.05
SENT_AGAIN = 5  # times
IMPATIENT_SECONDS = 1.0  # a terminal and a parent may both send the same Ctrl-C
_AGAIN: list[threading.Timer] = []  # what is still to be sent again
BY_SHELL = 128  # a shell's exit code of what a signal ended is this and the signal's number

Handler = Callable[[int, FrameType | None], object] | int | signal.Handlers | None


class Interrupted(KeyboardInterrupt):
    """The process was asked to end.

    Attributes:
        signum: by which signal.
        kept: what was kept, in words; empty where there was nothing to keep.
    """

    def __init__(self, signum: int = signal.SIGINT, kept: str = ""):
        super().__init__(kept)
        self.signum, self.kept = signum, kept

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM, 129 for a closed terminal."""
        return BY_SHELL + self.signum


class Arrivals:
    """The signals that have come since this was made, whoever handled them."""

    def __init__(self, reader: int | None = None):
        self._reader, self._first = reader, None if reader is None else 0

    def first(self) -> int:
        """The number of the first signal that came; 0 where none has."""
        if self._reader is not None and not self._first:
            try:
                came = [number for number in os.read(self._reader, 512) if number in (*ENDS, signal.SIGHUP)]
            except BlockingIOError:
                came = []
            self._first = came[0] if came else 0
        return self._first or 0

    def check(self) -> None:
        """Raise `Interrupted` where a signal has come that nobody acted on."""
        if number := self.first():
            raise Interrupted(number)


@contextmanager
def noted() -> Iterator[Arrivals]:
    """Write down which signals come in the block, whoever handles them. Outside of the main thread nothing is heard."""
    if threading.current_thread() is not threading.main_thread():
        yield Arrivals()
        return
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield Arrivals(reader)
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


@contextmanager
def heard() -> Iterator[Arrivals]:
    """In the block SIGINT and SIGTERM raise `Interrupted`, and so does SIGHUP unless it was ignored (`nohup`).

    Outside of the main thread nothing is changed, since handlers belong to that thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Arrivals()
        return
    hangup = () if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (signal.SIGHUP,)
    before = {number: signal.getsignal(number) for number in (*ENDS, *hangup)}
    hook, sys.unraisablehook = sys.unraisablehook, _sent_again
    printer = logging.lastResort or logging.NullHandler()
    printer.addFilter(_tells_no_interrupt)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
        for number in ENDS:
            signal.signal(number, _raise)
        for number in hangup:
            signal.signal(number, _hang_up)
        with noted() as arrivals:
            yield arrivals
    finally:
        while _AGAIN:
            _AGAIN.pop().cancel()  # it would come when the interpreter ends, and be printed with a traceback
        sys.unraisablehook = hook
        printer.removeFilter(_tells_no_interrupt)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def sent_again() -> Iterator[None]:
    """In the block, which waits for a key, what has come is sent to the main thread a few times more, until it is acted on.

    Python looks whether a signal has come when a system call is interrupted. One that comes between its last look and the
    call, or within a hook of `readline`, which drops exceptions, would be noticed at the next key.
    """
    with noted() as arrivals:
        is_left = threading.Event()

        def send() -> None:
            for _ in range(SENT_AGAIN):
                while not (number := arrivals.first()):
                    if is_left.wait(AGAIN_SECONDS):
                        return
                if is_left.wait(AGAIN_SECONDS):
                    return
                signal.pthread_kill(threading.main_thread().ident or 0, number)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        try:
            yield
        finally:
            is_left.set()
            sender.join()


class Deferral:
    """Puts SIGINT and SIGTERM off, in a `with` block, until the work at hand is in a state that can be kept.

    What has come by the end of the block takes its course there, and what comes a second time, `IMPATIENT_SECONDS` after the
    first or later, at once: work that does not come to that state is ended all the same. Outside of the main thread nothing
    is changed, since handlers belong to that thread.

    Attributes:
        pending: whether a signal has come and was put off.
    """

    def __init__(self) -> None:
        self.pending = False
        self._came: int = signal.SIGINT
        self._came_at = 0.0
        self._before: dict[int, Handler] = {}

    def __enter__(self) -> "Deferral":
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
        if kind is None:
            self.act()

    def act(self) -> None:
        """Let what has come take its course, which mostly raises; from now on nothing is put off."""
        self._end()
        if self.pending:
            self.pending = False
            signal.raise_signal(self._came)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """In the block, and for what has come already, nothing is put off."""
        was_deferring = bool(self._before)
        self.act()
        try:
            yield
        finally:
            if was_deferring:
                self._begin()

    def _begin(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in ENDS}
            for number in ENDS:
                signal.signal(number, self._note)

    def _end(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.pending and time.monotonic() - self._came_at > IMPATIENT_SECONDS:
            self.act()
        elif not self.pending:
            self.pending, self._came, self._came_at = True, number, time.monotonic()


def is_interrupt(error: BaseException) -> bool:
    """Whether an exception says that somebody wants an end: it is no `Exception`, as Dagster's and Python's own are not."""
    return not isinstance(error, Exception)


def _raise(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)


def _sent_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """An interrupt that came while the interpreter tidied up was printed and lost; it comes again a moment later."""
    if unraisable.exc_type is not None and not issubclass(unraisable.exc_type, Exception):
        _AGAIN.append(threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT)))
        _AGAIN[-1].start()
    else:
        sys.__unraisablehook__(unraisable)


def _tells_no_interrupt(record: logging.LogRecord) -> bool:
    """SQLAlchemy logs whatever ends the closing of a connection, with a traceback, and lets an interrupt go on as it should.

    So it does with the error that comes of a connection which an interrupt left half closed: that has the interrupt behind it.
    """
    error = record.exc_info[1] if record.exc_info else None
    while error is not None and not is_interrupt(error):
        error = error.__cause__ or error.__context__
    return error is None


def _hang_up(number: int, frame: FrameType | None) -> None:
    """Dagster takes the handler of SIGTERM over, and knows nothing of SIGHUP: whoever has that one, hears of this too."""
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler):
        handler(number, frame)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
