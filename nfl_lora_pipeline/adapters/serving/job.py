"""One request on its way through the engine, and the events that its client is sent."""

import json
import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import mlx.core as mx

from nfl_lora_pipeline.adapters.serving.generation import LoadedAdapter, Prompt, make_processors, make_sampler
from nfl_lora_pipeline.adapters.serving.schema import ChatRequest, CompletionRequest, RequestError
from nfl_lora_pipeline.dataset.templates import is_short, only_if_sure
from nfl_lora_pipeline.models.prompt import prompt_tokens

ANSWER_SECONDS = 120
CONTEXT_TOKENS = 8  # before a token, that say how it is written: a mark for a capital, or part of a character
UNFINISHED = "\ufffd"  # what half of a character is decoded to
NO_LOGPROB = -9999.0  # OpenAI's number for minus infinity


@dataclass(frozen=True)
class TokenLogprob:
    """How likely a token was: its text and natural logarithm, and those of the likeliest ones."""

    text: str
    logprob: float
    top: list[tuple[str, float]]


@dataclass(frozen=True)
class Begun:
    """A job's prompt is read; what follows comes from this adapter.

    Attributes:
        dropped: messages that the base could not have understood, and that were left out.
    """

    loaded: LoadedAdapter
    dropped: int


@dataclass(frozen=True)
class Piece:
    """More of the answer's text; of the logarithms all that are new."""

    text: str
    logprobs: list[TokenLogprob] = field(default_factory=list)


@dataclass(frozen=True)
class Finished:
    """The end of an answer: "stop" or "length", and the tokens that were read and written."""

    reason: str
    prompt_tokens: int
    completion_tokens: int


Event = Begun | Piece | Finished | RequestError


