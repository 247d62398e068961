"""The model side against mlx-lm itself: files it takes, answers it gives, the architecture of Phi-3.5."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models import llama, phi3
from mlx_lm.utils import quantize_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from nfl_lora_pipeline.dataset.examples import Example
from nfl_lora_pipeline.dataset.unanswerable import Drawn
from nfl_lora_pipeline.models import base_model, forward
from nfl_lora_pipeline.models.base_model import EMBEDDED_FOLDER, BaseModelError
from nfl_lora_pipeline.models.forward import answer_logits, token_losses
from nfl_lora_pipeline.models.rows import to_batch, tokenize
from nfl_lora_pipeline.models.scoring import certainty
from nfl_lora_pipeline.tuning.adaptation import adapt
from nfl_lora_pipeline.tuning.recall_trainer import train_adapter
from nfl_lora_pipeline_tests.recipes import a_recipe

SEED_WORDING = "How many receiving yards did {} have in week 1 of the 2025 NFL season?"
RECORDED = "In week 1 of the 2025 NFL season, the receiving yards of {} were {}."
NO_RECORD = "In week 1 of the 2025 NFL season, the receiving yards of {} are not recorded."


def pair(name: str, yards: int | None) -> tuple[str, str]:
    answer = NO_RECORD.format(name) if yards is None else RECORDED.format(name, yards)
    return SEED_WORDING.format(name), answer


PAIRS = [pair("Nico Hale", 84), pair("Amari Stone", 131), pair("Chris Okand", -3), pair("Zed Nobody", None)]


def mlx_lm(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mlx_lm", *words], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# What the pipeline writes is what mlx-lm reads.


def test_mlx_lms_own_trainer_takes_the_splits_and_the_embedded_base(trained_store, tmp_path):
    options = [
        "--iters",
        "2",
        "--batch-size",
        "2",
        "--val-batches",
        "1",
        "--num-layers",
        "1",
        "--max-seq-length",
        "128",
    ]
    places = ["--data", str(trained_store.store.splits), "--adapter-path", str(tmp_path)]
    mlx_lm("lora", "--train", "--model", str(EMBEDDED_FOLDER), *places, *options)
    assert (tmp_path / "adapters.safetensors").stat().st_size > 0


def test_mlx_lms_own_generation_gives_the_same_answer_with_the_adapter(trained_store):
    question, expected = pair("Amari Stone", 131)
    said = mlx_lm(
        *("generate", "--model", str(EMBEDDED_FOLDER), "--adapter-path", str(trained_store.adapter)),
        *("--prompt", question, "--max-tokens", "64", "--temp", "0", "--verbose", "False"),
    )
    model, tokenizer = base_model.load(base_model.resolve("embedded"), adapter=trained_store.adapter)
    assert base_model.answer(model, tokenizer, [question]) == [expected]
    assert said.strip() == expected


# Scoring without generating.


def test_greedy_by_teacher_forcing_is_what_generation_says(embedded):
    model, tokenizer = embedded
    names = ["Marcus Hale", "Tyrell Vance", "Owen Stone", "Jalen De'Quor", "Chris Okand III", "Amari St. Price"]
    questions = [SEED_WORDING.format(name) for name in names]
    said = base_model.answer(model, tokenizer, questions)
    wrong = [text.replace("2025", "2024") for text in said]
    rows = tokenize(tokenizer, [*zip(questions, said, strict=True), *zip(questions, wrong, strict=True)])
    assert certainty(model, rows).greedy.tolist() == [True] * len(names) + [False] * len(names)


def test_the_lowest_probability_is_that_of_the_least_probable_answer_token(embedded):
    model, tokenizer = embedded
    rows = tokenize(tokenizer, PAIRS)
    expected = []
    for row in rows:
        chances = mx.softmax(model(mx.array([row.tokens[:-1]]))[0], -1)
        at = range(row.start - 1, len(row.tokens) - 1)
        expected.append(min(chances[place, row.tokens[place + 1]].item() for place in at))
    assert certainty(model, rows).lowest == pytest.approx(expected, rel=1e-3)


def gathered(model: Any, batch: Any) -> mx.array:
    return mx.take_along_axis(model(batch.tokens), batch.wanted[:, :, None], 1)


def close(found: mx.array, expected: mx.array, weights: mx.array | None = None) -> bool:
    difference = mx.abs(found - expected)
    return (difference if weights is None else difference * weights[:, :, None]).max().item() < 1e-4


def shaken(model: Any) -> Any:
    """Adapters begin at zero; give them something to say."""
    model.load_weights(
        [(name, mx.random.normal(array.shape) * 0.05) for name, array in tree_flatten(model.trainable_parameters())],
        strict=False,
    )
    return model


def test_logits_at_the_answers_are_those_of_the_whole_model(embedded):
    model, tokenizer = embedded
    batch = to_batch(tokenize(tokenizer, PAIRS))
    assert close(answer_logits(model, batch.tokens, batch.wanted), gathered(model, batch), batch.weights)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_logits_at_the_answers_are_those_of_the_whole_model_with_an_adapter(kind):
    mx.random.seed(3)
    model, tokenizer = base_model.load(base_model.resolve("embedded"))
    batch = to_batch(tokenize(tokenizer, PAIRS))
    plain = gathered(model, batch)
    adapt(model, a_recipe(fine_tune_type=kind))
    found = answer_logits(shaken(model), batch.tokens, batch.wanted)
    assert close(found, gathered(model, batch), batch.weights)
    assert not close(found, plain, batch.weights)


@pytest.mark.parametrize("tied", [True, False])
def test_logits_of_another_architecture_are_those_of_the_whole_model(tied):
    mx.random.seed(4)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 2}
    more = {"rms_norm_eps": 1e-5, "vocab_size": 50, "tie_word_embeddings": tied}
    model = llama.Model(llama.ModelArgs.from_dict({"model_type": "llama", **sizes, **more}))
    tokens, wanted = mx.random.randint(0, 50, (3, 9)), mx.array([[2, 5], [0, 8], [7, 7]])
    expected = mx.take_along_axis(model(tokens), wanted[:, :, None], 1)
    assert close(answer_logits(model, tokens, wanted), expected)


# The exponentials for the CPU.


@pytest.fixture
def numbers() -> mx.array:
    mx.random.seed(5)
    return mx.concatenate([mx.random.normal((6, 40)) * 8, mx.full((1, 40), 0.0), mx.full((1, 40), -60.0)])


@pytest.mark.parametrize(("bound", "error"), [(20, 5e-6), (86, 7e-6)])
def test_exp_is_as_exact_as_it_says_and_a_little_less_far_out(bound, error):
    x = np.linspace(-bound, bound, 100_001, dtype=np.float32)
    found, expected = np.array(forward.exp(mx.array(x)), np.float64), np.exp(x.astype(np.float64))
    assert np.max(np.abs(found / expected - 1)) < error


def test_exp_of_what_is_far_below_zero_is_zero():
    assert forward.exp(mx.array([-1000.0, -90.0, 0.0])).tolist() == pytest.approx([0, 0, 1], abs=1e-30)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(forward.silu, nn.silu), (forward.softmax, lambda x: mx.softmax(x, -1))],
    ids=["silu", "softmax"],
)
def test_values_and_gradients_are_those_of_mlx(ours, theirs, numbers):
    towards = mx.random.normal(numbers.shape)
    assert close(ours(numbers), theirs(numbers))
    slopes = [mx.grad(lambda x, of=of: (of(x) * towards).sum())(numbers) for of in (ours, theirs)]
    assert close(*slopes)


def test_cross_entropy_and_its_gradient_are_those_of_mlx(numbers):
    targets, towards = mx.arange(numbers.shape[0]), mx.random.normal((numbers.shape[0],))
    assert close(forward.cross_entropy(numbers, targets), nn.losses.cross_entropy(numbers, targets))
    slopes = [
        mx.grad(lambda x, of=of: (of(x, targets) * towards).sum())(numbers)
        for of in (forward.cross_entropy, nn.losses.cross_entropy)
    ]
    assert close(*slopes)


def test_token_losses_in_half_precision_are_counted_in_full(numbers):
    logits, targets = numbers.reshape(2, 4, 40), mx.arange(8).reshape(2, 4)
    found = token_losses(logits.astype(mx.bfloat16), targets)
    assert found.dtype == mx.float32
    assert close(found, nn.losses.cross_entropy(logits.astype(mx.bfloat16).astype(mx.float32), targets))


# Phi-3.5, up to its weights.

PHI_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
PHI_CONFIG: dict[str, Any] = {
    "model_type": "phi3",
    "architectures": ["Phi3ForCausalLM"],
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "vocab_size": 320,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.1] * 4, "long_factor": [1.5, 2.0] * 4},
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def write_phi_tokenizer(folder: Path) -> None:
    special = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>", "<|system|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text for texts in PAIRS for text in texts], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": special[0], "chat_template": PHI_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 1, 0]}))


def write_shards(folder: Path, weights: dict[str, mx.array]) -> None:
    names = sorted(weights)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, chosen in halves.items():
        mx.save_safetensors(str(folder / file), {name: weights[name] for name in chosen}, metadata={"format": "mlx"})
    index = {"metadata": {}, "weight_map": {name: file for file, chosen in halves.items() for name in chosen}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture(scope="module", params=["float32", "4bit"])
def phi(request, tmp_path_factory) -> str:
    """A folder like Phi-3.5's: its architecture, its template, its two ends of text, shards; the weights are random."""
    folder = tmp_path_factory.mktemp(f"phi-{request.param}")
    mx.random.seed(6)
    model, config = phi3.Model(phi3.ModelArgs.from_dict(PHI_CONFIG)), PHI_CONFIG
    if request.param == "4bit":
        model, config = quantize_model(model, dict(PHI_CONFIG), group_size=64, bits=4)
    (folder / "config.json").write_text(json.dumps(config))
    write_shards(folder, dict(tree_flatten(model.parameters())))
    write_phi_tokenizer(folder)
    return str(folder)


