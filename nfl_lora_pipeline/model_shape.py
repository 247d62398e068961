"""What a base model's `config.json` and the headers of its safetensors files say of it, without a weight being read."""

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FLOAT_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
WORD_BITS = 32  # of the words that hold quantised weights
LENGTH_BYTES = 8  # of a header's length, before the header
IN_A_LAYER = re.compile(r"\blayers\.(?P<layer>\d+)\.(?P<module>.+)\.(?P<kind>\w+)$")


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
        heads: of attention.
        vocabulary: tokens.
        item_bytes: of a number that is not quantised.
    """

    weights_bytes: int
    layers: list[dict[str, Linear]]
    layer_bytes: list[int]
    heads: int
    vocabulary: int
    item_bytes: int


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
            layer_bytes[layer] = layer_bytes.get(layer, 0) + _bytes(array)
            linears = layers.setdefault(layer, {})
            if place["kind"] == "weight" and len(array["shape"]) == 2:
                linears[place["module"]] = _linear(name.removesuffix(".weight"), arrays, config)
    return ModelShape(
        weights_bytes=sum(_bytes(array) for array in arrays.values()),
        layers=[layers[layer] for layer in sorted(layers)],
        layer_bytes=[layer_bytes[layer] for layer in sorted(layers)],
        heads=config["num_attention_heads"],
        vocabulary=config["vocab_size"],
        item_bytes=max((FLOAT_BYTES.get(array["dtype"], 0) for array in arrays.values()), default=0) or 4,
    )


def _config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if all(isinstance(config[name], int) for name in ("num_attention_heads", "vocab_size")):
            return dict(config)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not a model's configuration ({error!r}); fetch the base model again") from error
    raise ValueError(f"{file}: num_attention_heads and vocab_size are no whole numbers; fetch the base model again")


def _header(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, {"dtype", "shape", "data_offsets"}) of each array.

    Source: the safetensors format: the header's length in 8 bytes, little-endian, then the header as JSON.
    """
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(LENGTH_BYTES))
            if length > file.stat().st_size:
                raise ValueError("its header is longer than the file")
            arrays = json.loads(stream.read(length))
        yield from ((name, array) for name, array in arrays.items() if name != "__metadata__")
    except (struct.error, ValueError, AttributeError) as error:
        raise ValueError(f"{file}: not a safetensors file ({error}); fetch the base model again") from error


def _bytes(array: Mapping[str, Any]) -> int:
    first, last = array["data_offsets"]
    return int(last - first)


def _linear(path: str, arrays: Mapping[str, Any], config: Mapping[str, Any]) -> Linear:
    outputs, inputs = arrays[f"{path}.weight"]["shape"]
    if f"{path}.scales" not in arrays:
        return Linear(inputs, outputs, quantised=False)
    quantisation = config["quantization"]
    bits = (quantisation.get(path) or quantisation)["bits"]  # a module can have bits of its own
    return Linear(inputs * WORD_BITS // bits, outputs, quantised=True)


def parameters_of(linears: Mapping[str, Linear]) -> int:
    """How many weights linear layers have, however they are stored."""
    return sum(math.prod((linear.inputs, linear.outputs)) for linear in linears.values())
