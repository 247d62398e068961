"""An MLX adapter in the forms of other engines: PEFT's for torch, and llama.cpp's GGUF.

The three mean the same update of a layer and write it down differently:

| | MLX | PEFT | GGUF |
|---|---|---|---|
| A | `lora_a` (in, r) | `lora_A.weight` (r, in) | `lora_a` (r, in) |
| B | `lora_b` (r, out) | `lora_B.weight` (out, r) | `lora_b` (out, r) |
| factor | `scale` | `lora_alpha / r` | `adapter.lora.alpha / r` |

llama.cpp's converter reorders the rows of q and k for the llama family, and so the rows of their B.

Source: https://github.com/huggingface/peft (`LoraConfig`), https://github.com/ggml-org/llama.cpp (`convert_lora_to_gguf.py`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from nfl_lora_pipeline.models.base_model import EMBEDDED, BaseModel
from nfl_lora_pipeline.stored import WEIGHTS_NAME

if TYPE_CHECKING:
    import gguf

Array = npt.NDArray[np.float32]
PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# llama.cpp's name of an architecture by the `model_type` of a config, and whether it reorders q and k.
ARCHITECTURES = {
    "llama": ("LLAMA", True),
    "mistral": ("LLAMA", True),
    "qwen2": ("QWEN2", False),
    "qwen3": ("QWEN3", False),
    "gemma3_text": ("GEMMA3", False),
    "phi3": ("PHI3", False),
}


class Pair(NamedTuple):
    """The update of one linear layer, as PEFT and GGUF have it.

    Attributes:
        a: (r, in) float32.
        b: (out, r) float32.
    """

    a: Array
    b: Array


class LoraAdapter(NamedTuple):
    """A LoRA adapter, whoever trained it.

    Attributes:
        layers: by the path of the linear layer in the model, `model.layers.0.self_attn.q_proj`.
        rank: r.
        scale: what B A is multiplied by before it is added to the layer's weight.
    """

    layers: Mapping[str, Pair]
    rank: int
    scale: float

    @property
    def alpha(self) -> float:
        """PEFT's and llama.cpp's: they divide it by the rank."""
        return self.scale * self.rank


def read_lora(adapter: Path) -> LoraAdapter:
    """Read the folder of an MLX adapter.

    Raises:
        ValueError: it is no LoRA adapter, and so has no other form than fused into its base.
    """
    import mlx.core as mx

    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if config["fine_tune_type"] != "lora":
        raise ValueError(
            f"{adapter / 'adapter_config.json'}: fine_tune_type: {config['fine_tune_type']!r}, and this form is of 'lora' "
            "alone; export with --format fused"
        )
    arrays = mx.load(str(adapter / WEIGHTS_NAME))
    assert isinstance(arrays, dict)
    found = {name: np.array(array.astype(mx.float32)) for name, array in arrays.items()}
    paths = sorted(name.removesuffix(".lora_a") for name in found if name.endswith(".lora_a"))
    layers = {
        path: Pair(np.ascontiguousarray(found[f"{path}.lora_a"].T), np.ascontiguousarray(found[f"{path}.lora_b"].T))
        for path in paths
    }
    parameters = config["lora_parameters"]
    return LoraAdapter(layers, int(parameters["rank"]), float(parameters["scale"]))


def write_peft(adapter: Path, base: str, folder: Path) -> None:
    """Write an adapter into an existing folder as `peft.PeftModel.from_pretrained` takes it.

    Args:
        adapter: the folder of an MLX adapter.
        base: the name of its base, which stands in the config for PEFT to load it.
        folder: gets `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        ValueError: it is no LoRA adapter.
    """
    from safetensors.numpy import save_file

    lora = read_lora(adapter)
    tensors = {}
    for path, pair in lora.layers.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = pair.a
        tensors[f"base_model.model.{path}.lora_B.weight"] = pair.b
    save_file(tensors, folder / PEFT_WEIGHTS, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base" if base == EMBEDDED else base,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": list(lora.layers),
    }
    (folder / PEFT_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def write_gguf(adapter: Path, base: BaseModel, file: Path) -> None:
    """Write an adapter as the GGUF file that llama.cpp takes beside its base's (`--lora FILE`).

    Args:
        adapter: the folder of an MLX adapter.
        base: its base, whose config names the architecture.
        file: is written.

    Raises:
        ValueError: it is no LoRA adapter, or llama.cpp does not know its base.
    """
    import gguf

    lora = read_lora(adapter)
    config = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    arch, reorders = _architecture(base, config)
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", lora.alpha)
    for path, pair in lora.layers.items():
        name = names.get_name(path)
        if name is None:
            raise ValueError(f"{adapter / WEIGHTS_NAME}: llama.cpp has no name for the layer {path}")
        writer.add_tensor(f"{name}.weight.lora_a", pair.a)
        writer.add_tensor(f"{name}.weight.lora_b", _reordered(path, pair.b, config) if reorders else pair.b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _architecture(base: BaseModel, config: Mapping[str, object]) -> "tuple[gguf.MODEL_ARCH, bool]":
    """What llama.cpp calls the base's architecture, and whether it reorders q and k."""
    import gguf

    if base.name == EMBEDDED:
        raise ValueError(
            "llama.cpp does not know the tokenizer of the embedded base: use --format mlx, peft or fused, or train on a base "
            "that it knows, for example --recipe smollm2-135m"
        )
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise ValueError(
            f"{base.folder / 'config.json'}: model_type: {kind!r}, and GGUF adapters are written for "
            f"{', '.join(ARCHITECTURES)}; use --format mlx, peft or fused"
        )
    name, reorders = ARCHITECTURES[kind]
    return gguf.MODEL_ARCH[name], reorders


def _reordered(path: str, b: Array, config: Mapping[str, int]) -> Array:
    """B (out, r) of q and k with its rows in llama.cpp's order: of each head neighbours where MLX has halves."""
    heads = config["num_attention_heads"]
    count = {"q_proj": heads, "k_proj": config.get("num_key_value_heads") or heads}.get(path.rsplit(".", 1)[-1])
    if count is None:
        return b
    return np.ascontiguousarray(b.reshape(count, 2, -1, b.shape[-1]).swapaxes(1, 2).reshape(b.shape))
