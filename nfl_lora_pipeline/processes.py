"""Which process did something, so that others can tell whether it still lives.

A process number alone is no name: numbers are given out again. With the time at which the process began, as the system
counts it, it is one: on Linux the ticks since the machine came up together with that start's own id, which neither a set
clock nor a restart can repeat; elsewhere the second that `ps` prints.
"""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import IO

LOOK_SECONDS = 0.05
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Process:
    """One process of one machine.

    Attributes:
        host: the machine's name.
        pid: its number there.
        began: when, in the system's own words; empty where the system does not say.
    """

    host: str
    pid: int
    began: str

    @classmethod
    def this(cls) -> "Process":
        """The process that asks."""
        return cls(socket.gethostname(), os.getpid(), _began(os.getpid()) or "")

    @classmethod
    def from_json(cls, content: object) -> "Process":
        """Read what `to_json` gave.

        Raises:
            ValueError: it is something else.
        """
        if not isinstance(content, Mapping):
            raise ValueError(f"{content!r} names no process")
        try:
            return cls(str(content["host"]), int(content["pid"]), str(content["began"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{content!r} names no process") from error

    def to_json(self) -> dict[str, str | int]:
        """JSON-able."""
        return asdict(self)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_here(self) -> bool:
        """Whether it is or was a process of this machine."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether it still runs; to be asked only where it `is_here`."""
        return _began(self.pid) == self.began if self.began else exists(self.pid)


@contextmanager
def repeating(action: Callable[[], bool], seconds: float, name: str) -> Iterator[None]:
    """Do something every so many seconds for the block, in a thread of that name, for as long as it says to go on."""
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(seconds) and action():
            pass

    thread = threading.Thread(target=repeat, daemon=True, name=name)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class Together:
    """Processes of one group, which a Ctrl-C in the terminal does not reach; they and what they start end together.

    The first of the group is a shell that waits at a pipe into which only this process could write. Whatever ends this process,
    SIGKILL included, ends the pipe, and the shell kills the group.

    Args:
        seconds: how long they have for their end when they are asked for it; what is still there then is killed.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        waits = ["/bin/sh", "-c", "read -r _; kill -KILL 0"]
        self._leader = subprocess.Popen(waits, stdin=subprocess.PIPE, process_group=0)
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, command: Sequence[str], environment: Mapping[str, str], output: IO[str] | None = None) -> int:
        """Start another process in the group, which writes to a file where one is given; its number."""
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=self._leader.pid,
        )
        self._processes.append(process)
        return process.pid

    def ended(self) -> int | None:
        """The exit code of a process that has ended by itself; None while all of them run."""
        codes = [process.poll() for process in self._processes]
        return next((code for code in codes if code is not None), None)

    def end(self) -> None:
        """Ask all for an end, those that they have started too, and kill what is still there after the time it has for that."""
        give_up = time.monotonic() + self._seconds
        try:
            self._send(signal.SIGTERM)
            while self._send(0) and time.monotonic() < give_up:
                time.sleep(LOOK_SECONDS)
        finally:
            self._send(signal.SIGKILL)

    def _send(self, number: int) -> bool:
        """Send a signal to whoever is left; whether there is anybody."""
        for process in (self._leader, *self._processes):
            process.poll()  # or who has ended would count as there
        try:
            os.killpg(self._leader.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def exists(pid: int) -> bool:
    """Whether there is a process of that number now, whichever it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _began(pid: int) -> str | None:
    """When a process of this machine began; None where there is none of that number, or one that has ended (a zombie)."""
    if not _BOOT_ID.exists():
        return _began_by_ps(pid)
    try:
        state, *fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else f"{_boot_id()}/{fields[18]}"


@cache
def _boot_id() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip()


def _began_by_ps(pid: int) -> str | None:
    found = subprocess.run(
        ["ps", "-o", "state=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LC_ALL": "C", "TZ": "UTC"},
    )
    state, _, began = found.stdout.strip().partition(" ")
    return began.strip() if began and not state.startswith("Z") else None
