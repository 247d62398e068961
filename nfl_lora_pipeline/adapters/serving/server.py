"""`nfl-lora serve`: routes, who is let in, and errors in OpenAI's form; and a process that answers until a signal ends it."""

import asyncio
import hmac
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar, cast
from urllib.parse import urlsplit

import click
import h11
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from nfl_lora_pipeline.adapters.serving.catalogue import Catalogue, Report
from nfl_lora_pipeline.adapters.serving.engine import Engine
from nfl_lora_pipeline.adapters.serving.job import Begun, Event, Finished, Job, Piece, Reply, error_content, error_event
from nfl_lora_pipeline.adapters.serving.schema import (
    ChatRequest,
    CompletionRequest,
    RequestError,
    parse_chat,
    parse_completion,
)
from nfl_lora_pipeline.interrupts import Interrupted


@dataclass(frozen=True)
class Access:
    """What is let in.

    Attributes:
        hosts: names that a request may be sent to, beside localhost and addresses.
        origins: `scheme://host:port` of pages that may ask.
        key: what stands behind "Bearer" in `Authorization`; empty where nobody is asked for it.
    """

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    key: str = ""

    def check(self, scope: Scope) -> None:
        """Look at a request.

        Raises:
            RequestError: the request is not let in.
        """
        if scope["http_version"] not in ("1.0", "1.1"):
            raise RequestError(f"HTTP/{scope['http_version']}: ask by HTTP/1.1", status=505)
        values: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            values.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        host = "".join(values.get("host", [])[:1])
        if not self._is_ours(host):
            raise RequestError(
                f"Host {host[:100]!r}: not a name of this server; ask by its address, or start it with --allow-host",
                status=421,
            )
        for origin in values.get("origin", []):
            if origin not in self.origins and origin not in (f"http://{host}", f"https://{host}"):
                raise RequestError(
                    f"Origin {origin[:100]!r}: pages of other sites may not ask; start the server with --allow-origin",
                    status=403,
                )
        if "transfer-encoding" in values and "content-length" in values:
            raise RequestError("Transfer-Encoding and Content-Length: one of the two says how long a body is; send one")
        if values.get("content-encoding", ["identity"]) != ["identity"]:
            raise RequestError("Content-Encoding: bodies are read as they are; send yours without", status=415)
        is_open = scope["path"] == "/health" or scope["method"] == "OPTIONS"
        if self.key and not is_open and not self._has_key(values.get("authorization", [])):
            raise RequestError(
                "Authorization: the server's key is wanted, as 'Bearer KEY'", status=401, code="invalid_api_key"
            )

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _has_key(self, values: list[str]) -> bool:
        return len(values) == 1 and hmac.compare_digest(values[0].encode(), f"Bearer {self.key}".encode())


MAX_BODY_BYTES = 256 * 1024
READ_ANYWAY_BYTES = 16 * MAX_BODY_BYTES  # and thrown away, so that who sends too much can read the answer to that
BODY_SECONDS = 10

T = TypeVar("T")
Parse = Callable[[bytes], ChatRequest | CompletionRequest]


def answering(engine: Engine, parse: Parse) -> Callable[[Request], Awaitable[Response]]:
    """What answers requests that `parse` reads."""

    async def endpoint(http: Request) -> Response:
        request = parse(await _body(http))
        events: asyncio.Queue[Event] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        job = Job(request, lambda event: loop.call_soon_threadsafe(events.put_nowait, event))
        engine.submit(job)
        start = await _while_connected(http, job, events.get())
        if isinstance(start, RequestError):
            raise start
        if not isinstance(start, Begun):
            raise TypeError(f"{start!r} before the answer has begun")
        headers = {"x-dropped-messages": str(start.dropped)} if start.dropped else {}
        reply = Reply(request, start.loaded)
        if request.stream:
            return _Stream(job, _stream(reply, events), headers)
        pieces, end = await _while_connected(http, job, _collected(events))
        return JSONResponse(reply.whole(pieces, end), headers=headers)

    return endpoint


