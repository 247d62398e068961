"""How much memory a training will need, worked out before anything is loaded.

The factors were fitted to peaks measured on a CPU, of arrays (`TrainingLog.peak_memory_bytes`) and of the process; on an
accelerator they have not been measured.
"""

import json
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfl_lora_pipeline.models.base_model import BaseModel
from nfl_lora_pipeline.models.machine import memory_bytes
from nfl_lora_pipeline.recipes.recipe import Recipe

FLOAT_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
WORD_BITS = 32  # of the words that hold quantised weights
LENGTH_BYTES = 8  # of a header's length, before the header
IN_A_LAYER = re.compile(r"\b(?:layers|h|blocks)\.(?P<layer>\d+)\.(?P<module>.+)\.(?P<kind>\w+)$")


@dataclass(frozen=True)
class Linear:
    """A linear layer: how many numbers go in and come out, and whether its weights are quantised."""

    inputs: int
    outputs: int
    quantised: bool


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model.

    Attributes:
        weights_bytes: of all arrays as they are stored.
        layers: for each layer from the bottom, its linear layers by name.
        layer_bytes: for each layer, of all its arrays as they are stored.
        heads: of attention; 0 where the configuration does not say.
        vocabulary: tokens; 0 where it does not say.
        item_bytes: of a number that is not quantised.
    """

    weights_bytes: int
    layers: list[dict[str, Linear]]
    layer_bytes: list[int]
    heads: int
    vocabulary: int
    item_bytes: int


@dataclass(frozen=True)
class _Array:
    """One entry of a header."""

    dtype: str
    shape: list[int]
    data_offsets: list[int]

    @property
    def size_bytes(self) -> int:
        return self.data_offsets[1] - self.data_offsets[0]


def read_shape(folder: Path) -> ModelShape:
    """Read a folder that `mlx_lm.load` takes.

    Raises:
        ValueError: a file is not what its name says; names it.
    """
    config = _config(folder / "config.json")
    arrays = {name: array for file in sorted(folder.glob("*.safetensors")) for name, array in _header(file)}
    layers: dict[int, dict[str, Linear]] = {}
    layer_bytes: dict[int, int] = {}
    for name, array in arrays.items():
        if place := IN_A_LAYER.search(name):
            layer = int(place["layer"])
            layer_bytes[layer] = layer_bytes.get(layer, 0) + array.size_bytes
            linears = layers.setdefault(layer, {})
            if place["kind"] == "weight" and len(array.shape) == 2:
                linears[place["module"]] = _linear(name.removesuffix(".weight"), arrays, config)
    return ModelShape(
        weights_bytes=sum(array.size_bytes for array in arrays.values()),
        layers=[layers[layer] for layer in sorted(layers)],
        layer_bytes=[layer_bytes[layer] for layer in sorted(layers)],
        heads=_number(config, "num_attention_heads"),
        vocabulary=_number(config, "vocab_size"),
        item_bytes=max((FLOAT_BYTES.get(array.dtype, 0) for array in arrays.values()), default=0) or 4,
    )


def _config(file: Path) -> dict[str, Any]:
    """The configuration; of a model of texts and pictures, that of its texts."""
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return config | config.get("text_config", {})
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{file}: not a model's configuration ({error}); fetch the base model again") from error


def _number(config: Mapping[str, Any], name: str) -> int:
    number = config.get(name)
    return number if isinstance(number, int) else 0


def _header(file: Path) -> Iterator[tuple[str, _Array]]:
    """The arrays of a file by name.

    Source: the safetensors format: the header's length in 8 bytes, little-endian, then the header as JSON.
    """
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(LENGTH_BYTES))
            if length > file.stat().st_size:
                raise ValueError("its header is longer than the file")
            arrays = json.loads(stream.read(length))
        yield from ((name, _Array(**array)) for name, array in arrays.items() if name != "__metadata__")
    except (struct.error, ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{file}: not a safetensors file ({error}); fetch the base model again") from error


def _linear(path: str, arrays: Mapping[str, _Array], config: Mapping[str, Any]) -> Linear:
    outputs, inputs = arrays[f"{path}.weight"].shape
    if f"{path}.scales" not in arrays:
        return Linear(inputs, outputs, quantised=False)
    quantisation = config.get("quantization") or config.get("quantization_config") or {}
    bits = (quantisation.get(path) or quantisation).get("bits", 4)  # a module can have bits of its own
    return Linear(inputs * WORD_BITS // bits, outputs, quantised=True)


COPIES = 4  # of what is trained: weights, gradients, Adam's two
KEPT = 1.4  # of what goes in and out of linear layers, for the way back
SCORES = 3  # arrays of attention weights
LOGITS = 6  # arrays of logits
FORWARD = 0.2  # of what a layer keeps, where there is no way back
FLOAT32 = 4  # bytes
SCORED_TOKENS = 3000  # whose answers are measured at a time, on two streams
PROGRAM = 300_000_000  # bytes of Python, Dagster and the BLAS
FREED = 0.15  # of all arrays: what malloc holds on to
TOKENS_A_CHARACTER, TOKENS_OF_A_CHAT = (
    0.4,
    16,
)  # of question and answer; the embedded tokenizer, a small one, needs 0.39
PADDED_TO = 32  # tokens, by mlx-lm's own batches
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes at the worst moment of a training.

    Attributes:
        weights: of the base model, as stored.
        trained: what is trained, with gradients and the optimizer's state.
        activations: kept for the way back, of one batch.
        logits: of one batch.
    """

    weights: int
    trained: int
    activations: int
    logits: int

    @property
    def arrays(self) -> int:
        """What MLX calls peak memory."""
        return self.weights + self.trained + self.activations + self.logits

    @property
    def total(self) -> int:
        """Of the whole process."""
        return self.arrays + self.program

    @property
    def program(self) -> int:
        """Of the process besides arrays."""
        return PROGRAM + int(FREED * self.arrays)


