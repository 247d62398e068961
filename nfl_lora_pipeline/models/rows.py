"""Question/answer rows as token ids, and as the padded arrays of a batch."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from nfl_lora_pipeline.models.base_model import Model
from nfl_lora_pipeline.models.prompt import Tokenizer, answered_tokens


class TokenRow(NamedTuple):
    """Token ids of a chat with one question and its answer, which begins at `start` and weighs so much in a step's loss."""

    tokens: list[int]
    start: int
    weight: float = 1.0


class Batch(NamedTuple):
    """Arrays of B rows: `tokens` (B, T) int32; `wanted`, `targets` (B, A) int32 and `weights` (B, A) float32.

    T is one less than the longest row's length, A the longest answer's. `wanted` are the positions whose next token is an
    answer token, `targets` those tokens, and `weights` are the row's weight, and 0 behind its answer's end. `states`
    (B, T, H), where given, is what the layers that nothing is trained in make of the tokens. All rows begin with `alike`
    tokens in common, none of which is wanted.
    """

    tokens: mx.array
    wanted: mx.array
    targets: mx.array
    weights: mx.array
    states: mx.array | None = None
    alike: int = 0


def tokenize(tokenizer: Tokenizer, pairs: Iterable[tuple[str, str]], *, as_it_is: bool = False) -> list[TokenRow]:
    """Questions and answers as a chat, one `TokenRow` each: a prompt, and what must be generated after it.

    `as_it_is` is that of `prompt.prompt_tokens`.

    Raises:
        ValueError: see `prompt.answered_tokens`.
    """
    return [TokenRow(*answered_tokens(tokenizer, question, answer, as_it_is=as_it_is)) for question, answer in pairs]


def answer_text(tokenizer: Tokenizer, row: TokenRow) -> str:
    """What is printed where generation gives a row's answer."""
    return tokenizer.decode(row.tokens[row.start : -1]).strip()


def refuse_lossy(tokenizer: Tokenizer, rows: Sequence[TokenRow], answers: Iterable[str]) -> None:
    """Raise ValueError where a tokenizer does not give back an answer as it was, so that no training can make it right."""
    for row, answer in zip(rows, answers, strict=True):
        if (printed := answer_text(tokenizer, row)) != answer:
            raise ValueError(
                f"the tokenizer of this base model does not fit: {answer!r} comes out of it as {printed!r}; "
                "use another base model"
            )


def refuse_long(model: Model, rows: Sequence[TokenRow], questions: Iterable[str]) -> None:
    """Raise ValueError where a question and its answer are longer than what a base model reads."""
    limit = getattr(getattr(model, "args", None), "max_position_embeddings", None)
    for row, question in zip(rows, questions, strict=True):
        if limit and len(row.tokens) > limit:
            raise ValueError(
                f"{question[:60]!r} has {len(row.tokens):,} tokens with its answer, and this base model reads {limit:,}; "
                "make it shorter, or use another base model"
            )


def shared_tail(rows: Sequence[TokenRow]) -> list[int]:
    """The tokens that all answers end with alike, but for one that is left to every answer: they teach and tell little."""
    answers = [row.tokens[row.start :] for row in rows]
    shortest = min(len(answer) for answer in answers)
    alike = itertools.takewhile(lambda at: len({answer[-at] for answer in answers}) == 1, range(1, shortest))
    length = max(0, sum(1 for _ in alike) - 1)
    return answers[0][len(answers[0]) - length :]


def to_batch(rows: Sequence[TokenRow]) -> Batch:
    """Pad rows to the longest of them."""
    width = max(len(row.tokens) for row in rows) - 1
    answer = max(len(row.tokens) - row.start for row in rows)
    tokens = np.zeros((len(rows), width), np.int32)
    wanted, targets = np.zeros((2, len(rows), answer), np.int32)
    weights = np.zeros((len(rows), answer), np.float32)
    for i, row in enumerate(rows):
        length = len(row.tokens) - row.start
        tokens[i, : len(row.tokens) - 1] = row.tokens[:-1]
        wanted[i, :length] = range(row.start - 1, len(row.tokens) - 1)
        targets[i, :length] = row.tokens[row.start :]
        weights[i, :length] = row.weight
    arrays = (mx.array(tokens), mx.array(wanted), mx.array(targets), mx.array(weights))
    return Batch(*arrays, alike=_alike(tokens[:, : min(row.start for row in rows) - 1]))


def _alike(tokens: NDArray[np.int32]) -> int:
    """How many columns all rows begin with alike."""
    differs = (tokens != tokens[0]).any(0)
    return int(differs.argmax()) if differs.any() else len(differs)


def by_lanes(rows: Sequence[TokenRow], count: int) -> list[list[int]]:
    """Indices of `rows` in one batch, or (`count` 2) in two of about as many padded tokens, the shorter rows in the first."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].tokens))
    if count == 1 or len(rows) < 2:
        return [order]
    widths = [len(rows[index].tokens) for index in order]
    cut = min(range(1, len(rows)), key=lambda cut: max(cut * widths[cut - 1], (len(rows) - cut) * widths[-1]))
    return [order[:cut], order[cut:]]


def by_length(rows: Sequence[TokenRow], *, batch_tokens: int) -> Iterator[list[int]]:
    """Indices of `rows`, the shorter first, in batches of at most `batch_tokens` padded tokens (one row at least)."""
    batch: list[int] = []
    for index in sorted(range(len(rows)), key=lambda index: len(rows[index].tokens)):
        if batch and len(rows[index].tokens) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
