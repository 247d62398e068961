"""Questions answered one by one, token by token, as somebody who waits for the answer has it, and what that costs.

An answer about a recorded fact is right when its one number is; a question about a stranger is to be refused.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from nfl_lora_pipeline.exam.scoring import is_refusal, number_in
from nfl_lora_pipeline.models.prompt import ANSWER_TOKENS, prompt_tokens

Said = tuple[str, int, int]  # the text, tokens of the prompt, tokens of the answer
Retrieve = Callable[[str], Sequence[str]]  # from a question to the sentences to put before it


@dataclass
class Way:
    """One way to an answer, and how it fared.

    Attributes:
        name: in words.
        kind: who answers: "table", "base" or "tuned".
        asked: questions about recorded facts and about strangers; both 0 where `note` says why it was not tried.
        right: the share of recorded facts whose number is right.
        refused: the share of strangers about whom no number is given.
        prompt_tokens, output_tokens: the means.
        seconds: for an answer, `p50` and `p95`.
        peak_memory_bytes: of MLX's arrays, the model among them; of the table, its own size.
    """

    name: str
    kind: str
    asked: dict[str, int] = field(default_factory=lambda: {"facts": 0, "strangers": 0})
    right: float | None = None
    refused: float | None = None
    prompt_tokens: float = 0
    output_tokens: float = 0
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    note: str = ""


class OneByOne:
    """A model of `mlx_lm.load` that is asked one question at a time, greedily."""

    def __init__(self, model: Any, tokenizer: Any):
        self.model, self.tokenizer = model, tokenizer

    def prompt(self, text: str) -> list[int]:
        """The tokens of a chat with this text as its question."""
        return prompt_tokens(self.tokenizer, [{"role": "user", "content": text}])

    def tokens(self, sentences: Sequence[str]) -> int:
        """About how many tokens these sentences have."""
        return sum(len(self.tokenizer.encode(sentence, add_special_tokens=False)) for sentence in sentences)

    def ask(self, text: str) -> Said:
        """Answer one question."""
        from mlx_lm import stream_generate

        parts = list(stream_generate(self.model, self.tokenizer, self.prompt(text), max_tokens=ANSWER_TOKENS))
        return "".join(part.text for part in parts).strip(), parts[-1].prompt_tokens, parts[-1].generation_tokens

    def fared(self, way: Way, asked: pl.DataFrame, retrieve: Retrieve) -> Way:
        """Answer every question with what is retrieved for it, and fill in how the way fared."""
        import mlx.core as mx

        def ask(question: str) -> Said:
            return self.ask(with_context(retrieve(question), question))

        ask(asked["question"][0])  # what is made at the first question is not part of an answer's time
        mx.clear_cache()
        mx.reset_peak_memory()
        fared(way, asked, ask)
        way.peak_memory_bytes = mx.get_peak_memory()
        return way


def device() -> str:
    """What MLX computes on: "cpu" or "gpu"."""
    import mlx.core as mx

    return "gpu" if mx.default_device() == mx.Device(mx.gpu) else "cpu"


def with_context(sentences: Sequence[str], question: str) -> str:
    """What there is to read, then the question, as the embedded base learnt to read."""
    return " ".join([*sentences, question])


def fared(way: Way, asked: pl.DataFrame, ask: Callable[[str], Said]) -> Way:
    """Fill in how a way fared with questions: `question`, `kind` ("recorded" or "stranger") and `value`."""
    said: list[tuple[str, int, int, float]] = []
    for question in asked["question"]:
        started = time.perf_counter()
        said.append((*ask(question), time.perf_counter() - started))
    answers = pl.DataFrame(said, schema=["text", "prompt", "output", "seconds"], orient="row")
    scored = asked.select("kind", "value").with_columns(
        answers,
        number=pl.Series([number_in(text) for text in answers["text"]], dtype=pl.Float64),
        refusal=pl.Series([is_refusal(text) for text in answers["text"]], dtype=pl.Boolean),
    )
    facts, strangers = (scored.filter(pl.col("kind") == kind) for kind in ("recorded", "stranger"))
    way.asked = {"facts": facts.height, "strangers": strangers.height}
    way.right = _mean((facts["number"] == facts["value"]).fill_null(False))
    way.refused = _mean(strangers["refusal"])
    way.prompt_tokens, way.output_tokens = _mean(answers["prompt"]) or 0.0, _mean(answers["output"]) or 0.0
    seconds = answers["seconds"]
    way.seconds = {"p50": float(seconds.quantile(0.5) or 0.0), "p95": float(seconds.quantile(0.95) or 0.0)}
    return way


def _mean(values: pl.Series) -> float | None:
    return None if values.is_empty() else float(values.mean())  # type: ignore[arg-type]
