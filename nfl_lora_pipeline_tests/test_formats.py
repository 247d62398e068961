"""An adapter in the forms of PEFT and llama.cpp: the same update, and the same answers where the engine is there."""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner
from mlx.utils import tree_flatten
from safetensors.numpy import load_file

from nfl_lora_pipeline.adapters import formats
from nfl_lora_pipeline.adapters.export import FORMATS, fuse_layers
from nfl_lora_pipeline.adapters.formats import read_lora, write_gguf, write_peft
from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.models import base_model
from nfl_lora_pipeline.models.base_model import BaseModel
from nfl_lora_pipeline.tuning.adaptation import adapt
from nfl_lora_pipeline_tests import gguf_files
from nfl_lora_pipeline_tests.conftest import BENCH_PYTHON
from nfl_lora_pipeline_tests.recipes import a_recipe

QUESTIONS = ["the yards in week 12", "the", "in the yards of 2025?"]


class Made(NamedTuple):
    """A base with an adapter that says something, and the folder of that adapter."""

    base: BaseModel
    model: Any
    tokenizer: Any
    adapter: Path


def adapted(base: BaseModel, folder: Path, **values: Any) -> Made:
    model, tokenizer = base_model.load(base)
    config = adapt(model, a_recipe(scale=3.0, **values))
    mx.random.seed(1)
    drawn = [(name, mx.random.normal(array.shape) * 0.2) for name, array in tree_flatten(model.trainable_parameters())]
    model.load_weights(drawn, strict=False)
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapters.safetensors"), dict(drawn))
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return Made(base, model.eval() or model, tokenizer, folder)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A small model of a family, read from a GGUF file, with an adapter."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def made(family: str, **values: Any) -> Made:
        file = gguf_files.write(tmp_path / "small.gguf", family, gguf_files.random_model(family))
        return adapted(base_model.resolve(str(file)), tmp_path / "adapter", **values)

    return made


def tensors(file: Path) -> dict[str, np.ndarray]:
    return {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(file).tensors}


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma3"])
def test_the_update_in_a_gguf_file_is_what_the_merged_model_has_more_than_its_base(tmp_path, small, family):
    made = small(family)
    before = tensors(tmp_path / "small.gguf")
    write_gguf(made.adapter, made.base, tmp_path / "adapter.gguf")
    fuse_layers(made.model)
    after = tensors(gguf_files.write(tmp_path / "merged.gguf", family, made.model))
    update = tensors(tmp_path / "adapter.gguf")
    alpha = gguf.GGUFReader(tmp_path / "adapter.gguf").fields["adapter.lora.alpha"].contents()
    names = {name.removesuffix(".lora_a") for name in update if name.endswith(".lora_a")}
    assert {name for name in before if not np.array_equal(before[name], after[name])} == names
    for name in names:
        a, b = update[f"{name}.lora_a"], update[f"{name}.lora_b"]
        assert np.allclose(after[name] - before[name], alpha / a.shape[0] * b @ a, atol=1e-4), name


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_llama_cpp_answers_with_the_adapter_as_mlx_does(small, family):
    pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")
    made = small(family, num_layers=1)
    expected = base_model.answer(made.model, made.tokenizer, QUESTIONS)
    plain = base_model.answer(*base_model.load(made.base), QUESTIONS)
    replies = formats.ask("llama.cpp", made.base, made.adapter, made.tokenizer, QUESTIONS)
    # llama.cpp keeps keys and values in 16 bits, and what follows a random model's first tokens hangs on a hair.
    found, wanted, without = ([answer[:6] for answer in each] for each in (replies.answers, expected, plain))
    assert found == wanted
    assert found != without, "the adapter makes a difference"


def test_peft_has_both_matrices_transposed_and_the_scale_as_alpha(tmp_path, small):
    made = small("llama", num_layers=1)
    lora = read_lora(made.adapter)
    folder = tmp_path / "peft"
    folder.mkdir()
    write_peft(made.adapter, made.base.name, folder)
    found, trained = (
        load_file(folder / "adapter_model.safetensors"),
        dict(tree_flatten(made.model.trainable_parameters())),
    )
    assert len(found) == len(trained) == 2 * len(lora.layers)
    for name, array in found.items():
        path, side = name.removeprefix("base_model.model.").removesuffix(".weight").rsplit(".", 1)
        assert np.array_equal(array, np.array(trained[f"{path}.{side.lower()}"]).T)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 12)
    assert set(config["target_modules"]) == set(lora.layers)
    assert {path.split(".")[2] for path in lora.layers} == {"1"}, "the upper layer alone"


