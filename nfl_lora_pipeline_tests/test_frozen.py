"""What the layers make of a row that nothing is trained in, computed once."""

from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import llama

from nfl_lora_pipeline.models import base_model
from nfl_lora_pipeline.models.forward import FrozenStates, answer_logits, frozen_layers, token_losses
from nfl_lora_pipeline.models.rows import TokenRow, to_batch
from nfl_lora_pipeline.models.scoring import certainty, merged
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.tuning.adaptation import adapt
from nfl_lora_pipeline.tuning.learner import recall_loss

ROWS = [TokenRow([1, 40, 41, 42, 3, 2, 40, 41, 9, 3], 6), TokenRow([1, 50, 3, 2, 50, 51, 3], 4)]


def embedded() -> Any:
    return base_model.load(base_model.resolve("embedded"))[0]


def llama_model() -> Any:
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 64, "num_attention_heads": 2}
    more = {"rms_norm_eps": 1e-5, "vocab_size": 60, "tie_word_embeddings": False}
    return llama.Model(llama.ModelArgs.from_dict({"model_type": "llama", **sizes, **more}))


def adapted(model: Any, num_layers: int) -> Any:
    adapt(model, load_recipe("embedded").changed(num_layers=num_layers, rank=8))
    model.load_weights(
        [(name, mx.random.normal(array.shape) * 0.05) for name, array in tree_flatten(model.trainable_parameters())],
        strict=False,
    )
    return model


@pytest.mark.parametrize("make", [embedded, llama_model])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_losses_and_gradients_are_those_of_the_whole_model(make, num_layers):
    mx.random.seed(2)
    model, batch = adapted(make(), num_layers), to_batch(ROWS)
    states = FrozenStates(model)
    assert states.layers == len(model.layers) - num_layers
    kept = batch._replace(states=states.states(ROWS, [0, 1]))
    losses = [
        token_losses(answer_logits(model, each.tokens, each.wanted, each.states), each.targets) * each.weights
        for each in (batch, kept)
    ]
    assert mx.allclose(*losses, rtol=1e-4, atol=1e-5)
    slopes = [
        mx.grad(lambda weights, each=each: _loss(model, weights, each))(model.trainable_parameters())
        for each in (batch, kept)
    ]
    for (_, one), (_, other) in zip(*map(tree_flatten, slopes), strict=True):
        assert mx.allclose(one, other, rtol=1e-3, atol=1e-5)


def _loss(model: Any, weights: Any, batch: Any) -> mx.array:
    model.update(weights)
    return recall_loss(model, 0.05, batch)[0]


def test_a_row_that_weighs_more_counts_more_in_the_loss_and_its_greatest_loss_is_what_it_was():
    mx.random.seed(2)
    model = adapted(embedded(), 1)
    heavy = to_batch([ROWS[0]._replace(weight=2.5), ROWS[1]])
    loss, (greatest,) = recall_loss(model, 1e-9, heavy)
    losses = token_losses(answer_logits(model, heavy.tokens, heavy.wanted), heavy.targets)
    counted = heavy.weights * (losses > 1e-9)
    assert counted.sum().item() > 8
    assert loss.item() == pytest.approx(((losses * counted).sum() / counted.sum()).item(), rel=1e-4)
    assert mx.allclose(greatest, recall_loss(model, 1e-9, to_batch(ROWS))[1][0], rtol=1e-4)


def test_a_token_of_a_row_that_weighs_more_is_known_later():
    mx.random.seed(2)
    model, row = adapted(embedded(), 1), ROWS[0]
    greatest = recall_loss(model, 1e-9, to_batch([row]))[1][0].item()
    assert recall_loss(model, greatest * 1.1, to_batch([row]))[0].item() == 0
    assert recall_loss(model, greatest * 1.1, to_batch([row._replace(weight=1.5)]))[0].item() > 0


def test_a_row_that_is_shown_in_part_is_served_from_the_whole_one():
    model = adapted(embedded(), 1)
    states = FrozenStates(model)
    whole = states.states(ROWS, [0, 1])
    used = states.free_bytes
    part = states.states([TokenRow(ROWS[0].tokens[:8], 6)], [0])
    assert mx.array_equal(part[0], whole[0, :7])
    assert states.free_bytes == used


def test_a_whole_row_is_kept_of_one_that_is_shown_in_part_and_a_check_is_served_from_it(monkeypatch):
    model = adapted(embedded(), 1)
    expected = certainty(model, ROWS).lowest
    states, shown = FrozenStates(model), [row._replace(tokens=row.tokens[:-1]) for row in ROWS]
    states.states(shown, [7, 8], ROWS)
    monkeypatch.setattr(states, "_compute", lambda rows: pytest.fail("it was kept") if rows else [])
    assert certainty(model, ROWS, frozen=states, keys=[7, 8]).lowest == pytest.approx(expected, rel=1e-4)
    with merged(model):
        assert certainty(model, ROWS, frozen=states, keys=[7, 8]).lowest == pytest.approx(expected, rel=1e-3)


def test_what_does_not_fit_the_budget_is_computed_each_time():
    model = adapted(embedded(), 1)
    small = FrozenStates(model, budget_bytes=9 * 128 * 4)
    assert mx.allclose(small.states(ROWS, [0, 1]), FrozenStates(model).states(ROWS, [0, 1]), atol=1e-5)
    assert list(small.kept) == [0]


def test_it_is_off_where_every_layer_is_trained_and_where_layers_cannot_be_called_one_by_one():
    assert frozen_layers(adapted(embedded(), -1)) == 0
    sliding = llama_model()
    adapted(sliding, 1)
    assert frozen_layers(sliding) == 2
    sliding.model.layers[0].use_sliding = True
    assert frozen_layers(sliding) == 0
