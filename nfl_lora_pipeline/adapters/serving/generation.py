"""Tokens for several requests: all together, or one request after another where a model or an error calls for that."""

import math
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, generate_step
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.sample_utils import greedy_sampler, make_logits_processors

from nfl_lora_pipeline.adapters.serving.schema import GenerationRequest, RequestError
from nfl_lora_pipeline.models.base_model import Model

COLDEST = 1e-3  # below it 1/temperature leaves what float32 can hold; the likeliest token is chosen

Sampler = Callable[[mx.array], mx.array]
Processor = Callable[[mx.array, mx.array], mx.array]


def make_sampler(request: GenerationRequest) -> Sampler:
    """From log probabilities (1, V) to a token (1,), as a request wants it; the likeliest where it names no temperature."""
    temperature = request.temperature or 0.0
    if temperature < COLDEST:
        return greedy_sampler
    key = mx.random.key(secrets.randbits(63) if request.seed is None else request.seed % 2**64)
    top_k, top_p, min_p = request.top_k or 0, 1.0 if request.top_p is None else request.top_p, request.min_p or 0.0

    def sample(logprobs: mx.array) -> mx.array:
        nonlocal key
        key, now = mx.random.split(key)
        remaining = candidates(logprobs, top_k=top_k, top_p=top_p, min_p=min_p)
        return mx.random.categorical(remaining / temperature, key=now)

    return sample


def candidates(logprobs: mx.array, *, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> mx.array:
    """Log probabilities (B, V) in which what may not be chosen is -inf; the likeliest token always may.

    Args:
        logprobs: normalised.
        top_k: so many tokens at most; 0 for all.
        top_p: the likeliest tokens that have so much of the probability together.
        min_p: of the likeliest token's probability, what a token must have.
    """
    if not 0 < top_k < logprobs.shape[-1] and top_p >= 1 and min_p <= 0:
        return logprobs
    ordered = -mx.sort(-logprobs, axis=-1)
    probabilities = mx.exp(ordered)
    allowed = mx.cumsum(probabilities, axis=-1) - probabilities < top_p
    if min_p > 0:
        allowed = allowed & (ordered >= ordered[:, :1] + math.log(min_p))
    if top_k:
        allowed = allowed & (mx.arange(ordered.shape[-1]) < top_k)
    count = mx.maximum(allowed.sum(axis=-1, keepdims=True), 1)
    threshold = mx.take_along_axis(ordered, count - 1, axis=-1)
    return mx.where(logprobs < threshold, -math.inf, logprobs)


def make_processors(request: GenerationRequest, vocabulary: int) -> list[Processor]:
    """What changes the logits before a token is chosen.

    Raises:
        RequestError: `logit_bias` names a token beyond the vocabulary; MLX would write there all the same.
    """
    bias = request.logit_bias or {}
    if unknown := [token for token in bias if token >= vocabulary]:
        raise RequestError(
            f"logit_bias: token {unknown[0]} is beyond the vocabulary of {vocabulary:,}; leave it out",
            param="logit_bias",
        )
    penalties = {
        "repetition_penalty": request.repetition_penalty,
        "repetition_context_size": request.repetition_context_size,
        "presence_penalty": request.presence_penalty,
        "presence_context_size": request.presence_context_size,
        "frequency_penalty": request.frequency_penalty,
        "frequency_context_size": request.frequency_context_size,
    }
    options = {name: value for name, value in penalties.items() if value is not None}
    return list(make_logits_processors(logit_bias=bias, **options))


PREFILL_TOKENS = 512  # of a prompt at a time, so that nobody waits long for another's
TOGETHER = 32


@dataclass(frozen=True)
class Prompt:
    """What to go on from, and how.

    Attributes:
        tokens: at least one.
        limit: so many new tokens at most, at least one.
        sampler: chooses from log probabilities (1, V).
        processors: change the logits before that.
    """

    tokens: list[int]
    limit: int
    sampler: Sampler
    processors: list[Processor]


@dataclass(frozen=True)
class Token:
    """A new token of the prompt that was added under this number; `logprobs` is (V,)."""

    number: int
    id: int
    logprobs: mx.array


class Generator(Protocol):
    """Goes on with several prompts at a time."""

    def add(self, prompt: Prompt) -> int:
        """Take a prompt; its number."""

    def remove(self, number: int) -> None:
        """Leave a prompt, finished or not."""

    def step(self) -> list[Token]:
        """Some of the prompts' next tokens; none while prompts are only read."""


class BatchedGenerator:
    """Every prompt goes on by a token at each step (mlx-lm's `BatchGenerator`). An error is everybody's."""

    def __init__(self, model: Model):
        self._generator = BatchGenerator(model, completion_batch_size=TOGETHER, prefill_step_size=PREFILL_TOKENS)

    def add(self, prompt: Prompt) -> int:
        """As `Generator.add`."""
        (number,) = self._generator.insert(
            [list(prompt.tokens)], [prompt.limit], samplers=[prompt.sampler], logits_processors=[prompt.processors]
        )
        return int(number)

    def remove(self, number: int) -> None:
        """As `Generator.remove`."""
        self._generator.remove([number])

    def step(self) -> list[Token]:
        """As `Generator.step`."""
        _, responses = self._generator.next()
        return [Token(response.uid, response.token, response.logprobs) for response in responses]


class SequentialGenerator:
    """One prompt goes on until its end, then the next. An error is that prompt's."""

    def __init__(self, model: Model):
        self._model = model
        self._running: dict[int, Iterator[tuple[int, mx.array]]] = {}
        self._count = 0

    def add(self, prompt: Prompt) -> int:
        """As `Generator.add`."""
        self._count += 1
        self._running[self._count] = generate_step(
            mx.array(prompt.tokens),
            self._model,
            max_tokens=prompt.limit,
            sampler=prompt.sampler,
            logits_processors=prompt.processors,
            prefill_step_size=PREFILL_TOKENS,
        )
        return self._count

    def remove(self, number: int) -> None:
        """As `Generator.remove`."""
        self._running.pop(number, None)

    @property
    def current(self) -> int | None:
        """The number of the prompt that the next step, or the last one's error, belongs to."""
        return next(iter(self._running), None)

    def step(self) -> list[Token]:
        """As `Generator.step`."""
        number = self.current
        if number is None:
            return []
        token, logprobs = next(self._running[number])
        return [Token(number, int(token), logprobs)]


def suitable_generator(model: Model) -> Generator:
    """`BatchedGenerator` where all of the model's caches can be merged, else `SequentialGenerator`."""
    mergeable = all(hasattr(cache, "merge") for cache in make_prompt_cache(model))
    return BatchedGenerator(model) if mergeable else SequentialGenerator(model)
