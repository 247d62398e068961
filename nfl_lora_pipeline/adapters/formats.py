"""An MLX adapter in the forms of other engines, PEFT on torch and llama.cpp, and asked again by them.

The forms mean the same update of a layer and write it down differently:

| | MLX | PEFT | GGUF |
|---|---|---|---|
| A | `lora_a` (in, r) | `lora_A.weight` (r, in) | `lora_a` (r, in) |
| B | `lora_b` (r, out) | `lora_B.weight` (out, r) | `lora_b` (out, r) |
| factor | `scale` | `lora_alpha / r` | `adapter.lora.alpha / r` |

llama.cpp orders the rows of q and k otherwise for the llama family, and so the rows of their B.

Source: https://github.com/huggingface/peft (`LoraConfig`), https://github.com/ggml-org/llama.cpp (`convert_lora_to_gguf.py`).
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from nfl_lora_pipeline.adapters import engine_worker
from nfl_lora_pipeline.adapters.engine_worker import Answered, Asked
from nfl_lora_pipeline.files import EMBEDDED
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.base_model import BaseModel
from nfl_lora_pipeline.models.prompt import ANSWER_TOKENS, Tokenizer, prompt_tokens
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


def base_as_exported(base: str) -> str:
    """What an export calls its base: the embedded one is in nobody's hub, and lies beside it in the folder `base`."""
    return "base" if base == EMBEDDED else base


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
        "base_model_name_or_path": base_as_exported(base),
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


class Engine(NamedTuple):
    """What an engine is given.

    Attributes:
        written: writes the adapter in the engine's form into an empty folder, and says where it lies.
        base: what it loads of the base.
        missing: what is to be done where it is not installed.
    """

    written: Callable[[Path, BaseModel, Path], Path]
    base: Callable[[BaseModel], Path]
    missing: str


def _as_peft(adapter: Path, base: BaseModel, folder: Path) -> Path:
    write_peft(adapter, base.name, folder)
    return folder


def _as_gguf(adapter: Path, base: BaseModel, folder: Path) -> Path:
    write_gguf(adapter, base, folder / "adapter.gguf")
    return folder / "adapter.gguf"


def _gguf_base(base: BaseModel) -> Path:
    file = base_models.gguf_of(base)
    if file is None:
        raise ValueError(
            f"base model {base.name!r}: llama.cpp needs it as a GGUF file; train on that: --base-model FILE.gguf"
        )
    return file


ENGINES = {
    "peft": Engine(_as_peft, lambda base: base.folder, "pip install 'nfl-lora-pipeline[peft]'"),
    "llama.cpp": Engine(_as_gguf, _gguf_base, "pip install 'nfl-lora-pipeline[llama-cpp]'"),
}


class Replies(NamedTuple):
    """What an engine answered.

    Attributes:
        engine: its name and version.
        answers: one a question.
        seconds: for all of them, loading not counted.
    """

    engine: str
    answers: list[str]
    seconds: float


def ask(
    name: str,
    base: BaseModel,
    adapter: Path,
    tokenizer: Tokenizer,
    questions: Sequence[str],
    *,
    python: str = sys.executable,
) -> Replies:
    """Answer questions with another engine, greedily, from the same token ids.

    Args:
        name: of `ENGINES`.
        base: the adapter's base.
        adapter: the folder of an MLX adapter; the engine gets it in its own form.
        tokenizer: the base's, as mlx-lm loads it.
        questions: each is asked by itself.
        python: an interpreter that has the engine.

    Raises:
        ValueError: the adapter has no such form, or the engine is not there or ends without an answer.
    """
    engine = ENGINES[name]
    with tempfile.TemporaryDirectory() as folder:
        asked = Asked(
            base=str(engine.base(base)),
            adapter=str(engine.written(adapter, base, Path(folder))),
            prompts=[prompt_tokens(tokenizer, [{"role": "user", "content": question}]) for question in questions],
            ends=sorted(tokenizer.eos_token_ids),
            most=ANSWER_TOKENS,
        )
        found = _answered(name, engine, asked, python)
    answers = [tokenizer.decode(tokens).strip() for tokens in found["answers"]]
    return Replies(found["engine"], answers, found["seconds"])


def _answered(name: str, engine: Engine, asked: Asked, python: str) -> Answered:
    """What the engine's process says, or one error with its last line."""
    command = [python, engine_worker.__file__, name]
    try:
        done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
    except OSError as error:
        raise ValueError(f"{python}: cannot be run ({error.strerror}); name an interpreter that has {name}") from error
    if done.returncode == 0:
        answered: Answered = json.loads(done.stdout.splitlines()[-1])
        return answered
    lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
    if "ModuleNotFoundError" in lines[-1]:
        raise ValueError(
            f"{name} is not installed for {python} ({lines[-1]}): {engine.missing}, or name an interpreter that has it with "
            "--python"
        )
    raise ValueError(f"{name} gave no answers: {lines[-1]}")
