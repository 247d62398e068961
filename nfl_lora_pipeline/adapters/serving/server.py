"""`nfl-lora serve`: a process that answers over HTTP until a signal ends it."""

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
import warnings
from types import FrameType
from typing import cast

import click
import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from nfl_lora_pipeline.adapters.serving.app import Access, make_app
from nfl_lora_pipeline.adapters.serving.catalogue import Catalogue
from nfl_lora_pipeline.adapters.serving.engine import Engine
from nfl_lora_pipeline.interrupts import Interrupted

BACKLOG = 1_024  # connections that the system holds until they are taken


def check_port(host: str, port: int) -> None:
    """Raise ValueError where nothing can listen on `host` and `port`."""
    listening(host, port).close()


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        ValueError: none can.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--host {host} --port {port}: cannot listen there ({error}); choose others") from error
    return listener


HEADER_SECONDS = 10
CONNECTIONS = 500
FILES = 1_024  # that may be open; systems begin with as few as 256


class ImpatientProtocol(H11Protocol):
    """HTTP by uvicorn and h11, where the head of a request has to come within `HEADER_SECONDS`.

    uvicorn itself waits for ever for a first request, and for one that has begun.
    """

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Stop waiting once a request is there."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._waiting is None:
            self._wait()

    def on_response_complete(self) -> None:
        """Wait for the rest of a next request that has begun already."""
        super().on_response_complete()
        next_request, _ = self.conn.trailing_data
        if next_request and self.conn.their_state is h11.IDLE and self._waiting is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def allow_connections() -> None:
    """Let this process open as many files as `CONNECTIONS` take, where the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


GRACE_SECONDS = 1  # for answers that are being written when the end comes
KEEP_ALIVE_SECONDS = 60  # longer than clients keep connections, which would else use one that is being closed
HEAD_BYTES = 32 * 1024
LINE_CHARACTERS = 500  # of the log


def serve(catalogue: Catalogue, *, host: str, port: int, access: Access) -> None:
    """Answer over OpenAI's interface until SIGINT or SIGTERM, after which answers at hand have a second.

    Args:
        catalogue: who answers to which name.
        host: to listen on.
        port: to listen on; 0 for any that is free.
        access: who may ask.

    Raises:
        ValueError: the port cannot be listened on, or there is no adapter that could answer.
    """
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL + 1)  # clients read their own mistakes in the answers
    warnings.filterwarnings(
        "ignore", "coroutine .* was never awaited", RuntimeWarning
    )  # of a signal before the loop runs
    allow_connections()
    with listening(host, port) as listener:
        engine = Engine(catalogue, report=_log, on_death=_die)
        try:
            engine.start()
            number, address = listener.getsockname()[1], f"[{host}]" if ":" in host else host
            line = f"http://{address}:{number}/v1 answers {catalogue.summary()}; Ctrl-C ends it"
            server = _Server(_config(make_app(engine, catalogue, access, _log)), line)
            server.run(sockets=[listener])
            raise Interrupted(server.signum)
        except Interrupted as interrupt:
            engine.stop(seconds=GRACE_SECONDS)
            _log("Interrupted.")
            os._exit(interrupt.exit_code)  # at once: MLX's threads may abort an interpreter that tidies up


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=ImpatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )


class _Server(uvicorn.Server):
    """Says so when it answers; ends at the first signal in good order, at the second at once."""

    signum: int = signal.SIGTERM

    def __init__(self, config: uvicorn.Config, line: str):
        super().__init__(config)
        self.line = line

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """By now the handlers of signals are in place, and whoever reads the line may send one."""
        await super().startup(sockets)
        click.echo(self.line)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(Interrupted(sig).exit_code)
        self.signum, self.should_exit = sig, True


def _log(text: str) -> None:
    click.echo(" ".join(text.split())[:LINE_CHARACTERS], err=True)


def _die(error: BaseException) -> None:
    click.echo(f"Error: the thread that generates has ended, and so does the server: {error!r}", err=True)
    sys.stdout.flush()
    os._exit(1)
