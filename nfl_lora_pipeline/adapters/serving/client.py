"""A server of one's own for a while, and questions to it."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from nfl_lora_pipeline.models.prompt import ANSWER_TOKENS
from nfl_lora_pipeline.store import Store

STARTS_WITHIN_SECONDS, ANSWERS_WITHIN_SECONDS = 120, 300


@dataclass(frozen=True)
class RunningServer:
    """A process of `nfl-lora serve`.

    Attributes:
        address: `http://127.0.0.1:PORT`.
        process: the process.
        log: the file with all that it prints.
    """

    address: str
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.address.rpartition(":")[2])


@contextmanager
def running_server(store: Store, *options: str, python: Sequence[str] = ()) -> Iterator[RunningServer]:
    """`nfl-lora serve` on a free port, until the block ends.

    Args:
        store: the store.
        options: of the command.
        python: the interpreter's own options, and what it runs instead of the command line's module.

    Raises:
        ValueError: it does not come up.
    """
    run = [sys.executable, *(python or ("-m", "nfl_lora_pipeline.cli.main"))]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            command = [*run, "serve", "--store", str(store.root), "--port", "0", *options]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield RunningServer(_address(process, log), process, log)
        finally:
            process.kill()
            process.wait()


def ask_server(address: str, chat: str | Sequence[Mapping[str, str]]) -> str:
    """One question, or a chat, over the OpenAI-compatible interface.

    Raises:
        ValueError: the server gives no answer.
    """
    messages = [{"role": "user", "content": chat}] if isinstance(chat, str) else [dict(message) for message in chat]
    body = {"messages": messages, "max_tokens": ANSWER_TOKENS, "temperature": 0}
    try:
        with _direct() as session:
            response = session.post(f"{address}/v1/chat/completions", json=body, timeout=ANSWERS_WITHIN_SECONDS)
        if not response.ok:
            raise ValueError(f"{address} gives no answer to {chat!r}: {response.status_code} {response.text[:500]}")
        return str(response.json()["choices"][0]["message"]["content"]).strip()
    except (requests.RequestException, KeyError, IndexError) as error:
        raise ValueError(f"{address} gives no answer to {chat!r}: {error}") from error


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """What the first line of a server's output says once it answers.

    Raises:
        ValueError: it ends before, or takes too long.
    """
    give_up = time.monotonic() + STARTS_WITHIN_SECONDS
    while process.poll() is None and time.monotonic() < give_up:
        first, newline, _ = log.read_text(errors="replace").partition("\n")
        if newline and first.startswith("http://"):
            return first.partition("/v1 ")[0]
        time.sleep(0.05)
    raise ValueError(f"`nfl-lora serve` does not come up: {log.read_text(errors='replace').strip()[-500:]}")


def _direct() -> requests.Session:
    """A session past whatever proxy the environment names."""
    session = requests.Session()
    session.trust_env = False
    return session
