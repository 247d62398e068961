"""What a base that can talk in general says before and after it was taught: perplexity of its own answers, and drift."""

import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

from nfl_lora_pipeline.evaluation.metrics import BeforeAndAfter, ChangedAnswer, GeneralPrompts, share_of
from nfl_lora_pipeline.models.base_model import Model, answer
from nfl_lora_pipeline.models.forward import answer_logits, token_losses
from nfl_lora_pipeline.models.prompt import Tokenizer
from nfl_lora_pipeline.models.rows import TokenRow, by_length, to_batch, tokenize
from nfl_lora_pipeline.models.scoring import BATCH_TOKENS

PROMPTS_FILE = Path(str(files("nfl_lora_pipeline"))) / "general_prompts.yaml"


@cache
def prompts() -> list[str]:
    """The requests of `general_prompts.yaml`."""
    texts: list[str] = yaml.safe_load(PROMPTS_FILE.read_text(encoding="utf-8"))
    return texts


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
        losses = token_losses(answer_logits(model, batch.tokens, batch.wanted), batch.targets) * batch.weights
        total += float(losses.sum())
        count += float(batch.weights.sum())
    return math.exp(total / count) if count else 1.0


def before(model: Model, tokenizer: Tokenizer) -> tuple[list[str], float]:
    """The base's greedy answers to all requests, and its perplexity on them."""
    answers = answer(model, tokenizer, prompts())
    return answers, perplexity(model, tokenizer, prompts(), answers)


def compare(base_answers: list[str], base_perplexity: float, model: Model, tokenizer: Tokenizer) -> GeneralPrompts:
    """Hold the tuned model against what `before` gave."""
    answers = answer(model, tokenizer, prompts())
    changed = [
        ChangedAnswer(question, base, tuned)
        for question, base, tuned in zip(prompts(), base_answers, answers, strict=True)
        if base != tuned
    ]
    return GeneralPrompts(
        prompts=len(answers),
        perplexity=BeforeAndAfter(base_perplexity, perplexity(model, tokenizer, prompts(), base_answers)),
        changed=share_of(len(changed), len(answers)),
        worst=changed,
    )