def memory_needed(base: BaseModel, recipe: Recipe, *, row_tokens: int, answer_tokens: int) -> MemoryNeed:
    """Estimate what training the recipe on the base needs, from the base's configuration and headers.

    Args:
        base: the base model.
        recipe: how to train.
        row_tokens: of the longest question with its answer.
        answer_tokens: of the longest answer.

    Raises:
        ValueError: a file of the base model is not what its name says.
    """
    shape = read_shape(base.folder)
    layers = shape.layers[-recipe.lora.num_layers :] if recipe.lora.num_layers > 0 else shape.layers
    of_layer = [_kept_of_a_token(layer, shape, recipe, row_tokens) for layer in layers]
    a_logit = LOGITS * FLOAT32 * shape.vocabulary
    width, asked = row_tokens, answer_tokens
    if recipe.method == "mlx_lm":
        width = asked = -(-row_tokens // PADDED_TO) * PADDED_TO
    unpacked = _unpacked_bytes(shape, recipe, len(layers))
    rows = recipe.curriculum.batch_rows + recipe.curriculum.rehearsed_rows
    step = rows * width * sum(of_layer) + unpacked, rows * asked * a_logit
    scored_rows = SCORED_TOKENS / row_tokens
    forward = FORWARD * SCORED_TOKENS * max(of_layer, default=0)
    scoring = forward + _merged_bytes(shape, recipe, len(layers)), scored_rows * answer_tokens * a_logit
    activations, logits = max(step, scoring, key=sum)
    trained = COPIES * _trained_bytes(shape, recipe, len(layers))
    return MemoryNeed(shape.weights_bytes, trained, int(activations), int(logits))


def refuse_too_little(need: MemoryNeed, base: BaseModel, recipe: Recipe, *, machine_bytes: int) -> None:
    """Stop before the work where it cannot fit.

    Raises:
        ValueError: the machine has less than is needed; says how much of what, and what needs less.
    """
    if need.total <= machine_bytes:
        return
    parts = ", ".join(f"{_spoken(amount)} {name}" for name, amount in [*vars(need).items(), ("program", need.program)])
    rows = recipe.curriculum.batch_rows
    smaller = f"a smaller curriculum.batch_rows (now {rows}), " if rows > 1 else ""
    raise ValueError(
        f"too little memory: training {base.name} by this recipe needs about {_spoken(need.total)} ({parts}), and there are "
        f"{_spoken(machine_bytes)}; use {smaller}fewer num_layers, a base model in 4 bits (recipe phi-3.5-mini-4bit) or the "
        "recipe embedded"
    )


def machine_memory() -> int:
    """Bytes to work in: the accelerator's, or else this machine's or the container's that this process is in."""
    if of_gpu := memory_bytes():
        return of_gpu
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in map(Path, CGROUP_LIMITS):
        text = file.read_text(encoding="ascii").strip() if file.is_file() else ""
        limits += [int(text)] if text.isdecimal() else []
    return min(limits)


def tokens_at_most(characters: int) -> int:
    """More tokens than a text of so many characters has with any tokenizer that a base model here comes with."""
    return TOKENS_OF_A_CHAT + int(TOKENS_A_CHARACTER * characters)


def _kept_of_a_token(linears: dict[str, Linear], shape: ModelShape, recipe: Recipe, row_tokens: int) -> float:
    """Bytes in one layer; DoRA keeps what comes out of a linear layer once more, to learn its magnitudes."""
    outputs = sum(linear.outputs for linear in linears.values())
    through = sum(linear.inputs for linear in linears.values()) + outputs
    magnitudes = outputs if recipe.lora.fine_tune_type == "dora" else 0
    return shape.item_bytes * (KEPT * through + magnitudes + SCORES * shape.heads * row_tokens)


def _adapted(shape: ModelShape, recipe: Recipe, layers: int) -> list[Linear]:
    named = [item for linears in shape.layers[-layers:] for item in linears.items()]
    return [linear for name, linear in named if recipe.lora.modules is None or name in recipe.lora.modules]


def _trained_bytes(shape: ModelShape, recipe: Recipe, layers: int) -> int:
    if recipe.lora.fine_tune_type == "full":
        return sum(shape.layer_bytes[-layers:])
    magnitudes = recipe.lora.fine_tune_type == "dora"
    adapted = _adapted(shape, recipe, layers)
    return FLOAT32 * sum(
        recipe.lora.rank * (each.inputs + each.outputs) + magnitudes * each.outputs for each in adapted
    )


def _unpacked_bytes(shape: ModelShape, recipe: Recipe, layers: int) -> int:
    """DoRA unpacks quantised weights, and keeps them for the way back."""
    if recipe.lora.fine_tune_type != "dora":
        return 0
    packed = [linear for linear in _adapted(shape, recipe, layers) if linear.quantised]
    return shape.item_bytes * sum(linear.inputs * linear.outputs for linear in packed)


def _merged_bytes(shape: ModelShape, recipe: Recipe, layers: int) -> int:
    """A check merges the adapter into a second copy of each weight that is not quantised; see `scoring.merged`."""
    if recipe.lora.fine_tune_type != "lora":
        return 0
    whole = [linear for linear in _adapted(shape, recipe, layers) if not linear.quantised]
    return shape.item_bytes * sum(linear.inputs * linear.outputs for linear in whole)


def _spoken(amount: int) -> str:
    return f"{amount / 1e9:,.1f} GB"