async def _while_connected(http: Request, job: Job, answer: Awaitable[T]) -> T:
    """What comes of `answer`, unless the client leaves before: then the job is cancelled."""
    task = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_left(http))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    except BaseException:
        job.is_cancelled = True
        raise
    finally:
        task.cancel()
        leaving.cancel()


async def _left(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


async def _collected(events: asyncio.Queue[Event]) -> tuple[list[Piece], Finished]:
    """All pieces of an answer, and its end.

    Raises:
        RequestError: it has none.
    """
    pieces: list[Piece] = []
    while True:
        event = await events.get()
        if isinstance(event, RequestError):
            raise event
        if isinstance(event, Finished):
            return pieces, event
        if isinstance(event, Piece):
            pieces.append(event)


async def _stream(reply: Reply, events: asyncio.Queue[Event]) -> AsyncIterator[str]:
    """Server-sent events."""
    yield reply.first()
    while True:
        event = await events.get()
        if isinstance(event, Piece):
            yield reply.piece(event)
        elif isinstance(event, Finished):
            yield reply.last(event)
            return
        elif isinstance(event, RequestError):
            yield error_event(event)
            return


class _Stream(StreamingResponse):
    """Events as they come. A client that leaves ends it, and the job with it."""

    def __init__(self, job: Job, events: AsyncIterator[str], headers: dict[str, str]):
        super().__init__(events, headers={"cache-control": "no-cache", **headers}, media_type="text/event-stream")
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.is_cancelled = True


async def _body(http: Request) -> bytes:
    """All of a request's body.

    Raises:
        RequestError: it is too large, or does not come in its time.
    """
    content, size = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in http.stream():
                size += len(chunk)
                if size > READ_ANYWAY_BYTES:
                    break
                if size <= MAX_BODY_BYTES:
                    content += chunk
    except TimeoutError:
        raise RequestError(f"the body did not come within {BODY_SECONDS} s; send it at once", status=408) from None
    if size > MAX_BODY_BYTES:
        raise RequestError(f"the body has more than {MAX_BODY_BYTES:,} bytes; ask with less", status=413)
    return bytes(content)


def make_app(engine: Engine, catalogue: Catalogue, access: Access, report: Report) -> ASGIApp:
    """The application, for an ASGI server; `report` takes lines for the log."""

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": catalogue.models()})

    async def model(request: Request) -> Response:
        return JSONResponse(catalogue.model(request.path_params["name"]))

    async def unexpected(_: Request, error: Exception) -> Response:
        report(f"a request failed: {error!r}")
        return _refusal(RequestError(f"an error of the server's own: {type(error).__name__}", status=500))

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    chat, completion = answering(engine, parse_chat), answering(engine, parse_completion)
    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", completion, methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        Route("/health", health),
    ]
    pages = Middleware(CORSMiddleware, allow_origins=sorted(access.origins), allow_methods=["*"], allow_headers=["*"])
    app = Starlette(
        routes=routes,
        middleware=[pages] if access.origins else [],
        exception_handlers={
            RequestError: _refused,
            HTTPException: _misplaced,
            ClientDisconnect: _unheard,
            Exception: unexpected,
        },
    )
    app.router.redirect_slashes = False  # it would lead to whatever Host names
    return _Door(app, access)


class _Door:
    """Lets in what may ask."""

    def __init__(self, app: ASGIApp, access: Access):
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._access.check(scope)
        except RequestError as error:
            await _refusal(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def _refused(_: Request, error: Exception) -> Response:
    return _refusal(error if isinstance(error, RequestError) else RequestError(str(error)))


async def _misplaced(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 400
    mend = "use another method" if status == 405 else "POST /v1/chat/completions asks, GET /v1/models says whom"
    return _refusal(RequestError(f"{error}: {mend}", status=status))


async def _unheard(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # which nobody is there to read


def _refusal(error: RequestError) -> Response:
    headers = {"retry-after": "1"} if error.status == 503 else {}
    if error.status in (403, 408, 413, 421):
        headers["connection"] = "close"  # whatever of the body is still to come is not waited for
    return JSONResponse(error_content(error), status_code=error.status, headers=headers)


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
