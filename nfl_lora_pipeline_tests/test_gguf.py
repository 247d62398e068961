"""GGUF files as base models: what is read of them, and what is refused with a line."""

import json
import os
import struct
import subprocess
import sys
from dataclasses import replace

import gguf
import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from nfl_lora_pipeline.models import base_model
from nfl_lora_pipeline.models.base_model import BaseModelError
from nfl_lora_pipeline.models.prompt import answered_tokens, prompt_tokens
from nfl_lora_pipeline_tests import gguf_files
from nfl_lora_pipeline_tests.llama_cpp import running

TEXTS = [
    "the yards in week 12 of 2025",
    "  the  YARDS\n\nD'Andre's 7.5",
    "Amon-Ra St. Brown \u00e9\u4e2d",
    "<|im_end|>the",
]
# The greatest difference from the source, as a share of the greatest number of a row.
DIFFERENCES = {
    "F32": 0.0,
    "F16": 1e-3,
    "BF16": 1e-2,
    "Q8_0": 1 / 127,
    "Q5_0": 1 / 8,
    "Q5_1": 1 / 15,
    "Q4_0": 1 / 4,
    "Q4_1": 1 / 7,
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Converted files lie in a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "nfl-lora" / "gguf"


def loaded(file):
    return base_model.load(base_model.resolve(str(file)))


def weights(model):
    return dict(tree_flatten(model.parameters()))


def refused(file):
    with pytest.raises(BaseModelError) as caught:
        base_model.resolve(str(file))
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("family", gguf_files.FAMILIES)
def test_a_file_gives_the_weights_that_it_was_made_of(tmp_path, family):
    source = gguf_files.random_model(family)
    model, _ = loaded(gguf_files.write(tmp_path / "small.gguf", family, source))
    expected, found = weights(source), weights(model)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert mx.allclose(found[name], array, rtol=0, atol=1e-6 if family == "gemma3" else 0), name
    tokens = mx.array([[5, 9, 70, 30, 12, 11]])
    assert mx.allclose(model(tokens), source(tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", DIFFERENCES)
def test_a_quantised_file_gives_its_source_within_the_quantisation(tmp_path, kind):
    source = gguf_files.random_model("llama")
    model, _ = loaded(gguf_files.write(tmp_path / "small.gguf", "llama", source, kind))
    found = weights(model)
    for name, array in weights(source).items():
        greatest = mx.abs(array).max(-1, keepdims=True)
        assert found[name].dtype == mx.float32
        assert mx.all(mx.abs(found[name] - array) <= DIFFERENCES[kind] * greatest), name


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_k_quants_are_read_as_the_package_gguf_reads_them(tmp_path, kind):
    source = gguf_files.random_model("qwen2", hidden_size=256, intermediate_size=256, head_dim=64)
    file = gguf_files.write(tmp_path / "small.gguf", "qwen2", source, kind)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    found = weights(loaded(file)[0])
    for name in ("model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"):
        tensor = tensors[gguf_files.tensor_name("qwen2", name)]
        assert tensor.tensor_type.name == kind
        assert np.array_equal(np.array(found[name]), gguf.dequantize(tensor.data, tensor.tensor_type))
        assert 0 < np.abs(np.array(found[name])).max() < 100


def test_an_output_of_its_own_is_read(tmp_path):
    source = gguf_files.random_model("llama", tie_word_embeddings=False)
    model, _ = loaded(gguf_files.write(tmp_path / "small.gguf", "llama", source))
    assert mx.array_equal(model.lm_head.weight, source.lm_head.weight)


def test_the_scaling_of_llama_3_is_found_in_its_frequencies(tmp_path):
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    source = gguf_files.random_model("llama", rope_scaling=scaling)
    rope = source.model.layers[0].self_attn.rope
    divisors = np.array(rope._freqs) / 50_000.0 ** (np.arange(0, 16, 2) / 16)
    assert divisors.max() == pytest.approx(8.0)
    source.rope_freqs = {"weight": mx.array(divisors)}
    model, _ = loaded(gguf_files.write(tmp_path / "small.gguf", "llama", source))
    assert mx.allclose(model.model.layers[0].self_attn.rope._freqs, rope._freqs, rtol=1e-5)


@pytest.mark.parametrize("family", gguf_files.FAMILIES)
def test_ids_and_chances_are_those_of_llama_cpp(tmp_path, family):
    source = gguf_files.random_model(family)
    file = gguf_files.write(tmp_path / "small.gguf", family, source)
    model, tokenizer = loaded(file)
    with running(file) as engine:
        for text in TEXTS:
            tokens = tokenizer.encode(text, add_special_tokens=False)
            assert tokens == engine.tokens(text)
            expected = engine.log_chances(tokens)
            logits = model(mx.array([tokens]))[0, -1]
            found = np.array(logits - mx.logsumexp(logits))
            assert found.argmax() == expected.argmax()
            assert np.abs(found - expected).max() < (
                0.1 if family == "gemma3" else 0.01
            )  # its GELU is a table of halves there


def test_a_chat_is_written_by_the_files_template_and_ends_where_it_says(tmp_path):
    _, tokenizer = loaded(gguf_files.write(tmp_path / "small.gguf", "llama", gguf_files.random_model("llama")))
    prompt = prompt_tokens(tokenizer, [{"role": "user", "content": "the yards"}])
    assert tokenizer.decode(prompt) == "<|im_start|>user\nthe yards<|im_end|>\n<|im_start|>assistant\n"
    tokens, start = answered_tokens(tokenizer, "the yards", "in 12")
    assert start == len(prompt)
    assert tokenizer.decode(tokens[start:]) == "in 12<|im_end|>"
    assert tokenizer.eos_token_ids == {1}


def test_a_file_is_converted_once_and_known_by_its_content(tmp_path, cache):
    file = gguf_files.write(tmp_path / "small.gguf", "llama", gguf_files.random_model("llama"))
    lines: list[str] = []
    first = base_model.resolve(str(file), report=lines.append)
    assert base_model.resolve(str(file), report=lines.append) == first
    assert len(lines) == 1
    assert first.folder.parent == cache
    assert first.name == str(file)
    assert base_model.gguf_of(first) == file
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(file.read_bytes())
    assert base_model.resolve(str(copy), report=lines.append).revision == first.revision
    assert len(lines) == 1
    gguf_files.write(file, "llama", gguf_files.random_model("llama"), llama__rope__freq_base=10_000.0)
    assert base_model.resolve(str(file)).revision != first.revision


def test_a_base_that_was_no_gguf_file_has_none_though_a_package_has_one():
    embedded = base_model.resolve("embedded")
    hub = replace(embedded, name="HuggingFaceTB/SmolLM2-135M-Instruct")
    assert base_model.gguf_of(embedded) is None
    assert base_model.gguf_of(hub) is None


def test_what_cannot_be_converted_leaves_no_folder(tmp_path, cache):
    refused(gguf_files.write(tmp_path / "x.gguf", "llama", gguf_files.random_model("llama"), llama__block_count=3))
    assert [path for path in cache.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"general__architecture": "mamba"}, "general.architecture: 'mamba', not one of llama, qwen2, qwen3, gemma3"),
        ({"llama__attention__head_count": None}, "llama.attention.head_count: the file has no such field"),
        ({"llama__attention__head_count": "four"}, "llama.attention.head_count: 'four', not int"),
        ({"llama__attention__head_count_kv": [2, 1]}, "llama.attention.head_count_kv: [2, 1], not int"),
        ({"llama__block_count": 0}, "llama.block_count: 0, not a whole number above 0"),
        ({"llama__block_count": 3}, "tensor 'blk.2.attn_q.weight' is missing"),
        ({"llama__block_count": 1}, "tensor 'blk.1.attn_k.weight' has no place in a model of the family llama"),
        (
            {"llama__feed_forward_length": 48},
            "tensor 'blk.0.ffn_gate.weight': (96, 64), not (48, 64) as the fields say",
        ),
        ({"llama__expert_count": 8}, "llama.expert_count: 8, a mixture of experts"),
        ({"llama__rope__dimension_count": 8}, "llama.rope.dimension_count: 8, not the size of a head, 16"),
        (
            {"llama__rope__scaling__type": "longrope"},
            "llama.rope.scaling.type: 'longrope', not one of none, linear, yarn",
        ),
        ({"llama__rope__freq_base": 0.0}, "llama.rope.freq_base: 0.0, not a number above 0"),
        ({"tokenizer__ggml__model": "bert"}, "tokenizer.ggml.model: 'bert', not one of gpt2, llama"),
        ({"tokenizer__ggml__pre": "dbrx"}, "tokenizer.ggml.pre: 'dbrx', not one of gpt-2, smollm"),
        ({"tokenizer__ggml__tokens": None}, "tokenizer.ggml.tokens: the file has no tokenizer"),
        ({"tokenizer__ggml__merges": None}, "tokenizer.ggml.merges: the file has no such field"),
        ({"tokenizer__ggml__merges": ["Ġ nothere"]}, "tokenizer.ggml.merges: "),
        ({"tokenizer__ggml__token_type": [1]}, "tokenizer.ggml.token_type: 1 values for 269 tokens"),
        ({"tokenizer__ggml__eos_token_id": 900}, "tokenizer.ggml.eos_token_id: 900, not below 269"),
    ],
)
def test_a_field_that_does_not_fit_is_one_line(tmp_path, fields, line):
    file = gguf_files.write(tmp_path / "bad.gguf", "llama", gguf_files.random_model("llama"), **fields)
    message = refused(file)
    assert line in message
    assert message.endswith("use another file, or the model's safetensors folder")


