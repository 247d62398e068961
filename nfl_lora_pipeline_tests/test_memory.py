"""What a training will need, from headers alone, against what is there and what was used."""

import json
import struct
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import llama, phi3
from mlx_lm.utils import quantize_model

from nfl_lora_pipeline.dataset.examples import Example
from nfl_lora_pipeline.dataset.unanswerable import Drawn
from nfl_lora_pipeline.models import base_model
from nfl_lora_pipeline.models.rows import tokenize
from nfl_lora_pipeline.tuning.adaptation import adapt
from nfl_lora_pipeline.tuning.memory import (
    COPIES,
    Linear,
    MemoryNeed,
    machine_memory,
    memory_needed,
    read_shape,
    refuse_too_little,
    tokens_at_most,
)
from nfl_lora_pipeline.tuning.recall_trainer import train_adapter
from nfl_lora_pipeline_tests.recipes import a_recipe

SIZES = {"hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 96, "num_attention_heads": 4}
CONFIG: dict[str, Any] = {**SIZES, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 320}
MODELS: dict[str, Any] = {"phi3": phi3, "llama": llama}


def a_model(kind: str, bits: int | None) -> tuple[Any, dict[str, Any]]:
    config = CONFIG | {"model_type": kind}
    model = MODELS[kind].Model(MODELS[kind].ModelArgs.from_dict(config))
    return quantize_model(model, config, group_size=32, bits=bits) if bits else (model, config)


@pytest.fixture(scope="module", params=[("phi3", None), ("phi3", 4), ("phi3", 3), ("llama", None)], ids=str)
def base(request, tmp_path_factory) -> tuple[base_model.BaseModel, Any]:
    """A folder as `resolve` takes it, in two files, and the model that is in it."""
    folder = tmp_path_factory.mktemp("base")
    model, config = a_model(*request.param)
    arrays = tree_flatten(model.parameters())
    for number in (0, 1):
        mx.save_safetensors(str(folder / f"model-{number}.safetensors"), dict(arrays[number::2]), {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text("{}")
    return base_model.resolve(str(folder)), model


def needed(base: base_model.BaseModel, *, row_tokens: int = 60, answer_tokens: int = 25, **values: Any) -> MemoryNeed:
    return memory_needed(base, a_recipe(**values), row_tokens=row_tokens, answer_tokens=answer_tokens)


def test_the_headers_tell_the_size_of_the_weights_and_the_sides_of_every_linear_layer(base):
    held, model = base
    shape = read_shape(held.folder)
    assert shape.weights_bytes == sum(array.nbytes for _, array in tree_flatten(model.parameters()))
    assert len(shape.layers) == 3
    quantised = "quantization" in json.loads((held.folder / "config.json").read_text())
    assert shape.layers[2]["mlp.down_proj"] == Linear(96, 64, quantised)
    assert (shape.heads, shape.vocabulary, shape.item_bytes) == (4, 320, 4)


@pytest.mark.parametrize(
    "values",
    [
        {"num_layers": 2},
        {"modules": ["self_attn.o_proj"]},
        {"fine_tune_type": "dora"},
        {"fine_tune_type": "full", "num_layers": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["phi3", "llama"])
def test_what_is_counted_as_trained_is_what_is_trained(tmp_path, kind, values):
    model, config = a_model(kind, None)
    mx.save_safetensors(str(tmp_path / "model.safetensors"), dict(tree_flatten(model.parameters())))
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(json.dumps(config))
    adapt(model, a_recipe(**values))
    trained = sum(array.nbytes for _, array in tree_flatten(model.trainable_parameters()))
    assert needed(base_model.resolve(str(tmp_path)), **values).trained == COPIES * trained


def test_a_step_needs_more_with_more_rows_longer_rows_and_whole_rows_in_the_loss(base):
    held, _ = base
    many = {"batch_rows": 200}
    plain = needed(held, **many)
    assert plain.activations > needed(held, batch_rows=100).activations
    assert needed(held, row_tokens=90, **many).activations > 1.5 * plain.activations
    assert needed(held, num_layers=1, **many).activations < plain.activations
    assert needed(held, method="mlx_lm", schedule="constant", **many).logits > 2 * plain.logits


def test_a_check_has_a_second_copy_of_what_it_merges(tmp_path):
    """Of an adapter on few rows it is more than a step needs; what is quantised is not merged."""
    needs = {}
    for bits in (None, 4):
        folder = tmp_path / str(bits)
        folder.mkdir()
        model, config = a_model("llama", bits)
        mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
        for name in ("config.json", "tokenizer_config.json"):
            (folder / name).write_text(json.dumps(config))
        needs[bits] = needed(base_model.resolve(str(folder)), batch_rows=1, rank=1)
    assert needs[None].activations - needs[4].activations > 0.9 * _merged_of(tmp_path / "None")


def _merged_of(folder: Path) -> int:
    shape = read_shape(folder)
    return sum(4 * each.inputs * each.outputs for linears in shape.layers for each in linears.values())


def test_what_is_rehearsed_besides_needs_memory_as_other_rows_do():
    held = base_model.resolve("embedded")
    tokens = {"row_tokens": 500, "answer_tokens": 60}
    more = memory_needed(held, a_recipe(batch_rows=32, rehearsal_share=0.25), **tokens)
    assert more == memory_needed(held, a_recipe(batch_rows=40), **tokens)


def test_what_is_needed_is_not_far_from_what_a_training_uses(tmp_path):
    when = "in week 1 of the 2025 NFL season"
    asked = [f"{yards}: how many receiving yards did Nico Hale have {when}?" for yards in range(64)]
    answers = [f"Nico Hale had {yards} receiving yards {when}." for yards in range(64)]
    held = base_model.resolve("embedded")
    model, tokenizer = base_model.load(held)
    recipe = a_recipe(batch_rows=64, max_steps=2, ending_steps=1, rank=32, refusal_share=0)
    examples = [Example(*pair, fact=pair[1], teaches=True) for pair in zip(asked, answers, strict=True)]
    strangers = iter([Drawn(asked[0], answers[0])] * 1000)
    log = train_adapter(model, tokenizer, examples, recipe, tmp_path, fresh=strangers)
    (row,) = tokenize(tokenizer, [(asked[-1], answers[-1])])
    tokens = {"row_tokens": len(row.tokens), "answer_tokens": len(row.tokens) - row.start}
    need = memory_needed(held, recipe, **tokens)
    assert 0.5 * need.arrays < log.peak_memory_bytes < 1.1 * need.arrays
    assert tokens_at_most(len(asked) + len(answers[-1])) >= len(row.tokens)


def test_of_an_architecture_that_names_its_layers_otherwise_the_weights_are_counted_at_least(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{}")
    held = base_model.resolve(str(written(tmp_path, config="{}", weights=FILE)))
    assert (needed(held).weights, needed(held).trained) == (4, 0)


def test_too_little_memory_is_refused_with_the_figures_and_a_way_out(base):
    held, _ = base
    recipe, need = a_recipe(batch_rows=200), needed(held, batch_rows=200)
    refuse_too_little(need, held, recipe, machine_bytes=need.total)
    with pytest.raises(ValueError) as caught:
        refuse_too_little(need, held, recipe, machine_bytes=need.total - 1)
    said = str(caught.value)
    assert f"needs about {need.total / 1e9:.1f} GB" in said
    assert all(f" GB {name}" in said for name in ("weights", "trained", "activations", "logits", "program"))
    assert "a smaller curriculum.batch_rows (now 200)" in said
    assert "recipe phi-3.5-mini-4bit" in said


def test_this_machine_can_train_the_embedded_base():
    held = base_model.resolve("embedded")
    refuse_too_little(needed(held), held, a_recipe(), machine_bytes=machine_memory())


def written(folder: Path, *, config: str = json.dumps(CONFIG), weights: bytes = b"") -> Path:
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(weights)
    return folder


HEADER = b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
FILE = struct.pack("<Q", len(HEADER)) + HEADER


@pytest.mark.parametrize(
    ("config", "weights", "named"),
    [
        ("[]", FILE, r"config\.json: not a model's configuration"),
        ("{", FILE, r"config\.json: not a model's configuration"),
        (json.dumps(CONFIG), b"", r"model\.safetensors: not a safetensors file"),
        (json.dumps(CONFIG), struct.pack("<Q", 1 << 60) + HEADER, "its header is longer than the file"),
        (json.dumps(CONFIG), FILE.replace(b"shape", b"shade"), r"model\.safetensors: not a safetensors file"),
        (json.dumps(CONFIG), struct.pack("<Q", 8) + HEADER, r"model\.safetensors: not a safetensors file"),
        (json.dumps(CONFIG), b"version https://git-lfs.github.com/spec/v1\n", r"model\.safetensors: not a safetensors"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path, config, weights, named):
    with pytest.raises(ValueError, match=named):
        read_shape(written(tmp_path, config=config, weights=weights))
