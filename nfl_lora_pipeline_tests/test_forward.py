"""The forward pass of our own against mlx-lm's, for every family that it is written for."""

from typing import Any

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models import gemma3_text, llama, phi3, qwen2, qwen3
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.tuner.utils import linear_to_lora_layers

from nfl_lora_pipeline.models import forward
from nfl_lora_pipeline.models.forward import answer_logits, layer_by_layer, lower_states

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
LONG = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0, 3.0, 4.0, 5.0]}
LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SHAPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "phi3": (phi3, {"num_key_value_heads": 4}),
    "phi3 with shared keys and longrope": (phi3, {"rope_scaling": LONG}),
    "llama": (llama, {"tie_word_embeddings": True}),
    "llama with one head of keys": (llama, {"num_key_value_heads": 1}),
    "llama with biases": (llama, {"attention_bias": True, "mlp_bias": True}),
    "llama 3": (llama, {"rope_scaling": LLAMA_3 | {"original_max_position_embeddings": 64}}),
    "mistral": (llama, {"head_dim": 16}),
    "qwen2": (qwen2, {}),
    "qwen3": (qwen3, {"head_dim": 16}),
}
TOKENS = mx.array([[1, 40, 41, 42, 3, 2, 40, 41, 9], [1, 30, 3, 2, 30, 31, 0, 0, 0]])
WANTED = mx.array([[5, 6, 7, 8], [3, 4, 5, 5]])
SYSTEM = [7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
"""What both rows begin with alike in `AFTER_SYSTEM`, as they do behind a chat template's system text."""
AFTER_SYSTEM = mx.concatenate([mx.array([SYSTEM, SYSTEM]), TOKENS], 1)


RANKS = (0, 4, 12)
"""Of no LoRA; of updates that are multiplied by themselves; and of such as are added to their weights first."""


def made(shape: str, *, rank: int = 4) -> nn.Module:
    """A model with random weights, and LoRA layers on the upper two, or else these layers themselves to be trained."""
    module, sizes = SHAPES[shape]
    model = module.Model(module.ModelArgs.from_dict({"model_type": "x", **SIZES, **sizes}))
    mx.random.seed(1)
    model.load_weights(
        [(name, mx.random.normal(array.shape) * 0.3) for name, array in tree_flatten(model.parameters())]
    )
    model.freeze()
    if rank:
        linear_to_lora_layers(model, 2, {"rank": rank, "scale": 2.0, "dropout": 0.0})
        model.load_weights(
            [(name, mx.random.normal(array.shape) * 0.3) for name, array in tree_flatten(model.trainable_parameters())],
            strict=False,
        )
    else:
        for layer in model.layers[1:]:
            layer.unfreeze()
    return model


def plain_logits(model: nn.Module, tokens: mx.array, wanted: mx.array) -> mx.array:
    """By mlx-lm alone."""
    return mx.take_along_axis(model(tokens), wanted[:, :, None], 1)


def gradients(model: nn.Module, logits: Any) -> list[tuple[str, mx.array]]:
    """Of a loss on the logits, for all that is trained."""

    def loss(weights: Any) -> mx.array:
        model.update(weights)
        return nn.losses.cross_entropy(logits(model, TOKENS, WANTED), WANTED, reduction="mean")

    found: list[tuple[str, mx.array]] = tree_flatten(mx.grad(loss)(model.trainable_parameters()))
    return found


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_those_of_mlx_lm(shape, rank):
    model = made(shape, rank=rank)
    expected = plain_logits(model, TOKENS, WANTED)
    assert mx.abs(expected).max() > 1
    assert mx.allclose(answer_logits(model, TOKENS, WANTED), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_mlx_lm(shape, rank):
    model = made(shape, rank=rank)
    expected = gradients(model, plain_logits)
    for (name, found), (_, array) in zip(gradients(model, answer_logits), expected, strict=True):
        assert mx.allclose(found, array, rtol=1e-3, atol=1e-5), name
    assert any(mx.abs(array).max() > 1e-3 for _, array in expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_states_below_the_trained_layers_lead_to_the_same_logits(shape):
    model = made(shape)
    states = lower_states(model, TOKENS, 1)
    expected = plain_logits(model, TOKENS, WANTED)
    assert mx.allclose(answer_logits(model, TOKENS, WANTED, states), expected, rtol=1e-4, atol=1e-4)


def asked_after_system(model: nn.Module, tokens: mx.array, wanted: mx.array) -> mx.array:
    """Logits, with the states of the system text computed once."""
    return answer_logits(model, AFTER_SYSTEM, wanted + len(SYSTEM), alike=len(SYSTEM))


def plain_after_system(model: nn.Module, tokens: mx.array, wanted: mx.array) -> mx.array:
    """By mlx-lm alone."""
    return plain_logits(model, AFTER_SYSTEM, wanted + len(SYSTEM))


@pytest.mark.parametrize("shape", SHAPES)
def test_what_all_rows_begin_with_is_computed_once_and_leads_to_the_same(shape, monkeypatch):
    model = made(shape)
    expected, slopes = plain_after_system(model, TOKENS, WANTED), gradients(model, plain_after_system)
    assert mx.allclose(asked_after_system(model, TOKENS, WANTED), expected, rtol=1e-4, atol=1e-4)
    for (name, found), (_, array) in zip(gradients(model, asked_after_system), slopes, strict=True):
        assert mx.allclose(found, array, rtol=1e-3, atol=1e-5), name
    states = lower_states(model, AFTER_SYSTEM, 1, len(SYSTEM))
    assert mx.allclose(states, lower_states(model, AFTER_SYSTEM, 1), rtol=1e-4, atol=1e-4)
    found = answer_logits(model, AFTER_SYSTEM, WANTED + len(SYSTEM), states, len(SYSTEM))
    assert mx.allclose(found, expected, rtol=1e-4, atol=1e-4)
    if mx.default_device() == mx.Device(mx.cpu):
        seen: list[tuple[int, ...]] = []
        silu = forward.silu
        monkeypatch.setattr(forward, "silu", lambda x: seen.append(x.shape[:2]) or silu(x))
        asked_after_system(model, TOKENS, WANTED)
        own = (len(TOKENS), TOKENS.shape[1])
        assert seen == [(1, len(SYSTEM)), own, (1, len(SYSTEM)), own, WANTED.shape]


def test_a_large_update_is_added_to_its_weight_and_a_small_one_is_not(monkeypatch):
    if mx.default_device() != mx.Device(mx.cpu):
        pytest.skip("the pass of our own is for the CPU")
    small, large = made("llama", rank=4), made("llama", rank=12)
    monkeypatch.setattr(LoRALinear, "__call__", None)
    assert answer_logits(large, TOKENS, WANTED).shape == (2, 4, 50)
    with pytest.raises(TypeError):
        answer_logits(small, TOKENS, WANTED)


def test_a_dropout_is_drawn_for_every_token():
    model = made("llama", rank=12)
    for layer in model.layers[1:]:
        layer.self_attn.q_proj.dropout = nn.Dropout(0.5)
    model.train()
    first, second = (answer_logits(model, TOKENS, WANTED) for _ in range(2))
    assert mx.abs(first - second).max() > 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_on_the_cpu_mlx_lms_layers_are_not_called(shape, monkeypatch):
    if mx.default_device() != mx.Device(mx.cpu):
        pytest.skip("the pass of our own is for the CPU")
    model = made(shape)
    monkeypatch.setattr(type(model.layers[0]), "__call__", None)
    assert answer_logits(model, TOKENS, WANTED).shape == (2, 4, 50)


def test_windows_and_half_precision_are_left_to_mlx_lm():
    sliding = llama.Model(
        llama.ModelArgs.from_dict(
            {"model_type": "llama", **SIZES, "sliding_window": 4}
            | {"layer_types": ["sliding_attention", "full_attention", "full_attention"]}
        )
    )
    assert not layer_by_layer(sliding)
    assert mx.allclose(answer_logits(sliding, TOKENS, WANTED), plain_logits(sliding, TOKENS, WANTED), atol=1e-5)
    half = made("llama", rank=0)
    half.set_dtype(mx.bfloat16)
    assert answer_logits(half, TOKENS, WANTED).dtype == mx.bfloat16


def test_gemma_is_projected_at_the_answer_alone(monkeypatch):
    sizes = {"num_hidden_layers": 6, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64}
    model = gemma3_text.Model(gemma3_text.ModelArgs.from_dict({"model_type": "gemma3_text", **SIZES, **sizes}))
    model.sanitize({})
    expected = plain_logits(model, TOKENS, WANTED)
    monkeypatch.setattr(type(model), "__call__", None)
    assert mx.allclose(forward.answer_logits(model, TOKENS, WANTED), expected, atol=1e-5)