def test_a_quantisation_that_cannot_be_read_is_one_line(tmp_path):
    file = gguf_files.write(tmp_path / "bad.gguf", "llama", gguf_files.random_model("llama"))
    content = file.read_bytes()
    name = b"blk.1.ffn_up.weight"
    kind = content.index(name) + len(name) + 4 + 2 * 8
    assert struct.unpack_from("<I", content, kind) == (0,)
    file.write_bytes(content[:kind] + struct.pack("<I", gguf.GGMLQuantizationType.I32) + content[kind + 4 :])
    assert "tensor 'blk.1.ffn_up.weight': 'I32', a quantisation that cannot be read" in refused(file)
    file.write_bytes(content[:kind] + struct.pack("<I", 99) + content[kind + 4 :])
    assert "99) is not a valid GGMLQuantizationType" in refused(file)


@pytest.mark.parametrize("length", [0, 3, 4, 20, 2000, 20_000, -1])
def test_a_file_that_was_cut_is_one_line(tmp_path, length):
    file = gguf_files.write(tmp_path / "cut.gguf", "llama", gguf_files.random_model("llama"))
    content = file.read_bytes()
    file.write_bytes(content[: length if length >= 0 else len(content) - 40])
    assert "GGUF file" in refused(file)


def test_what_is_no_gguf_file_is_one_line(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text(json.dumps({"a": 1}))
    assert "begins with b'{\"a\"', not with b'GGUF': it is no GGUF file" in refused(file)
    with pytest.raises(BaseModelError, match="no such file"):
        base_model.resolve(str(tmp_path / "nowhere.gguf"))


def test_where_the_hub_is_out_of_reach_the_file_of_a_package_is_used_without_importing_it(tmp_path):
    package, name = base_model.PACKAGED["HuggingFaceTB/SmolLM2-135M-Instruct"]
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("import what_is_not_installed")
    file = gguf_files.write(tmp_path / package / name, "llama", gguf_files.random_model("llama"))
    code = (
        "from nfl_lora_pipeline.models.base_model import resolve\n"
        "base = resolve('HuggingFaceTB/SmolLM2-135M-Instruct', report=print)\n"
        "print(base.name, base.folder.parent)"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "PYTHONPATH": path},
    )
    said, converted, found = done.stdout.splitlines()
    assert said.startswith(
        f"HuggingFaceTB/SmolLM2-135M-Instruct: the hub is out of reach, so that {file} of the package"
    )
    assert converted.startswith(f"{name}: converted once, into ")
    assert found == f"HuggingFaceTB/SmolLM2-135M-Instruct {tmp_path / 'cache' / 'nfl-lora' / 'gguf'}"
