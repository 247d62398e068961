"""What may be asked: the fields of OpenAI's chat and completion requests, each with its bounds.

null stands for a field that is left out, as OpenAI's clients send it. A field that is not known is passed over, since clients
of all ages and makers send some. One that is known and would change the answer in a way that is not on offer (`tools`, an
`n` of 2) is refused instead.

Source: the API reference of OpenAI, "Create chat completion" and "Create completion"; `top_k`, `min_p` and the repetition
penalty are named as in mlx-lm's server.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

MAX_TOKENS, DEFAULT_TOKENS = 4_096, 512
MAX_CHARACTERS = 32_768  # of all texts of a request together


class RequestError(ValueError):
    """What is wrong with a request, in one sentence.

    Attributes:
        param: the field that is meant; None for the whole.
        status: of HTTP.
        code: one of OpenAI's, or None.
    """

    def __init__(self, message: str, *, param: str | None = None, status: int = 400, code: str | None = None):
        super().__init__(message)
        self.param, self.status, self.code = param, status, code


def _not_on_offer(value: object) -> object:
    if value not in (None, False, [], {}, ""):
        raise ValueError("this server does not do that; leave the field out")
    return value


NotOnOffer = Annotated[object, AfterValidator(_not_on_offer)]
Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]
Stop = Annotated[str, Field(min_length=1, max_length=200)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
ContextSize = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class TextPart(_Checked):
    """A piece of a message's text."""

    type: Literal["text"]
    text: Text


class Message(_Checked):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=64)] | None = None

    @property
    def text(self) -> str:
        """All of it; nothing for an assistant's message that was a call of a tool."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "".join(part.text for part in self.content)


class StreamOptions(_Checked):
    """What a stream has beside the answer."""

    include_usage: bool | None = None


class ResponseFormat(_Checked):
    """Plain text is the only one."""

    type: Literal["text"]


class GenerationRequest(_Checked):
    """What chat and completion requests have in common."""

    model: Annotated[str, Field(max_length=1_000)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    presence_penalty: Penalty | None = None
    presence_context_size: ContextSize | None = None
    frequency_penalty: Penalty | None = None
    frequency_context_size: ContextSize | None = None
    repetition_penalty: Annotated[float, Field(ge=0.1, le=10)] | None = None
    repetition_context_size: ContextSize | None = None
    logit_bias: Annotated[dict[TokenId, Bias], Field(max_length=1_024)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    n: Literal[1] | None = None
    response_format: ResponseFormat | None = None
    chat_template_kwargs: NotOnOffer = None
    role_mapping: NotOnOffer = None
    draft_model: NotOnOffer = None
    adapters: NotOnOffer = None

    @property
    def token_limit(self) -> int:
        """How many tokens an answer may have."""
        return self.max_tokens or DEFAULT_TOKENS

    @property
    def characters(self) -> int:
        """Of all texts to be read."""
        raise NotImplementedError

    @property
    def stops(self) -> list[str]:
        """Texts that an answer ends before."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])

    @property
    def top_logprobs_wanted(self) -> int | None:
        """How many alternatives to name at each token; None where no probabilities are wanted."""
        raise NotImplementedError

    @property
    def reports_usage(self) -> bool:
        """Whether a stream ends with the count of its tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(GenerationRequest):
    """Body of `POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=256)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    modalities: list[Literal["text"]] | None = None
    tools: NotOnOffer = None
    functions: NotOnOffer = None
    audio: NotOnOffer = None
    prediction: NotOnOffer = None
    web_search_options: NotOnOffer = None

    @property
    def token_limit(self) -> int:
        """How many tokens an answer may have; the newer of the two fields counts."""
        return self.max_completion_tokens or super().token_limit

    @property
    def top_logprobs_wanted(self) -> int | None:
        """As `GenerationRequest.top_logprobs_wanted`."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def characters(self) -> int:
        """Of all messages."""
        return sum(len(message.text) for message in self.messages)


class CompletionRequest(GenerationRequest):
    """Body of `POST /v1/completions`."""

    prompt: Annotated[Text, Field(min_length=1)] | Annotated[list[Text], Field(min_length=1, max_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: Literal[1] | None = None
    echo: NotOnOffer = None
    suffix: NotOnOffer = None

    @property
    def text(self) -> str:
        """The prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]

    @property
    def top_logprobs_wanted(self) -> int | None:
        """As `GenerationRequest.top_logprobs_wanted`."""
        return self.logprobs

    @property
    def characters(self) -> int:
        """Of the prompt."""
        return len(self.text)


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


def _in_words(errors: Sequence[ErrorDetails]) -> RequestError:
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


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
