"""SmolLM2-135M-Instruct, a real base model, from the file of the package that `make smollm2` installs; skipped without it."""

import importlib.util
from pathlib import Path

import mlx.core as mx
import numpy as np
import polars as pl
import pytest

from nfl_lora_pipeline.dataset.qa_pairs import facts, qa_pairs
from nfl_lora_pipeline.dataset.templates import choose_stats, load_templates
from nfl_lora_pipeline.models import base_model
from nfl_lora_pipeline.models.forward import answer_logits
from nfl_lora_pipeline.models.prompt import prompt_tokens
from nfl_lora_pipeline.weeks.players import parse_week
from nfl_lora_pipeline.weeks.sources.folder import week_file
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests.llama_cpp import running

PACKAGE, FILE_NAME = base_model.PACKAGED["HuggingFaceTB/SmolLM2-135M-Instruct"]


@pytest.fixture(scope="module")
def file() -> Path:
    """The package's file."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {PACKAGE} is not installed: make smollm2")
    return Path(spec.submodule_search_locations[0]) / FILE_NAME


@pytest.fixture(scope="module")
def loaded(file):
    """Model and tokenizer."""
    return base_model.load(base_model.resolve(str(file)))


@pytest.fixture(scope="module")
def questions(real_data) -> list[str]:
    """A thousand questions on real players."""
    week = NflWeek(2025, 1)
    players, _ = parse_week(week_file(real_data, week).read_bytes(), week=week, origin="week 1")
    stats = choose_stats(["receiving_yards", "receptions"])
    asked = qa_pairs(facts(players.lazy(), stats), load_templates()).select(
        pl.col("question").unique(maintain_order=True)
    )
    return asked.collect()["question"].to_list()[:1000]


def test_it_answers_a_question(loaded):
    assert base_model.answer(*loaded, ["What is the capital of France?"]) == ["The capital of France is Paris."]


def test_a_thousand_questions_have_the_ids_of_llama_cpp(file, loaded, questions):
    _, tokenizer = loaded
    assert len(questions) == 1000
    with running(file) as engine:
        for question in questions:
            tokens = prompt_tokens(tokenizer, [{"role": "user", "content": question}])
            assert tokens == engine.tokens(tokenizer.decode(tokens))
            assert f"user\n{question}<|im_end|>" in tokenizer.decode(tokens)


def test_the_next_token_is_llama_cpps(file, loaded, questions):
    model, tokenizer = loaded
    differences = []
    with running(file) as engine:
        for question in questions[::100]:
            tokens = prompt_tokens(tokenizer, [{"role": "user", "content": question}])
            logits = answer_logits(model, mx.array([tokens]), mx.array([[len(tokens) - 1]]))[0, 0]
            found, expected = np.array(logits - mx.logsumexp(logits)), engine.log_chances(tokens)
            assert found.argmax() == expected.argmax()
            differences.append(np.abs(found - expected).max())
    # llama.cpp rounds what goes into a quantised matrix to 8 bits; on the same weights as F32 the greatest difference is 0.015.
    assert max(differences) < 1.5
