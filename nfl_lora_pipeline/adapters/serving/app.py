"""The interface over HTTP: routes, who is let in, and errors in OpenAI's form."""

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from nfl_lora_pipeline.adapters.serving.access import Access
from nfl_lora_pipeline.adapters.serving.answering import answering
from nfl_lora_pipeline.adapters.serving.engine import Engine
from nfl_lora_pipeline.adapters.serving.parsing import parse_chat, parse_completion
from nfl_lora_pipeline.adapters.serving.replies import error_content
from nfl_lora_pipeline.adapters.serving.schema import RequestError


def make_app(engine: Engine, access: Access, report: Callable[[str], None]) -> ASGIApp:
    """The application, for an ASGI server; `report` takes lines for the log."""

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [engine.loaded.to_json()]})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if name != engine.loaded.name:
            raise RequestError(
                f"model {name[:100]!r}: this server has {engine.loaded.name}", status=404, code="model_not_found"
            )
        return JSONResponse(engine.loaded.to_json())

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
            RequestError: _said,
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


async def _said(_: Request, error: Exception) -> Response:
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
