"""The interface over HTTP: routes, who is let in, and errors in OpenAI's form."""

import asyncio
import hmac
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

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
