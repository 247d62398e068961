"""What a base model's `config.json` and the headers of its safetensors files say of it, without a weight being read."""

import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
