"""What a base that can talk in general says before and after it was taught: perplexity of its own answers, and drift."""

import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from nfl_lora_pipeline.evaluation.metrics import counted
from nfl_lora_pipeline.models.base_model import answer
from nfl_lora_pipeline.models.forward import answer_logits, token_losses
from nfl_lora_pipeline.models.rows import TokenRow, by_length, to_batch, tokenize
from nfl_lora_pipeline.models.scoring import BATCH_TOKENS

PROMPTS_FILE = Path(str(files("nfl_lora_pipeline"))) / "general_prompts.yaml"


@cache
def prompts() -> list[str]:
    """The requests of `general_prompts.yaml`."""
    texts: list[str] = yaml.safe_load(PROMPTS_FILE.read_text(encoding="utf-8"))
    return texts


def perplexity(model: Any, tokenizer: Any, asked: Sequence[str], answers: Sequence[str]) -> float:
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
        losses = token_losses(answer_logits(model, batch.tokens, batch.wanted), batch.targets) * batch.weights
        total += float(losses.sum())
        count += float(batch.weights.sum())
    return math.exp(total / count) if count else 1.0


def before(model: Any, tokenizer: Any) -> tuple[list[str], float]:
    """The base's greedy answers to all requests, and its perplexity on them."""
    said = answer(model, tokenizer, prompts())
    return said, perplexity(model, tokenizer, prompts(), said)


def compare(base_said: list[str], base_perplexity: float, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Hold the tuned model against what `before` gave.

    Returns:
        `prompts` (how many), `perplexity` of the base's answers under `base` and `tuned`, `changed` (the counted share of
        answers that are no longer the same to the letter) and `worst`: `question`, `base` and `tuned` of these.
    """
    said = answer(model, tokenizer, prompts())
    changed = [one != two for one, two in zip(base_said, said, strict=True)]
    told = zip(prompts(), base_said, said, changed, strict=True)
    return {
        "prompts": len(said),
        "perplexity": {"base": base_perplexity, "tuned": perplexity(model, tokenizer, prompts(), base_said)},
        "changed": counted(pl.Series(changed, dtype=pl.Boolean)),
        "worst": [{"question": asked, "base": one, "tuned": two} for asked, one, two, differs in told if differs],
    }
