"""What is answered: the objects of OpenAI's interface.

`model` and `system_fingerprint` name the adapter that gave this very answer, and its weeks.
"""

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from nfl_lora_pipeline.adapters.serving.job import Finished, Piece, TokenLogprob
from nfl_lora_pipeline.adapters.serving.loaded import LoadedAdapter
from nfl_lora_pipeline.adapters.serving.schema import ChatRequest, CompletionRequest, RequestError

DONE = "data: [DONE]\n\n"


class Reply:
    """The answer to one request, whole or in pieces."""

    def __init__(self, request: ChatRequest | CompletionRequest, loaded: LoadedAdapter):
        """Begin an answer that an adapter gives."""
        self._request = request
        self._is_chat = isinstance(request, ChatRequest)
        self._common = {
            "id": f"{'chatcmpl' if self._is_chat else 'cmpl'}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": loaded.name,
            "system_fingerprint": loaded.knows,
        }
        self._offset = 0

    def whole(self, pieces: Sequence[Piece], end: Finished) -> dict[str, Any]:
        """The object of a request without `stream`."""
        text = "".join(piece.text for piece in pieces)
        content = {"message": {"role": "assistant", "content": text}} if self._is_chat else {"text": text}
        logprobs = [each for piece in pieces for each in piece.logprobs]
        choice = {"index": 0, **content, "finish_reason": end.reason, "logprobs": self._logprobs(logprobs)}
        kind = "chat.completion" if self._is_chat else "text_completion"
        return {"object": kind, **self._common, "choices": [choice], "usage": _usage(end)}

    def first(self) -> str:
        """What a stream of a chat begins with; nothing for a completion."""
        return self._event({"delta": {"role": "assistant", "content": ""}}) if self._is_chat else ""

    def piece(self, piece: Piece) -> str:
        """An event with more text."""
        content = {"delta": {"content": piece.text}} if self._is_chat else {"text": piece.text}
        return self._event(content | {"logprobs": self._logprobs(piece.logprobs)})

    def last(self, end: Finished) -> str:
        """The events that a stream ends with."""
        content: dict[str, Any] = {"delta": {}} if self._is_chat else {"text": ""}
        usage = ""
        if self._request.reports_usage:
            usage = _sent({**self._chunk(), "choices": [], "usage": _usage(end)})
        return self._event(content, end.reason) + usage + DONE

    def _event(self, content: dict[str, Any], reason: str | None = None) -> str:
        choice = {"index": 0, **content, "finish_reason": reason}
        return _sent({**self._chunk(), "choices": [choice]})

    def _chunk(self) -> dict[str, Any]:
        return {"object": "chat.completion.chunk" if self._is_chat else "text_completion", **self._common}

    def _logprobs(self, tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if self._request.top_logprobs_wanted is None:
            return None
        if self._is_chat:
            return {
                "content": [
                    _entry(token.text, token.logprob) | {"top_logprobs": [_entry(*top) for top in token.top]}
                    for token in tokens
                ]
            }
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token.text)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [dict(token.top) for token in tokens],
            "text_offset": offsets,
        }


def error_content(error: RequestError) -> dict[str, Any]:
    """The object that says what is wrong with a request, or with its answer."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}


def error_event(error: RequestError) -> str:
    """An event that ends a stream that cannot go on."""
    return _sent(error_content(error)) + DONE


def _sent(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _usage(end: Finished) -> dict[str, int]:
    return {
        "prompt_tokens": end.prompt_tokens,
        "completion_tokens": end.completion_tokens,
        "total_tokens": end.prompt_tokens + end.completion_tokens,
    }


def _entry(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
