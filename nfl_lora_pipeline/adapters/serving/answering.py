"""From a request's body to its answer: read, handed to the engine, and waited for as long as the client does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from nfl_lora_pipeline.adapters.serving.engine import Engine
from nfl_lora_pipeline.adapters.serving.job import Begun, Event, Finished, Job, Piece
from nfl_lora_pipeline.adapters.serving.replies import Reply, error_event
from nfl_lora_pipeline.adapters.serving.schema import ChatRequest, CompletionRequest, RequestError

MAX_BODY_BYTES = 256 * 1024
READ_ANYWAY_BYTES = 16 * MAX_BODY_BYTES  # and thrown away, so that who sends too much can read the answer to that
BODY_SECONDS = 10

Parse = Callable[[bytes], ChatRequest | CompletionRequest]


def answering(engine: Engine, parse: Parse) -> Callable[[Request], Awaitable[Response]]:
    """What answers requests that `parse` reads."""

    async def endpoint(http: Request) -> Response:
        request = parse(await _body(http))
        events: asyncio.Queue[Event] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        job = Job(request, lambda event: loop.call_soon_threadsafe(events.put_nowait, event))
        engine.submit(job)
        begun = await _while_connected(http, job, events.get())
        if not isinstance(begun, Begun):
            raise begun
        headers = {"x-dropped-messages": str(begun.dropped)} if begun.dropped else {}
        reply = Reply(request, begun.loaded)
        if request.stream:
            return _Stream(job, _stream(reply, events), headers)
        pieces, end = await _while_connected(http, job, _collected(events))
        return JSONResponse(reply.whole(pieces, end), headers=headers)

    return endpoint


async def _while_connected(http: Request, job: Job, answer: Any) -> Any:
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
    kept, size = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in http.stream():
                size += len(chunk)
                if size > READ_ANYWAY_BYTES:
                    break
                if size <= MAX_BODY_BYTES:
                    kept += chunk
    except TimeoutError:
        raise RequestError(f"the body did not come within {BODY_SECONDS} s; send it at once", status=408) from None
    if size > MAX_BODY_BYTES:
        raise RequestError(f"the body has more than {MAX_BODY_BYTES:,} bytes; ask with less", status=413)
    return bytes(kept)
