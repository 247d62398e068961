"""`nfl-lora serve`: a process that answers over HTTP until it is told to end."""

import logging
import os
import signal
import sys
from types import FrameType
from typing import Any

import click
import uvicorn

from nfl_lora_pipeline.adapters.serving.access import Access
from nfl_lora_pipeline.adapters.serving.app import make_app
from nfl_lora_pipeline.adapters.serving.connections import CONNECTIONS, ImpatientProtocol, allow_connections
from nfl_lora_pipeline.adapters.serving.engine import Engine
from nfl_lora_pipeline.adapters.serving.listening import BACKLOG, listening
from nfl_lora_pipeline.interrupts import Interrupted
from nfl_lora_pipeline.store import Store

GRACE_SECONDS = 1  # for answers that are being written when the end comes
KEEP_ALIVE_SECONDS = 60  # longer than clients keep connections, which would else use one that is being closed
HEAD_BYTES = 32 * 1024
LINE_CHARACTERS = 500  # of the log


def serve(held: Store, fingerprint: str, *, follows: bool, host: str, port: int, access: Access) -> None:
    """Answer over OpenAI's interface until SIGINT or SIGTERM, after which answers at hand have a second.

    Args:
        held: the store.
        fingerprint: of the adapter to begin with.
        follows: whether to change to what is promoted later.
        host: to listen on.
        port: to listen on; 0 for any that is free.
        access: who may ask.

    Raises:
        ValueError: the port cannot be listened on, or the adapter cannot be loaded.
    """
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL + 1)  # what clients do wrong, they are told
    allow_connections()
    with listening(host, port) as listener:
        engine = Engine(held, fingerprint, follows=follows, report=_log, on_death=_die)
        try:
            engine.start()
            number, address = listener.getsockname()[1], f"[{host}]" if ":" in host else host
            click.echo(f"http://{address}:{number}/v1 answers with adapter {engine.loaded.knows}; Ctrl-C ends it")
            server = _Server(_config(make_app(engine, access, _log)))
            server.run(sockets=[listener])
            raise Interrupted(server.signum)
        except Interrupted as interrupt:
            engine.stop(seconds=GRACE_SECONDS)
            _log("Interrupted.")
            os._exit(interrupt.exit_code)  # at once: MLX's threads may abort an interpreter that tidies up


def _config(app: Any) -> uvicorn.Config:
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
    """Ends at the first signal in good order, at the second at once."""

    signum: int = signal.SIGTERM

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