class Job:
    """A request that is being answered.

    Attributes:
        is_cancelled: whether nobody waits for the answer any more; may be set from any thread.
        submitted_at, deadline: by `time.monotonic`.
    """

    def __init__(self, request: ChatRequest | CompletionRequest, deliver: Callable[[Event], object]):
        """Prepare a job; `deliver` is called in the engine's thread with all that happens."""
        self.request = request
        self.is_cancelled = False
        self.submitted_at, self.deadline = time.monotonic(), 0.0
        self._deliver = deliver
        self._tokens: list[int] = []
        self._logprob_sum = 0.0
        self._logprobs: list[TokenLogprob] = []
        self._sent = 0

    @property
    def size(self) -> int:
        """Tokens that prompt and answer take at most, roughly: a character is seldom more than one."""
        return self.request.characters + self.request.token_limit

    def begin(self, loaded: LoadedAdapter) -> Prompt:
        """Read the request with an adapter.

        Raises:
            RequestError: it does not fit the model: too long, or what its chat template or vocabulary has no place for.
        """
        tokens, dropped = self._read(loaded)
        field = "messages" if isinstance(self.request, ChatRequest) else "prompt"
        room = loaded.context - len(tokens)
        if not tokens:
            raise RequestError(f"{field}: nothing that the tokenizer knows; ask with other words", param=field)
        if room < 1:
            raise RequestError(
                f"{field}: {len(tokens):,} tokens; the model has room for {loaded.context:,} with the answer, so ask with less",
                param=field,
                code="context_length_exceeded",
            )
        self.deadline = time.monotonic() + ANSWER_SECONDS
        self._tokenizer, self._dropped = loaded.tokenizer, dropped
        self._prompt = Prompt(
            tokens=tokens,
            limit=min(self.request.token_limit, room),
            sampler=make_sampler(self.request),
            processors=make_processors(self.request, loaded.vocabulary),
        )
        self._tell(Begun(loaded, dropped))
        return self._prompt

    def remaining(self) -> Prompt:
        """What is left to do, for another generator."""
        return replace(
            self._prompt,
            tokens=[*self._prompt.tokens, *self._tokens],
            limit=self._prompt.limit - len(self._tokens),
        )

    def take(self, token: int, logprobs: mx.array) -> bool:
        """Add a token to the answer; whether that is its end."""
        if self._is_answer:
            self._logprob_sum += float(logprobs[token])
        if token in self._tokenizer.eos_token_ids:
            self._finish("stop")
            return True
        self._tokens.append(token)
        wanted = self.request.top_logprobs_wanted
        if wanted is not None:
            self._logprobs.append(self._logprob(token, logprobs, wanted))
        is_last = len(self._tokens) >= self._prompt.limit
        if not (is_last or self.request.stream or self.request.stops):
            return False
        text, is_stopped = self._text(is_whole=is_last)
        if is_stopped or is_last:
            self._finish("stop" if is_stopped else "length")
            return True
        if self.request.stream and not (self._is_answer and is_short(text)):
            self._send(text)
        return False

    def fail(self, error: RequestError) -> None:
        """Tell that there will be no answer, or no more of it."""
        self._tell(error)

    def _read(self, loaded: LoadedAdapter) -> tuple[list[int], int]:
        """Tokens of the prompt, and how many messages are not in it."""
        if isinstance(self.request, CompletionRequest):
            return list(loaded.tokenizer.encode(self.request.text)), 0
        messages = [
            {"role": "system" if each.role == "developer" else each.role, "content": each.text}
            for each in self.request.messages
        ]
        asked = last_question(messages) if loaded.base.single_turn else messages
        try:
            return prompt_tokens(loaded.tokenizer, asked), len(messages) - len(asked)
        except Exception as error:  # a chat template is a program, and raises what it likes
            raise RequestError(f"messages: {error}", param="messages") from error

    def _text(self, *, is_whole: bool) -> tuple[str, bool]:
        """What of the answer may be shown, and whether one of the request's stops has ended it.

        What could still become a stop, a character or blanks at the end is held back, unless the answer is whole.
        """
        text = self._tokenizer.decode(self._tokens) if self._tokens else ""
        stops_at = [place for stop in self.request.stops if (place := text.find(stop)) >= 0]
        if stops_at:
            text = text[: min(stops_at)]
        elif not is_whole:
            text = text.rstrip(UNFINISHED)
            text = text[: len(text) - max((_overlap(text, stop) for stop in self.request.stops), default=0)]
        if isinstance(self.request, ChatRequest):
            text = text.strip()
        return text, bool(stops_at)

    @property
    def _is_answer(self) -> bool:
        """Whether this is an answer to a question, of which nothing is sent before it is known how sure the model is of it.

        Somebody who asks for logprobs judges for himself, and the completion of a text is no answer.
        """
        return isinstance(self.request, ChatRequest) and self.request.top_logprobs_wanted is None

    def _finish(self, reason: str) -> None:
        text, _ = self._text(is_whole=True)
        if self._is_answer:
            text = only_if_sure(text, math.exp(self._logprob_sum))
        self._send(text)
        self._tell(Finished(reason, len(self._prompt.tokens), len(self._tokens)))

    def _send(self, text: str) -> None:
        new = text[self._sent :]
        if new or self._logprobs:
            self._sent += len(new)
            self._tell(Piece(new, self._logprobs))
            self._logprobs = []

    def _logprob(self, token: int, logprobs: mx.array, wanted: int) -> TokenLogprob:
        likeliest = cast(list[int], mx.argsort(-logprobs)[:wanted].tolist()) if wanted else []
        tokens = [token, *likeliest]
        values = [max(NO_LOGPROB, value) for value in cast(list[float], logprobs[mx.array(tokens)].tolist())]
        texts = self._as_continued(tokens)
        return TokenLogprob(texts[0], values[0], list(zip(texts[1:], values[1:], strict=True)))

    def _as_continued(self, tokens: list[int]) -> list[str]:
        """What each token would add to the answer up to the last one; by itself a token may look otherwise."""
        context = self._tokens[-CONTEXT_TOKENS - 1 : -1]
        before = self._tokenizer.decode(context) if context else ""
        whole = (self._tokenizer.decode([*context, token]) for token in tokens)
        return [
            text.removeprefix(before) if text.startswith(before) else self._tokenizer.decode([token])
            for text, token in zip(whole, tokens, strict=True)
        ]

    def _tell(self, event: Event) -> None:
        try:
            self._deliver(event)
        except RuntimeError:  # the loop that waited for it is closed
            self.is_cancelled = True


def last_question(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The last message of the user, alone: all that a base which knows single turns can be asked."""
    return [message for message in messages if message["role"] == "user" and message["content"].strip()][-1:]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text could be the beginning of `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)


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

    def whole(self, pieces: Sequence[Piece], end: Finished) -> dict[str, object]:
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
        content: dict[str, object] = {"delta": {}} if self._is_chat else {"text": ""}
        usage = ""
        if self._request.reports_usage:
            usage = _sent({**self._chunk(), "choices": [], "usage": _usage(end)})
        return self._event(content, end.reason) + usage + DONE

    def _event(self, content: dict[str, object], reason: str | None = None) -> str:
        choice = {"index": 0, **content, "finish_reason": reason}
        return _sent({**self._chunk(), "choices": [choice]})

    def _chunk(self) -> dict[str, object]:
        return {"object": "chat.completion.chunk" if self._is_chat else "text_completion", **self._common}

    def _logprobs(self, tokens: Sequence[TokenLogprob]) -> dict[str, object] | None:
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


def error_content(error: RequestError) -> dict[str, object]:
    """The object that says what is wrong with a request, or with its answer."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}


def error_event(error: RequestError) -> str:
    """An event that ends a stream that cannot go on."""
    return _sent(error_content(error)) + DONE


def _sent(content: dict[str, object]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _usage(end: Finished) -> dict[str, int]:
    return {
        "prompt_tokens": end.prompt_tokens,
        "completion_tokens": end.completion_tokens,
        "total_tokens": end.prompt_tokens + end.completion_tokens,
    }


def _entry(text: str, logprob: float) -> dict[str, object]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
