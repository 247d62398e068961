"""LoRA layers merged for a while."""

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.tuner.lora import LoRALinear

from nfl_lora_pipeline.models import base_model
from nfl_lora_pipeline.models.scoring import merged
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.tuning.adaptation import adapt


def test_a_merged_model_says_the_same_and_is_itself_again_afterwards():
    mx.random.seed(1)
    model, _ = base_model.load(base_model.resolve("embedded"))
    tokens = mx.array([[1, 40, 41, 42, 3, 2]])
    plain = model(tokens)
    adapt(model, load_recipe("embedded"))
    drawn = [(name, mx.random.normal(array.shape) * 0.05) for name, array in tree_flatten(model.trainable_parameters())]
    model.load_weights(drawn, strict=False)
    expected, trained = model(tokens), dict(tree_flatten(model.trainable_parameters()))
    with merged(model):
        assert not any(isinstance(module, LoRALinear) for module in model.modules())
        assert mx.allclose(model(tokens), expected, rtol=1e-4, atol=1e-4)
    assert not mx.allclose(expected, plain, atol=0.1)
    assert mx.array_equal(model(tokens), expected)
    assert dict(tree_flatten(model.trainable_parameters())).keys() == trained.keys()