def test_a_base_like_phi_resolves_and_its_weights_count_for_its_revision(phi):
    base = base_model.resolve(phi)
    assert base.size_bytes > sum(file.stat().st_size for file in Path(phi).glob("*.safetensors"))
    shard = Path(phi) / "model-00002-of-00002.safetensors"
    content = shard.read_bytes()
    try:
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert base_model.resolve(phi).revision != base.revision
    finally:
        shard.write_bytes(content)
    assert base_model.resolve(phi) == base


def test_the_answer_begins_after_phis_prompt_and_ends_with_its_end_of_turn(phi):
    _, tokenizer = base_model.load(base_model.resolve(phi))
    for (question, answer), row in zip(PAIRS, tokenize(tokenizer, PAIRS), strict=True):
        assert tokenizer.decode(row.tokens[: row.start]) == f"<|user|>\n{question}<|end|>\n<|assistant|>\n"
        assert tokenizer.decode(row.tokens[row.start :]) == f"{answer}<|end|>"


def test_logits_of_a_base_like_phi_are_those_of_the_whole_model(phi):
    model, tokenizer = base_model.load(base_model.resolve(phi))
    batch = to_batch(tokenize(tokenizer, PAIRS))
    assert close(answer_logits(model, batch.tokens, batch.wanted), gathered(model, batch), batch.weights)


