"""What a recipe makes trainable, and that mlx-lm makes the same of what is written down."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import phi3
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import quantize_model

from nfl_lora_pipeline.tuning.adaptation import adapt
from nfl_lora_pipeline_tests.recipes import a_recipe

SIZES = {"hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 96, "num_attention_heads": 2}
CONFIG: dict[str, Any] = {"model_type": "phi3", **SIZES, "rms_norm_eps": 1e-5, "vocab_size": 64}
LINEARS = {"self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"}
TOKENS = [[1, 5, 9, 2, 40]]


def a_model(bits: int | None = None) -> Any:
    mx.random.seed(8)
    model = phi3.Model(phi3.ModelArgs.from_dict(CONFIG))
    return quantize_model(model, dict(CONFIG), group_size=32, bits=bits)[0] if bits else model


def trained_names(model: Any) -> list[list[str]]:
    """["model", "layers", number of the layer, ...] each."""
    return [name.split(".") for name, _ in tree_flatten(model.trainable_parameters())]


def shaken(model: Any) -> Any:
    """Adapters begin at zero; give them something to say."""
    trained = tree_flatten(model.trainable_parameters())
    model.load_weights([(name, array + mx.random.normal(array.shape) * 0.05) for name, array in trained], strict=False)
    return model


def refusal_of(model: Any, **values: Any) -> str:
    before = tree_flatten(model.parameters())
    with pytest.raises(ValueError) as caught:
        adapt(model, a_recipe(**values))
    assert tree_flatten(model.parameters()) == before
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "layers", "keys"),
    [
        ({"num_layers": 1}, {2}, LINEARS),
        ({"num_layers": 2, "modules": ["self_attn.o_proj"]}, {1, 2}, {"self_attn.o_proj"}),
        ({"fine_tune_type": "dora"}, {0, 1, 2}, LINEARS),
        (
            {"fine_tune_type": "full", "num_layers": 2},
            {1, 2},
            LINEARS | {"input_layernorm", "post_attention_layernorm"},
        ),
    ],
)
def test_only_the_layers_and_modules_of_the_recipe_are_trained(values, layers, keys):
    model = a_model()
    adapt(model, a_recipe(**values))
    trained = trained_names(model)
    assert {int(parts[2]) for parts in trained} == layers
    assert {".".join(parts[3:-1]) for parts in trained} == keys


@pytest.mark.parametrize(
    ("kind", "bits"),
    [("lora", None), ("dora", None), ("full", None), ("lora", 4), ("lora", 3), ("dora", 4), ("dora", 8)],
)
def test_what_was_trained_is_loaded_back_by_mlx_lm(tmp_path: Path, kind, bits):
    model = a_model(bits)
    plain = model(mx.array(TOKENS))
    config = adapt(model, a_recipe(fine_tune_type=kind, num_layers=2))
    said = shaken(model)(mx.array(TOKENS))
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), dict(tree_flatten(model.trainable_parameters())))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    again = load_adapters(a_model(bits), str(tmp_path))
    again.eval()
    assert mx.allclose(again(mx.array(TOKENS)), said, atol=1e-5)
    assert not mx.allclose(plain, said, atol=1e-2)


@pytest.mark.parametrize(("kind", "bits"), [("lora", None), ("lora", 4), ("dora", 4), ("full", None)])
def test_whatever_is_trained_gets_a_gradient(kind, bits):
    model = a_model(bits)
    adapt(model, a_recipe(fine_tune_type=kind))
    shaken(model)
    trained = model.trainable_parameters()

    def loss(parameters: Any) -> mx.array:
        model.update(parameters)
        return model(mx.array(TOKENS)).square().sum()

    slopes = tree_flatten(mx.grad(loss)(trained))
    assert [name for name, slope in slopes if not mx.abs(slope).max().item() > 0] == []


@pytest.mark.parametrize(
    ("bits", "values", "named"),
    [
        (None, {"num_layers": 9}, "num_layers: 9, but this base model has 3; use -1 for all"),
        (
            None,
            {"modules": ["self_attn.query"]},
            "modules: this base model has no 'self_attn.query'; it has mlp.down_proj",
        ),
        (None, {"rank": 65}, "rank: 65, but mlp.down_proj of this base model is 96 by 64; use 64 at most"),
        (None, {"rank": 65, "modules": ["self_attn.o_proj"]}, "but self_attn.o_proj of this base model is 64 by 64"),
        (4, {"rank": 65}, "rank: 65, but mlp.down_proj of this base model is 96 by 64; use 64 at most"),
        (4, {"fine_tune_type": "full"}, "fine_tune_type: full, but this base model is quantised to 4 bits"),
        (3, {"fine_tune_type": "dora"}, "fine_tune_type: dora, but this base model is quantised to 3 bits"),
    ],
)
def test_a_recipe_that_does_not_fit_the_base_is_refused_by_its_key(bits, values, named):
    assert named in refusal_of(a_model(bits), **values)


def test_the_largest_rank_that_is_named_fits():
    model = a_model()
    adapt(model, a_recipe(rank=64))
    assert trained_names(model)


def test_full_has_no_rank_that_could_be_too_large():
    model = a_model()
    assert adapt(model, a_recipe(fine_tune_type="full", rank=1024))["lora_parameters"] is None