def test_peft_answers_as_mlx_does(tmp_path):
    if not BENCH_PYTHON.exists():
        pytest.skip("torch and peft are not installed: make bench-setup")
    made = adapted(base_model.resolve("embedded"), tmp_path / "adapter")
    questions = ["How many receiving yards did Amari Stone have in week 1 of the 2025 NFL season?", *QUESTIONS]
    expected = base_model.answer(made.model, made.tokenizer, questions)
    replies = formats.ask("peft", made.base, made.adapter, made.tokenizer, questions, python=str(BENCH_PYTHON))
    assert replies.answers == expected
    assert replies.engine.startswith("peft ")


@pytest.mark.parametrize("kind", ["dora", "full"])
@pytest.mark.parametrize("write", [write_peft, write_gguf])
def test_what_is_no_lora_is_refused_with_the_form_that_it_has(tmp_path, small, kind, write):
    made = small("llama", fine_tune_type=kind)
    with pytest.raises(ValueError, match=rf"fine_tune_type: '{kind}'.*export with --format fused"):
        write(made.adapter, made.base, tmp_path / "form")


def test_the_embedded_base_has_no_gguf_adapter_and_says_why(tmp_path):
    made = adapted(base_model.resolve("embedded"), tmp_path / "adapter")
    with pytest.raises(ValueError, match=r"does not know the tokenizer of the embedded base: use --format mlx"):
        write_gguf(made.adapter, made.base, tmp_path / "adapter.gguf")
    assert not (tmp_path / "adapter.gguf").exists()


def test_every_form_is_one_that_the_command_offers():
    shown = CliRunner().invoke(main, ["export", "--help"]).output
    assert f"[{'|'.join([*FORMATS, 'fused'])}]" in shown


@pytest.mark.parametrize("form", FORMATS)
def test_a_form_is_exported_with_a_card_that_says_how_to_use_it(tmp_path, trained_store, form):
    command = ["export", str(tmp_path / "out"), "--format", form, "--store", str(trained_store.store.root)]
    done = CliRunner().invoke(main, [*command, "--adapter", trained_store.store.latest()])
    if form == "gguf":
        assert "does not know the tokenizer" in done.output + str(done.exception)
        assert not (tmp_path / "out").exists()
        return
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "base" / "config.json").is_file()
    card = (tmp_path / "out" / "README.md").read_text()
    assert {"mlx": "mlx_lm.generate", "peft": "peft.PeftModel"}[form] in card
    front = base_model.card_of(tmp_path / "out")
    assert (front["library_name"], front["license"], front["pipeline_tag"]) == (form, "mit", "text-generation")
    summary = trained_store.summary
    assert all(f"> {each['question']}" in card and f"> {each['tuned']}" in card for each in summary["questions"])
    for part in ("## Recall", "## Limits", "## Examples", "## Use", "trained"):
        assert part in card
    wrong = sum(each["wrong"] for each in summary["sureness"]["held_back"])
    assert wrong > 0
    assert f"Other engines say them: {wrong:,} more wrong ones" in card


def test_an_exported_gguf_has_its_base_beside_it_and_a_modelfile_for_ollama(tmp_path, small):
    made, folder = small("llama"), tmp_path / "out"
    folder.mkdir()
    FORMATS["gguf"].write(made.adapter, made.base.name, folder)
    assert (folder / "base.gguf").read_bytes() == (tmp_path / "small.gguf").read_bytes()
    lines = (folder / "Modelfile").read_text().splitlines()
    assert lines[1:3] == ["FROM ./base.gguf", "ADAPTER ./adapter.gguf"]
    assert "and does not use it" in FORMATS["gguf"].use(made.base.name).replace("\n", " ")


def test_an_engine_that_is_not_there_is_named_with_how_to_get_it(tmp_path, small):
    made = small("llama")
    with pytest.raises(ValueError, match="peft is not installed for") as caught:
        formats.ask(
            "peft", made.base, made.adapter, made.tokenizer, QUESTIONS, python=python_without_packages(tmp_path)
        )
    assert "pip install 'nfl-lora-pipeline[peft]', or name an interpreter" in str(caught.value)
    with pytest.raises(ValueError, match="cannot be run"):
        formats.ask("peft", made.base, made.adapter, made.tokenizer, QUESTIONS, python=str(tmp_path / "nowhere"))


def python_without_packages(folder: Path) -> str:
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    script.chmod(0o755)
    return str(script)