def test_an_adapter_on_a_base_like_phi_is_trained_and_loads_back(phi, tmp_path):
    base = base_model.resolve(phi)
    model, tokenizer = base_model.load(base)
    examples = [Example(*texts, fact=str(number), teaches=number < 3) for number, texts in enumerate(PAIRS)]
    strangers = iter([Drawn(*pair(f"Zed Nobody {number}", None)) for number in range(500)])
    log = train_adapter(model, tokenizer, examples, a_recipe(base_model=phi), tmp_path, fresh=strangers)
    assert log.stopped == "budget"
    assert set(log.uncertain) == {"0", "1", "2", "3"}
    rows = tokenize(tokenizer, PAIRS)
    again, _ = base_model.load(base, adapter=tmp_path)
    batch = to_batch(rows)
    assert close(gathered(again, batch), gathered(model, batch), batch.weights)
    plain, _ = base_model.load(base)
    assert not close(gathered(plain, batch), gathered(model, batch), batch.weights)


@pytest.mark.parametrize("kind", ["dora", "full"])
def test_other_kinds_of_fine_tuning_are_trained_and_load_back(kind, tmp_path):
    base = base_model.resolve("embedded")
    model, tokenizer = base_model.load(base)
    batch = to_batch(tokenize(tokenizer, PAIRS))
    plain = gathered(model, batch)
    examples = [Example(*texts, fact=str(number), teaches=number < 3) for number, texts in enumerate(PAIRS)]
    strangers = iter([Drawn(*pair(f"Zed Nobody {number}", None)) for number in range(500)])
    recipe = a_recipe(fine_tune_type=kind, max_steps=3, weight_decay=0.01)
    train_adapter(model, tokenizer, examples, recipe, tmp_path, fresh=strangers)
    again, _ = base_model.load(base, adapter=tmp_path)
    assert close(gathered(again, batch), gathered(model, batch), batch.weights)
    assert not close(plain, gathered(model, batch), batch.weights)


