"""Tokens for several requests: all together, or one request after another where a model or an error calls for that."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, generate_step
from mlx_lm.models.cache import make_prompt_cache

from nfl_lora_pipeline.adapters.serving.sampling import Processor, Sampler

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


class Together:
    """Every prompt goes on by a token at each step (mlx-lm's `BatchGenerator`). An error is everybody's."""

    def __init__(self, model: Any):
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


class OneByOne:
    """One prompt goes on until its end, then the next. An error is that prompt's."""

    def __init__(self, model: Any):
        self._model = model
        self._running: dict[int, Iterator[tuple[Any, mx.array]]] = {}
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


def suitable_generator(model: Any) -> Generator:
    """`Together` where all of the model's caches can be merged, else `OneByOne`."""
    mergeable = all(hasattr(cache, "merge") for cache in make_prompt_cache(model))
    return Together(model) if mergeable else OneByOne(model)
