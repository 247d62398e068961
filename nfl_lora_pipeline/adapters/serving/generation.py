"""An adapter that answers, loaded with its base or put on that of another one; and tokens for several requests.

All requests are answered together, or one after another where a model or an error calls for that.
"""

import copy
import json
import math
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.generate import BatchGenerator, generate_step
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.sample_utils import greedy_sampler, make_logits_processors
from mlx_lm.tuner.utils import load_adapters, remove_lora_layers

from nfl_lora_pipeline.adapters.serving.schema import GenerationRequest, RequestError
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.base_model import BaseModel, Model
from nfl_lora_pipeline.models.prompt import Tokenizer
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import JsonObject
from nfl_lora_pipeline.weeks.week import spoken_weeks

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


MOST_CONTEXT = 8_192  # tokens of prompt and answer, whatever a base can take: memory is for many requests


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """An adapter on its base.

    Attributes:
        fingerprint: of the adapter.
        weeks: partition keys that it was taught.
        stats: that it was taught.
        base: its base model.
        model: base and adapter, as mlx-lm loads them; nobody changes it any more.
        tokenizer: of the base.
        vocabulary: how many tokens there are logits for.
        context: tokens of prompt and answer together, at most.
        loaded_at: seconds since 1970.
    """

    fingerprint: str
    weeks: list[str]
    stats: list[str]
    base: BaseModel
    model: Model
    tokenizer: Tokenizer
    vocabulary: int
    context: int
    loaded_at: int

    @property
    def name(self) -> str:
        """The model's name over HTTP."""
        return f"nfl-lora-{self.fingerprint}"

    @property
    def knows(self) -> str:
        """Fingerprint and weeks, for people."""
        return f"{self.fingerprint} ({spoken_weeks(self.weeks)})"

    def to_json(self) -> JsonObject:
        """An entry of `/v1/models`."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.loaded_at,
            "owned_by": "nfl_lora_pipeline",
            "fingerprint": self.fingerprint,
            "weeks": [*self.weeks],
            "stats": [*self.stats],
            "base_model": self.base.name,
            "single_turn": self.base.single_turn,
            "context_length": self.context,
        }


def load_adapter(store: Store, fingerprint: str, *others: LoadedAdapter) -> LoadedAdapter:
    """Load an adapter of a store.

    Args:
        store: the store.
        fingerprint: of the adapter.
        others: what is loaded already. The base's weights are shared with one on the same base, whatever the shapes of its
            adapter; itself it stays as it is, and goes on answering.

    Raises:
        ValueError: a file is missing or damaged, or what was loaded gives no probabilities.
    """
    folder = store.adapter(fingerprint)
    try:
        provenance = store.provenance(fingerprint)
        store.check_adapter(fingerprint)
        base = base_models.resolve(provenance.base_model)
        model, tokenizer = _on_base_of(others, base, folder) or base_models.load(base, adapter=folder)
        logits = model(mx.array([[tokenizer.eos_token_id]]))[0, -1]
        finite = bool(mx.isfinite(logits).all().item())
    except (OSError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise ValueError(f"adapter {fingerprint} in {folder} cannot be loaded: {error!r}") from error
    if not finite:
        raise ValueError(f"adapter {fingerprint} in {folder} gives no finite logits: its weights are damaged")
    stated = getattr(getattr(model, "args", None), "max_position_embeddings", None)
    context = min(stated, MOST_CONTEXT) if isinstance(stated, int) and stated > 0 else MOST_CONTEXT
    return LoadedAdapter(
        fingerprint=fingerprint,
        weeks=provenance.weeks,
        stats=provenance.stats,
        base=base,
        model=model,
        tokenizer=tokenizer,
        vocabulary=int(logits.shape[0]),
        context=context,
        loaded_at=int(time.time()),
    )


def _on_base_of(others: Sequence[LoadedAdapter], base: BaseModel, adapter: Path) -> tuple[Model, Tokenizer] | None:
    """A model with an adapter, whose other weights are the own arrays of one that is loaded on the same base, if any is."""
    for other in others:
        if other.base != base or (plain := _without_adapter(other.model)) is None:
            continue
        model = load_adapters(plain, str(adapter))
        model.eval()
        mx.eval(model.parameters())
        return model, other.tokenizer
    return None


def _without_adapter(model: Model) -> Model | None:
    """A second model of the same arrays without the LoRA layers; None where the adapter is no LoRA of linear layers alone."""
    arrays = tree_flatten(model.parameters())
    other = remove_lora_layers(copy.deepcopy(model, {id(array): array for _, array in arrays}))
    return other if _is_adapted(model) and not _is_adapted(other) else None


def _is_adapted(model: Model) -> bool:
    return any(name.endswith("lora_a") for name, _ in tree_flatten(model.parameters()))
