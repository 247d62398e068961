"""From the body of a request to what it asks for, or to one sentence on what is wrong with it."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from nfl_lora_pipeline.adapters.serving.schema import (
    MAX_CHARACTERS,
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    Message,
    RequestError,
    ResponseFormat,
    StreamOptions,
    TextPart,
)

SHOWN_CHARACTERS = 60  # of a value that is wrong

Request = TypeVar("Request", bound=GenerationRequest)


def parse_chat(body: bytes) -> ChatRequest:
    """Read a chat request.

    Raises:
        RequestError: it is none, names the field, its value and what would do.
    """
    request = _parse(ChatRequest, body)
    if not any(message.role == "user" and message.text.strip() for message in request.messages):
        raise RequestError("messages: there is no user's message with text in it; add one", param="messages")
    for place, message in enumerate(request.messages):
        if message.content is None and message.role != "assistant":
            raise RequestError(f"messages[{place}].content: null; give a text", param="messages")
    if request.top_logprobs is not None and not request.logprobs:
        raise RequestError("top_logprobs: wants logprobs to be true; set it", param="top_logprobs")
    if request.characters > MAX_CHARACTERS:
        raise RequestError(
            f"messages: {request.characters:,} characters; {MAX_CHARACTERS:,} at most are read, so ask with less",
            param="messages",
            code="context_length_exceeded",
        )
    return request


def parse_completion(body: bytes) -> CompletionRequest:
    """Read a completion request.

    Raises:
        RequestError: as `parse_chat`.
    """
    request = _parse(CompletionRequest, body)
    if not request.text:
        raise RequestError("prompt: an empty text; give one to go on with", param="prompt")
    return request


def _parse(kind: type[Request], body: bytes) -> Request:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _in_words(error.errors(include_url=False, include_context=False)) from None


def _in_words(errors: Sequence[Any]) -> RequestError:
    """One sentence on the first field that is wrong. What several types are possible for has an error for each of them."""
    if not errors[0]["loc"]:
        problem = errors[0]["msg"].removeprefix("Invalid JSON: ")
        return RequestError(f"the body is no JSON object that can be read: {_mend(problem)}")
    param = str(errors[0]["loc"][0])
    of_field = [error for error in errors if error["loc"][0] == param]
    nearest = max(of_field, key=lambda error: len(error["loc"]))
    path = _path(nearest["loc"])
    mends = dict.fromkeys(_mend(error["msg"]) for error in of_field if _path(error["loc"]) == path)
    value = "" if nearest["type"] == "missing" else f" {_shown(nearest['input'])}:"
    return RequestError(f"{path}:{value} {_or(mends)}", param=param)


def _path(location: Sequence[int | str]) -> str:
    """`messages[0].content` for a location in pydantic's terms, without the names of the types that it tried."""
    field, *deeper = location
    names = {name for kind in (Message, TextPart, StreamOptions, ResponseFormat) for name in kind.model_fields}
    steps = [
        f"[{step}]" if isinstance(step, int) else f".{step}"
        for step in deeper
        if isinstance(step, int) or step in names
    ]
    return f"{field}{''.join(steps)}"


def _mend(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _or(mends: Iterable[str]) -> str:
    first, *others = mends
    return " or ".join([first, *(other.removeprefix("input should be ") for other in others)])


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
