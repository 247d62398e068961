"""What of a model is trained: LoRA or DoRA layers put on it, or its own layers let loose.

The layers are mlx-lm's, and what is written down about them is what `mlx_lm.load(adapter_path=...)` reads. LoRA on a
quantised base is QLoRA.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import mlx.core as mx
import mlx.optimizers as optim
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.cli_ui import make_console
from mlx_lm.tuner.utils import linear_to_lora_layers

from nfl_lora_pipeline.dataset.examples import Example
from nfl_lora_pipeline.models.machine import kind
from nfl_lora_pipeline.models.prompt import Tokenizer
from nfl_lora_pipeline.models.rows import TokenRow, refuse_long, refuse_lossy, tokenize
from nfl_lora_pipeline.recipes.recipe import Recipe
from nfl_lora_pipeline.tuning.records import AdapterConfig, TrainingLog

WORD_BITS = 32  # of the words that hold quantised weights


def adapt(model: nn.Module, recipe: Recipe) -> AdapterConfig:
    """Freeze the model but for what the recipe trains.

    Args:
        model: a model of `mlx_lm.load`; it carries the adapter afterwards.
        recipe: how to train.

    Returns:
        The content of `adapter_config.json` with which `mlx_lm.load(adapter_path=...)` does the same.

    Raises:
        ValueError: the recipe does not fit this model: more layers than it has, modules that no layer has, a rank that a
            module is too small for, or a kind of fine-tuning that quantised weights rule out. The model is as it was.
    """
    linears = _checked(model, recipe)
    count = len(model.layers) if recipe.lora.num_layers == -1 else recipe.lora.num_layers
    parameters: dict[str, float | list[str]] | None = None
    model.freeze()
    if recipe.lora.fine_tune_type == "full":
        for layer in model.layers[-count:]:
            layer.unfreeze()
    else:
        parameters = {"rank": recipe.lora.rank, "scale": recipe.lora.scale, "dropout": recipe.lora.dropout}
        if recipe.lora.modules:
            parameters["keys"] = list(linears)
        linear_to_lora_layers(model, count, parameters, use_dora=recipe.lora.fine_tune_type == "dora")
    return {
        "fine_tune_type": recipe.lora.fine_tune_type,
        "num_layers": count,
        "lora_parameters": parameters,
        "model": recipe.base_model,
    }


def sides(linear: nn.Module) -> tuple[int, int]:
    """How many numbers go into a linear layer, quantised or not, and how many come out."""
    outputs, inputs = linear.weight.shape
    return (inputs * WORD_BITS // linear.bits if isinstance(linear, nn.QuantizedLinear) else inputs), outputs


def _checked(model: nn.Module, recipe: Recipe) -> Mapping[str, nn.Module]:
    """The linear layers of one layer of the model that the recipe adapts, by name."""
    layers = len(model.layers)
    if recipe.lora.num_layers > layers:
        raise ValueError(f"lora.num_layers: {recipe.lora.num_layers}, but this base model has {layers}; use -1 for all")
    present = {
        name: module
        for name, module in model.layers[-1].named_modules()
        if isinstance(module, nn.Linear | nn.QuantizedLinear)
    }
    if unknown := set(recipe.lora.modules or ()) - set(present):
        raise ValueError(f"lora.modules: this base model has no {min(unknown)!r}; it has {', '.join(sorted(present))}")
    chosen = {name: present[name] for name in recipe.lora.modules or present}
    _check_quantised(chosen, recipe.lora.fine_tune_type)
    if recipe.lora.fine_tune_type != "full":
        _check_rank(chosen, recipe.lora.rank)
    return chosen


def _check_quantised(linears: Mapping[str, nn.Module], fine_tune_type: str) -> None:
    """MLX gives packed weights no gradient, and mlx-lm's DoRA counts them in whole words."""
    bits = {linear.bits for linear in linears.values() if isinstance(linear, nn.QuantizedLinear)}
    if bits and fine_tune_type == "full":
        raise ValueError(
            f"lora.fine_tune_type: full, but this base model is quantised to {min(bits)} bits, and quantised weights are not "
            "trained; use lora, or a base model that is not quantised"
        )
    if fine_tune_type == "dora" and (uneven := [each for each in bits if WORD_BITS % each]):
        raise ValueError(
            f"lora.fine_tune_type: dora, but this base model is quantised to {uneven[0]} bits, which mlx-lm's DoRA cannot "
            "unpack; use lora, or a base model of 2, 4 or 8 bits"
        )


def _check_rank(linears: Mapping[str, nn.Module], rank: int) -> None:
    name, narrowest = min(linears.items(), key=lambda item: min(sides(item[1])))
    inputs, outputs = sides(narrowest)
    if rank > min(inputs, outputs):
        raise ValueError(
            f"rank: {rank}, but {name} of this base model is {inputs} by {outputs}; use {min(inputs, outputs)} at most"
        )


def begin(
    model: nn.Module, examples: Sequence[Example], recipe: Recipe, start: Path | None
) -> tuple[AdapterConfig, TrainingLog]:
    """Put an adapter on the model: a new one, drawn by the recipe's seed, or the one in `start`.

    Returns:
        The content of `adapter_config.json`, and a log that has only begun.

    Raises:
        ValueError: the recipe does not fit the model.
    """
    mx.random.seed(recipe.seed)
    mx.reset_peak_memory()
    config = adapt(model, recipe)
    if start is not None:
        model.load_weights(str(start / "adapters.safetensors"), strict=False)
    log = TrainingLog(rows=len(examples), facts=len({example.fact for example in examples}))
    log.trained_parameters = sum(array.size for _, array in tree_flatten(model.trainable_parameters()))
    return config, log


def token_rows(model: nn.Module, tokenizer: Tokenizer, examples: Sequence[Example]) -> list[TokenRow]:
    """The examples as token ids, in their order.

    Raises:
        ValueError: one is longer than the model reads, or has an answer that the tokenizer does not give back as it was.
    """
    rows = tokenize(tokenizer, ((example.question, example.answer) for example in examples))
    refuse_long(model, rows, (example.question for example in examples))
    refuse_lossy(tokenizer, rows, (example.answer for example in examples))
    return rows


def optimizer_of(recipe: Recipe, *, betas: Sequence[float]) -> optim.Adam:
    """Adam, or AdamW where the recipe has weights decay."""
    if recipe.optimizer.weight_decay:
        return optim.AdamW(
            recipe.optimizer.learning_rate, betas=list(betas), weight_decay=recipe.optimizer.weight_decay
        )
    return optim.Adam(recipe.optimizer.learning_rate, betas=list(betas))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """mlx-lm draws its progress on standard output, which belongs to whoever called."""
    console = make_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


@contextlib.contextmanager
def uncompiled_on_cpu() -> Iterator[None]:
    """On the CPU `mx.compile` runs g++ for every new shape of a batch, and needs one; the kernels it makes gain nothing."""
    if kind():
        yield
        return
    mx.disable_compile()
    try:
        yield
    finally:
        mx.enable_compile()
