"""What a model answers, and how much of it is right.

Greedy decoding gives the reference answer if and only if each of its tokens is the arg-max when the ones before it are
given. One forward pass over question and answer therefore settles a whole batch of questions; only where neither the
reference answer nor the refusal comes out is an answer generated token by token.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import polars as pl
from mlx import nn
from mlx.utils import tree_unflatten
from mlx_lm.tuner.lora import LoRALinear
from numpy.typing import NDArray

from nfl_lora_pipeline.models.base_model import READ_TOGETHER, Model
from nfl_lora_pipeline.models.base_model import answer as generate_answers
from nfl_lora_pipeline.models.forward import FrozenStates, answer_logits, streams, token_losses
from nfl_lora_pipeline.models.machine import divided_cores
from nfl_lora_pipeline.models.prompt import ANSWER_TOKENS, Tokenizer
from nfl_lora_pipeline.models.rows import Batch, TokenRow, answer_text, by_length, to_batch, tokenize
from nfl_lora_pipeline.progress import Silence


@contextmanager
def merged(model: Model) -> Iterator[None]:
    """Merge for the block; what is quantised stays as it is, and so do DoRA layers, which are rare and slow to merge."""
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, LoRALinear) and type(module.linear) is nn.Linear
    ]
    made = [(name, module.fuse()) for name, module in layers]
    mx.eval([module.parameters() for _, module in made])
    model.update_modules(tree_unflatten(made))
    try:
        yield
    finally:
        model.update_modules(tree_unflatten(layers))


BATCH_TOKENS = 1500
GENERATE_ROWS = 64


@dataclass(frozen=True)
class Certainty:
    """For each row, in order: whether greedy decoding gives its answer, and how probable that is.

    Attributes:
        greedy: (N,) bool.
        lowest: (N,) float64, the probability of the answer's least probable token.
        whole: (N,) float64, of the answer as a whole: the product over its tokens, its end among them.
    """

    greedy: NDArray[np.bool_]
    lowest: NDArray[np.float64]
    whole: NDArray[np.float64]

    @classmethod
    def of_nothing(cls, rows: int) -> "Certainty":
        """What is known of so many rows before anything was asked."""
        return cls(np.zeros(rows, np.bool_), np.zeros(rows), np.zeros(rows))

    def put(self, rows: Sequence[int], found: "Certainty") -> None:
        """Enter what was found of some rows, which are given by their places."""
        self.greedy[rows], self.lowest[rows], self.whole[rows] = found.greedy, found.lowest, found.whole


def certainty(
    model: Model,
    rows: Sequence[TokenRow],
    *,
    frozen: FrozenStates | None = None,
    keys: Sequence[int] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Certainty:
    """Score answers by teacher forcing, without generating them.

    Args:
        model: a model of `mlx_lm.load`.
        rows: questions with their answers.
        frozen: what of the model is not trained, with what is kept of it; `keys` are those of the rows.
        progress: told after every batch how many of how many rows are done.
    """
    found = Certainty.of_nothing(len(rows))
    was_training = model.training
    model.eval()
    batches = list(by_length(rows, batch_tokens=BATCH_TOKENS))
    lanes, done = streams(), 0
    for first in range(0, len(batches), len(lanes)):
        scored = []
        for indices, stream in zip(batches[first : first + len(lanes)], lanes, strict=False):
            with mx.stream(stream):
                asked = [rows[index] for index in indices]
                batch = to_batch(asked)
                if frozen and frozen.layers:
                    batch = batch._replace(states=frozen.states(asked, [keys[index] for index in indices]))
                scored.append((indices, *_score(model, batch)))
        with divided_cores(len(lanes)):
            mx.eval(scored)
        for indices, hit, worst, total in scored:
            lowest, whole = (np.exp(-np.array(losses, np.float64)) for losses in (worst, total))
            found.put(indices, Certainty(np.array(hit), lowest, whole))
        done += sum(len(indices) for indices, *_ in scored)
        progress(done, len(rows))
    if was_training:
        model.train()
    return found


def _score(model: Model, batch: Batch) -> tuple[mx.array, mx.array, mx.array]:
    logits = answer_logits(model, batch.tokens, batch.wanted, batch.states, batch.alike)
    hit = (mx.argmax(logits, -1) == batch.targets) | (batch.weights == 0)
    losses = token_losses(logits, batch.targets) * batch.weights
    return hit.all(-1), losses.max(-1), losses.sum(-1)


def predict(
    model: Model,
    tokenizer: Tokenizer,
    asked: pl.DataFrame,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    as_it_is: bool = False,
) -> pl.DataFrame:
    """Answer questions greedily.

    Args:
        model: a model of `mlx_lm.load`.
        tokenizer: its tokenizer.
        asked: one row a question, with `question`, `answer` (the reference) and `refusal` (the refusal's words for it).
        progress: told how far it is, as if so many of so many questions were answered, now and again and at the end.
        as_it_is: ask them as they stand, blanks and all, as in `prompt.prompt_tokens`.

    Returns:
        `said` (what the model answers), `sure` (Float64, the probability of that answer as a whole) and `lowest` (Float64, the
        least probability of a token of the reference answer), one row a question, in order.
    """
    questions, answers, refusals = (asked[column].to_list() for column in ("question", "answer", "refusal"))
    said: list[str | None] = [None] * len(questions)
    told = _Told(progress, len(questions))
    sure = np.zeros(len(questions), np.float64)
    rows = tokenize(tokenizer, zip(questions, answers, strict=True), as_it_is=as_it_is)
    reference = certainty(model, rows, progress=told.part(0.0, 0.4))
    for row, index in _given(rows, reference):
        said[index], sure[index] = answer_text(tokenizer, row), reference.whole[index]
    open_rows = [index for index, text in enumerate(said) if text is None and refusals[index] != answers[index]]
    rows = tokenize(tokenizer, ((questions[index], refusals[index]) for index in open_rows), as_it_is=as_it_is)
    refused = certainty(model, rows, progress=told.part(0.4, 0.6))
    for row, place in _given(rows, refused):
        said[open_rows[place]], sure[open_rows[place]] = answer_text(tokenizer, row), refused.whole[place]
    open_rows = [index for index, text in enumerate(said) if text is None]
    generating = told.part(0.6, 1.0)
    for first in range(0, len(open_rows), GENERATE_ROWS):
        generating(first, len(open_rows))
        chunk = open_rows[first : first + GENERATE_ROWS]
        texts = generate_answers(model, tokenizer, [questions[i] for i in chunk], as_it_is=as_it_is)
        spoken = [(index, text) for index, text in zip(chunk, texts, strict=True) if text]
        rows = tokenize(tokenizer, ((questions[index], text) for index, text in spoken), as_it_is=as_it_is)
        sure[[index for index, _ in spoken]] = certainty(model, rows).whole
        for index, text in zip(chunk, texts, strict=True):
            said[index] = text
    progress(len(questions), len(questions))
    columns = {"said": said, "sure": sure, "lowest": reference.lowest}
    return pl.DataFrame(columns, schema={"said": pl.String, "sure": pl.Float64, "lowest": pl.Float64})


def generated(
    model: Model,
    tokenizer: Tokenizer,
    questions: Sequence[str],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """What a model answers, without a guess at it: sooner than `predict` where most guesses are wrong and reading takes long.

    Args:
        model: a model of `mlx_lm.load`.
        tokenizer: its tokenizer.
        questions: as somebody types them.
        progress: told how many of how many are answered, now and again and at the end.
    """
    said: list[str] = []
    told = _Told(progress, len(questions)).part(0.0, 1.0)
    for first in range(0, len(questions), READ_TOGETHER):
        told(first, len(questions))
        said += generate_answers(model, tokenizer, list(questions[first : first + READ_TOGETHER]))
    progress(len(questions), len(questions))
    return said


Progress = Callable[[int, int], None]


class _Told:
    """How far a work is that has parts, told when nothing was for long."""

    def __init__(self, progress: Progress, total: int):
        self.progress, self.total, self.silence = progress, total, Silence()

    def part(self, begin: float, end: float) -> Progress:
        """Takes how far a part is, which lies between two shares of the work."""

        def tell(done: int, of: int) -> None:
            if self.silence.is_long():
                self.silence.broken()
                self.progress(int(self.total * (begin + (end - begin) * done / of)), self.total)

        return tell


def _given(rows: Sequence[TokenRow], scored: Certainty) -> Iterator[tuple[TokenRow, int]]:
    """The rows whose answers generation gives, and not only their first `ANSWER_TOKENS`; each with its place."""
    for place in np.flatnonzero(scored.greedy).tolist():
        if len(rows[place].tokens) - rows[place].start <= ANSWER_TOKENS:
            yield rows[place], place


def probability(model: Model, tokenizer: Tokenizer, question: str, said: str) -> float:
    """How probable an answer that was given to a question is, as a whole and with its end; 0 where nothing was said."""
    return float(certainty(model, tokenize(tokenizer, [(question, said)])).whole[0]) if said else 0.0


def perplexity(model: Model, tokenizer: Tokenizer, asked: Sequence[str], answers: Sequence[str]) -> float:
    """exp of the mean cross-entropy of the answers' tokens; their end is left out, since answers are cut off.

    Args:
        model: a model of `mlx_lm.load`.
        tokenizer: its tokenizer.
        asked: the requests.
        answers: one for each; an empty one counts for nothing.
    """
    pairs = [(question, text) for question, text in zip(asked, answers, strict=True) if text]
    rows = [TokenRow(row.tokens[:-1], row.start) for row in tokenize(tokenizer, pairs)]
    total = count = 0.0
    for indices in by_length(rows, batch_tokens=BATCH_TOKENS):
        batch = to_batch([rows[index] for index in indices])
        logits = answer_logits(model, batch.tokens, batch.wanted, alike=batch.alike)
        losses = token_losses(logits, batch.targets) * batch.weights
        total += float(losses.sum())
        count += float(batch.weights.sum())
    return math.exp(total / count) if count else 1.0
