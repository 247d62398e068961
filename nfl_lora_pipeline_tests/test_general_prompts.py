import math

import pytest
from mlx import nn

from nfl_lora_pipeline.evaluation.metrics import BeforeAndAfter, ChangedAnswer
from nfl_lora_pipeline.models.prompt import general_prompts
from nfl_lora_pipeline.models.rows import to_batch, tokenize
from nfl_lora_pipeline.models.scoring import perplexity
from nfl_lora_pipeline.reports.evaluate import answers_in_general, compare_in_general

ASKED_IN_GENERAL = general_prompts("asked")
ASKED = ["How many targets did Marcus Hale have in week 1 of the 2025 NFL season?", "Name three primary colours."]
ANSWERS = ["In week 1 of the 2025 NFL season, the targets of Marcus Hale are not recorded.", "red, yellow, blue"]


def test_the_requests_are_short_and_different_and_none_that_is_asked_is_rehearsed():
    texts = [*ASKED_IN_GENERAL, *general_prompts("rehearsed")]
    assert len({text.casefold() for text in texts}) == len(texts)
    assert (len(ASKED_IN_GENERAL), len(general_prompts("rehearsed"))) == (20, 64)
    assert all(isinstance(text, str) and 10 < len(text) < 110 for text in texts)


def test_perplexity_is_that_of_the_answers_tokens_without_their_end(embedded):
    model, tokenizer = embedded
    losses = []
    for row in tokenize(tokenizer, zip(ASKED, ANSWERS, strict=True)):
        batch = to_batch([row])
        of_row = nn.losses.cross_entropy(model(batch.tokens)[0, row.start - 1 : -1], batch.tokens[0, row.start :])
        losses += of_row.tolist()
    expected = math.exp(sum(losses) / len(losses))
    assert perplexity(model, tokenizer, ASKED, ANSWERS) == pytest.approx(expected, rel=1e-3)
    assert (
        perplexity(model, tokenizer, ASKED[:1], ANSWERS[:1])
        < 1.5
        < perplexity(model, tokenizer, ASKED[1:], ANSWERS[1:])
    )


def test_an_empty_answer_counts_for_nothing(embedded):
    model, tokenizer = embedded
    with_empty = perplexity(model, tokenizer, ASKED, [ANSWERS[0], ""])
    assert with_empty == perplexity(model, tokenizer, ASKED[:1], ANSWERS[:1])
    assert perplexity(model, tokenizer, ASKED[:1], [""]) == 1.0


def test_a_model_that_has_not_changed_has_not_drifted(embedded):
    said, chance = answers_in_general(*embedded)
    assert len(said) == len(ASKED_IN_GENERAL)
    same = compare_in_general(said, chance, *embedded)
    assert same.perplexity == BeforeAndAfter(base=chance, tuned=chance)
    assert (same.changed.right, same.worst) == (0, [])
    drifted = compare_in_general(["something else", *said[1:]], chance, *embedded)
    assert drifted.changed.right == 1
    assert drifted.worst == [ChangedAnswer(question=ASKED_IN_GENERAL[0], base="something else", tuned=said[0])]