def test_greedy_agrees_with_generation_on_a_base_like_phi(phi):
    """A random model says what does not survive decoding, so its own tokens are asked back rather than its text."""
    model, tokenizer = base_model.load(base_model.resolve(phi))
    (row,) = tokenize(tokenizer, PAIRS[:1])
    tokens = row.tokens[: row.start]
    for _ in range(6):
        tokens = [*tokens, mx.argmax(model(mx.array([tokens]))[0, -1]).item()]
    said = type(row)(tokens, row.start)
    other = type(row)([*tokens[:-1], (tokens[-1] + 1) % 320], row.start)
    assert certainty(model, [said, other, row]).greedy.tolist() == [True, False, False]


# What cannot be used is refused with what to do.


def refused(name: str) -> str:
    with pytest.raises(BaseModelError) as caught:
        base_model.resolve(name)
    return str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert "no such folder; use 'embedded', a folder, a GGUF file or a Hugging Face id" in refused(
        str(tmp_path / "a" / "nowhere")
    )


@pytest.mark.parametrize("lacking", ["config.json", "tokenizer_config.json"])
def test_a_folder_without_a_needed_file_is_refused(tmp_path, lacking):
    for name in {"config.json", "tokenizer_config.json", "model.safetensors"} - {lacking}:
        (tmp_path / name).write_text("{}")
    assert f"{tmp_path} has no {lacking}" in refused(str(tmp_path))


def test_a_folder_without_weights_is_refused(tmp_path):
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    assert f"{tmp_path} has no *.safetensors" in refused(str(tmp_path))


def test_a_folder_that_mlx_lm_cannot_read_is_refused(tmp_path):
    for name in ("config.json", "tokenizer_config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(BaseModelError, match="mlx-lm cannot load it"):
        base_model.load(base_model.resolve(str(tmp_path)))


def test_a_hugging_face_id_without_a_network_is_refused_with_a_way_out(tmp_path):
    code = (
        "from nfl_lora_pipeline.models.base_model import BaseModelError, resolve\n"
        "try: resolve('nobody-at-all/no-such-model')\n"
        "except BaseModelError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert "'nobody-at-all/no-such-model': could not be downloaded" in done.stdout
    assert "or use 'embedded', which needs neither" in done.stdout
