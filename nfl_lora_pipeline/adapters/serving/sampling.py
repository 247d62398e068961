"""How the next token is chosen: by a request's own random numbers, whoever else is answered at the time.

mlx-lm's filters are compiled for each value of `top_p`, for which MLX runs a C++ compiler on the CPU, refuse a `top_k` that is
larger than the vocabulary, and its samplers share one random state. These do the same without the three.
"""

import math
import secrets
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx_lm.sample_utils import greedy_sampler, make_logits_processors

from nfl_lora_pipeline.adapters.serving.schema import GenerationRequest, RequestError

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
        kept = candidates(logprobs, top_k=top_k, top_p=top_p, min_p=min_p)
        return mx.random.categorical(kept / temperature, key=now)

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
    named: dict[str, Any] = {
        "repetition_penalty": request.repetition_penalty,
        "repetition_context_size": request.repetition_context_size,
        "presence_penalty": request.presence_penalty,
        "presence_context_size": request.presence_context_size,
        "frequency_penalty": request.frequency_penalty,
        "frequency_context_size": request.frequency_context_size,
    }
    given = {name: value for name, value in named.items() if value is not None}
    return list(make_logits_processors(logit_bias=bias, **given))
