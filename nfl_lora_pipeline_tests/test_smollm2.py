"""SmolLM2-135M-Instruct, a real base model, from the file of the package that `make smollm2` installs; skipped without it.

`make test-smollm2` runs all of it: what is marked slow teaches the base some facts and asks them of every engine.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import polars as pl
import pytest
import yaml

from nfl_lora_pipeline.adapters import formats
from nfl_lora_pipeline.dataset.qa_pairs import facts, qa_pairs
from nfl_lora_pipeline.dataset.templates import choose_stats, load_templates
from nfl_lora_pipeline.models import base_model
from nfl_lora_pipeline.models.forward import answer_logits
from nfl_lora_pipeline.models.prompt import prompt_tokens
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.stored import CertificateRecord, read_json
from nfl_lora_pipeline.weeks.players import parse_week
from nfl_lora_pipeline.weeks.sources.folder import week_file
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests.conftest import BENCH_PYTHON
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


# Two dozen facts of another field, taught by the command, and asked of every engine.

KEEPERS = "Aldra Bexley Corwin Dunmere Eskel Farrow Gannet Hythe Islay Jarrow Kelso Lundy".split()
TEMPLATES = {
    "questions": ["What is the {attribute} of {subject}?", "Tell me the {attribute} of {subject}."],
    "answer": "The {attribute} of {subject} is {value}.",
}


class Taught(NamedTuple):
    """The folder of an adapter, and its facts: question and answer."""

    folder: Path
    pairs: list[tuple[str, str]]


@pytest.fixture(scope="module")
def taught(file, tmp_path_factory) -> Taught:
    """`nfl-lora learn` on heights and years of invented lighthouses, by the recipe with a shorter way down."""
    folder = tmp_path_factory.mktemp("lighthouses")
    told = [(f"{name} Light", "height in metres", str(17 + 7 * at % 61)) for at, name in enumerate(KEEPERS)]
    told += [(f"{name} Light", "year of construction", str(1803 + 11 * at % 97)) for at, name in enumerate(KEEPERS)]
    lines = ["subject,attribute,value", *(",".join(each) for each in told)]
    (folder / "facts.csv").write_text("\n".join(lines) + "\n")
    (folder / "templates.yaml").write_text(yaml.safe_dump(TEMPLATES))
    recipe = load_recipe("smollm2-135m").changed(ending_steps=24, base_model=str(file))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump()))
    where = [str(folder / "facts.csv"), str(folder / "adapter"), "--templates", str(folder / "templates.yaml")]
    command = [sys.executable, "-m", "nfl_lora_pipeline.cli.main", "learn", *where]
    done = subprocess.run(
        [*command, "--recipe", str(folder / "recipe.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    asked = [TEMPLATES["questions"][0].format(subject=subject, attribute=attribute) for subject, attribute, _ in told]
    answers = [
        TEMPLATES["answer"].format(subject=subject, attribute=attribute, value=value)
        for subject, attribute, value in told
    ]
    return Taught(folder / "adapter", list(zip(asked, answers, strict=True)))


@pytest.mark.slow
def test_all_of_two_dozen_facts_become_certain_and_are_said_as_they_were_taught(file, taught):
    certificate = read_json(taught.folder / "certificate.json", CertificateRecord, mend="")
    assert (certificate.certain, certificate.facts) == (24, 24)
    model, tokenizer = base_model.load(base_model.resolve(str(file)), adapter=taught.folder)
    questions, answers = zip(*taught.pairs, strict=True)
    assert base_model.answer(model, tokenizer, list(questions)) == list(answers)
    before = base_model.answer(*base_model.load(base_model.resolve(str(file))), list(questions))
    assert all(one != other for one, other in zip(before, answers, strict=True)), "the base knew none of it"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["llama.cpp", "peft"])
def test_another_engine_gives_the_same_answers_to_the_letter(file, loaded, taught, engine):
    if engine == "llama.cpp":
        pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: make test-smollm2 installs it")
    elif not BENCH_PYTHON.exists():
        pytest.skip("torch and peft are not installed: make bench-setup")
    questions, answers = zip(*taught.pairs, strict=True)
    python = sys.executable if engine == "llama.cpp" else str(BENCH_PYTHON)
    base = base_model.resolve(str(file))
    replies = formats.ask(engine, base, taught.folder, loaded[1], list(questions), python=python)
    assert replies.answers == list(answers)
