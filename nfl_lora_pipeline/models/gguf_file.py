"""GGUF files as base models: read once, and kept as a folder that `mlx_lm.load` takes.

Weights are read and dequantised by the package `gguf`, whose map of names also says which tensor is which parameter; the
architecture is mlx-lm's. What is here is what lies between the two: the config that mlx-lm wants from the fields that llama.cpp
writes, and what llama.cpp's converter does to weights and must be undone.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import gguf
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import gemma3_text, llama, qwen2, qwen3
from numpy.typing import NDArray

from nfl_lora_pipeline.files import DamagedFile, locked, os_error, replace_file, replacing_folder, sweep
from nfl_lora_pipeline.models.base_model import BaseModelError
from nfl_lora_pipeline.models.gguf_tokenizer import TokenizerFields, end_tokens, write_tokenizer
from nfl_lora_pipeline.models.machine import kind

MAGIC = b"GGUF"
CONVERTER = 1  # raise it when the code makes something else of the same file
SHARD_BYTES = 2_000_000_000
MEND = "use another file, or the model's safetensors folder"
GEMMA3_27B_LAYERS = 62
FIRST_ROPE_BASE = 10_000.0
Config = dict[str, Any]  # what becomes a config.json
Array = NDArray[np.float32]
Value = TypeVar("Value", int, float, str, bool)


class Family(NamedTuple):
    """An architecture that both mlx-lm and llama.cpp have.

    Attributes:
        model_type: mlx-lm's name of it.
        module: mlx-lm's.
        arch: the package `gguf`'s name of it.
        config: what its config.json has besides what all have.
        restored: a parameter as mlx-lm takes it, from its name, what the file has and the config.
    """

    model_type: str
    module: ModuleType
    arch: gguf.MODEL_ARCH
    config: "Callable[[Source, Config], Config]"
    restored: Callable[[str, Array, Config], Array]


class Source:
    """A GGUF file that is open, and its fields; what does not fit is a `BaseModelError` that names file, field and value."""

    def __init__(self, file: Path):
        self.file = file
        try:
            with file.open("rb") as opened:
                start = opened.read(len(MAGIC))
            if start != MAGIC:
                raise BaseModelError(f"{file}: begins with {start!r}, not with {MAGIC!r}: it is no GGUF file; {MEND}")
            reader = gguf.GGUFReader(file)
        except BaseModelError:
            raise
        except OSError as error:
            raise BaseModelError(f"base model {os_error(error)}") from error
        except Exception as error:  # the reader takes what it finds for lengths and places
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise BaseModelError(f"{file}: no whole GGUF file ({reason}); download it again, or {MEND}") from error
        self.fields = reader.fields
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.arch = self.field("general.architecture", str)

    def unfit(self, field: str, value: object, wanted: str) -> BaseModelError:
        """The error for a field whose value cannot be used."""
        return BaseModelError(f"{self.file}: {field}: {value!r}, {wanted}; {MEND}")

    def field(self, name: str, kind: type[Value], default: Value | None = None) -> Value:
        """A field's value; without a default it has to be there."""
        found = self.fields.get(name)
        value = default if found is None else found.contents()
        if value is None:
            raise BaseModelError(f"{self.file}: {name}: the file has no such field; {MEND}")
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.unfit(name, value, f"not {kind.__name__}")
        return kind(value)

    def size(self, name: str, default: int | None = None) -> int:
        """A whole number above 0, a field of this architecture."""
        value = self.field(f"{self.arch}.{name}", int, default)
        if value < 1:
            raise self.unfit(f"{self.arch}.{name}", value, "not a whole number above 0")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number above 0, a field of this architecture."""
        value = self.field(f"{self.arch}.{name}", float, default)
        if not 0 < value < float("inf"):
            raise self.unfit(f"{self.arch}.{name}", value, "not a number above 0")
        return value

    def values(self, name: str, kind: type[Value]) -> list[Value] | None:
        """The values of a field that is a list; None where there is none."""
        found = self.fields.get(name)
        if found is None:
            return None
        values = found.contents()
        if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
            raise self.unfit(name, repr(values)[:40], f"not a list of {kind.__name__}")
        return values

    def rows(self, name: str) -> int:
        """How many rows a tensor has."""
        return int(self._tensor(name).shape[-1])

    def tensor(self, name: str) -> Array:
        """A tensor's numbers, dequantised, the axis that goes in last."""
        tensor = self._tensor(name)
        try:
            return gguf.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            raise self.unfit(
                f"tensor {name!r}", tensor.tensor_type.name, "a quantisation that cannot be read"
            ) from error

    def _tensor(self, name: str) -> gguf.ReaderTensor:
        if name not in self.tensors:
            raise BaseModelError(f"{self.file}: tensor {name!r} is missing; {MEND}")
        return self.tensors[name]


def converted(file: Path, *, report: Callable[[str], None] = lambda line: None) -> Path:
    """The folder, in the user's cache, with what `mlx_lm.load` takes for a GGUF file; made where there is none.

    Args:
        file: the GGUF file.
        report: told a line when the folder has to be made, which takes seconds to minutes.

    Raises:
        BaseModelError: the file is none, is damaged, or holds what cannot be read.
    """
    dtype = mx.bfloat16 if kind() else mx.float32
    place = cache_folder()
    try:
        content_hash = _content_hash(file, place)
        folder = place / f"{content_hash[:32]}-{str(dtype).removeprefix('mlx.core.')}-{CONVERTER}"
        with locked(place / f"{folder.name}.lock", purpose=f"converting {file}", on_wait=report):
            if not folder.is_dir():
                sweep(place)
                report(f"{file.name}: converted once, into {folder}")
                source = Source(file)
                with replacing_folder(folder) as unfinished:
                    _write_folder(source, unfinished, content_hash, dtype)
    except DamagedFile as error:
        raise BaseModelError(f"{file}: {error}") from error
    except OSError as error:
        raise BaseModelError(f"{file}: cannot be converted: {os_error(error)}") from error
    return folder


def cache_folder() -> Path:
    """Where converted files are kept.

    Source: https://specifications.freedesktop.org/basedir-spec/latest/
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "nfl-lora" / "gguf"


def _content_hash(file: Path, place: Path) -> str:
    """The file's SHA-256, written down under its path, size and time, since a large file takes long to read."""
    state = file.stat()
    key = sha256(repr((str(file.resolve()), state.st_size, state.st_mtime_ns, state.st_ino)).encode()).hexdigest()
    note = place / f"{key[:32]}.sha256"
    if note.is_file() and len(found := note.read_text(encoding="ascii").strip()) == 64:
        return found
    with file.open("rb") as opened:
        digest = file_digest(opened, "sha256").hexdigest()
    replace_file(note, digest.encode())
    return digest


def _write_folder(source: Source, folder: Path, content_hash: str, dtype: mx.Dtype) -> None:
    """Config, weights and tokenizer."""
    family = FAMILIES.get(source.arch)
    if family is None:
        raise source.unfit("general.architecture", source.arch, f"not one of {', '.join(FAMILIES)}")
    fields = _tokenizer_fields(source)
    config = _shared_config(source, family, fields)
    config |= family.config(source, config)
    config["converted_from"] = {"file": source.file.name, "sha256": content_hash, "converter": CONVERTER}
    _write_weights(_parameters(source, family, config), folder, dtype)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    try:
        write_tokenizer(fields, folder)
    except ValueError as error:
        raise BaseModelError(f"{source.file}: {error}; {MEND}") from error


def _shared_config(source: Source, family: Family, fields: TokenizerFields) -> Config:
    """What the config.json of every family has."""
    heads, hidden = source.size("attention.head_count"), source.size("embedding_length")
    if (experts := source.field(f"{source.arch}.expert_count", int, 0)) > 0:
        raise source.unfit(f"{source.arch}.expert_count", experts, "a mixture of experts")
    head_dim = source.size("attention.key_length", hidden // heads)
    if (rotated := source.size("rope.dimension_count", head_dim)) != head_dim:
        raise source.unfit(f"{source.arch}.rope.dimension_count", rotated, f"not the size of a head, {head_dim}")
    vocabulary = source.rows("token_embd.weight")
    if len(fields.tokens) > vocabulary:
        raise source.unfit("tokenizer.ggml.tokens", len(fields.tokens), f"more than the {vocabulary} embeddings")
    return {
        "model_type": family.model_type,
        "hidden_size": hidden,
        "num_hidden_layers": source.size("block_count"),
        "intermediate_size": source.size("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": source.size("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "rms_norm_eps": source.number("attention.layer_norm_rms_epsilon"),
        "vocab_size": vocabulary,
        "max_position_embeddings": source.size("context_length"),
        "rope_theta": source.number("rope.freq_base", FIRST_ROPE_BASE),
        "rope_scaling": _rope_scaling(source, head_dim),
        "tie_word_embeddings": "output.weight" not in source.tensors,
        "bos_token_id": fields.ids.get("bos_token"),
        "eos_token_id": end_tokens(fields),
    }


def _rope_scaling(source: Source, head_dim: int) -> Config | None:
    """How the rotation of positions is stretched, for mlx-lm's `initialize_rope`."""
    if "rope_freqs.weight" in source.tensors:
        return _llama3_scaling(source, head_dim)
    kind = source.field(f"{source.arch}.rope.scaling.type", str, "none")
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise source.unfit(f"{source.arch}.rope.scaling.type", kind, "not one of none, linear, yarn")
    scaling = {"type": kind, "factor": source.number("rope.scaling.factor")}
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = source.size("rope.scaling.original_context_length")
    return scaling


def _llama3_scaling(source: Source, head_dim: int) -> Config:
    """The scaling of Llama 3.1 and later. The file has what each frequency is divided by, mlx-lm wants what that is made of."""
    divisors = source.tensor("rope_freqs.weight")
    base = source.number("rope.freq_base", FIRST_ROPE_BASE)
    scaling = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    waves = 2 * np.pi * base ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = (8192 / waves - 1.0) / 3.0
    factor = float(divisors.max())
    expected = np.where(waves > 8192, factor, 1 / ((1 - smooth) / factor + smooth))
    expected = np.where(waves < 8192 / 4, 1.0, expected)
    if divisors.shape != expected.shape or not np.allclose(divisors, expected, rtol=1e-3):
        raise source.unfit("tensor 'rope_freqs.weight'", divisors.shape, "not the scaling of Llama 3")
    return {"rope_type": "llama3", "factor": factor, **scaling}


def _llama_config(source: Source, config: Config) -> Config:
    return {
        "attention_bias": "blk.0.attn_q.bias" in source.tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in source.tensors,
    }


def _qwen_config(source: Source, config: Config) -> Config:
    return {}


def _gemma3_config(source: Source, config: Config) -> Config:
    """What the file does not have is what llama.cpp takes it for."""
    head_dim = config["head_dim"]
    if config["num_hidden_layers"] == GEMMA3_27B_LAYERS:
        head_dim = config["hidden_size"] // config["num_attention_heads"]
    return {
        "query_pre_attn_scalar": head_dim,
        "sliding_window": source.size("attention.sliding_window"),
        "sliding_window_pattern": source.size("attention.sliding_window_pattern", 6),
        "rope_local_base_freq": source.number("rope.freq_base_swa", FIRST_ROPE_BASE),
    }


def _parameters(source: Source, family: Family, config: Config) -> Iterator[tuple[str, Array]]:
    """Every parameter of mlx-lm's model, by its name, from the tensor of the file that it is."""
    names = gguf.get_tensor_name_map(family.arch, config["num_hidden_layers"])
    model = family.module.Model(family.module.ModelArgs.from_dict(config))
    unused = set(source.tensors) - {"rope_freqs.weight"}
    for name, parameter in tree_flatten(model.parameters()):
        if name.startswith("lm_head.") and config["tie_word_embeddings"]:
            continue
        tensor = names.get_name(name, try_suffixes=(".weight", ".bias")) or name
        array = source.tensor(tensor)
        if array.shape != tuple(parameter.shape):
            raise source.unfit(f"tensor {tensor!r}", array.shape, f"not {tuple(parameter.shape)} as the fields say")
        unused.discard(tensor)
        yield name, family.restored(name, array, config)
    if unused:
        raise BaseModelError(
            f"{source.file}: tensor {min(unused)!r} has no place in a model of the family {source.arch}; {MEND}"
        )


def _as_it_is(name: str, array: Array, config: Config) -> Array:
    return array


def _unpermuted(name: str, array: Array, config: Config) -> Array:
    """llama.cpp turns neighbours, mlx-lm halves: its converter reorders the rows of q and k for the llama family."""
    *_, module, _ = name.split(".")
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}.get(module)
    if heads is None:
        return array
    return array.reshape(heads, -1, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _less_one(name: str, array: Array, config: Config) -> Array:
    """mlx-lm's norms of gemma add the 1 that llama.cpp's converter has added."""
    return array - 1 if name.endswith("norm.weight") else array


def _write_weights(parameters: Iterator[tuple[str, Array]], folder: Path, dtype: mx.Dtype) -> None:
    """As safetensors, in several files where there is much, so that no more than one file's weights are in memory."""
    shard: dict[str, mx.array] = {}
    places: dict[str, str] = {}
    size_bytes = 0
    for name, array in parameters:
        shard[name] = mx.array(array).astype(dtype)
        size_bytes += shard[name].nbytes
        if size_bytes > SHARD_BYTES:
            _write_shard(shard, folder, places)
            shard, size_bytes = {}, 0
    _write_shard(shard, folder, places)
    if len(set(places.values())) > 1:
        index = {"metadata": {}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _write_shard(shard: Mapping[str, mx.array], folder: Path, places: dict[str, str]) -> None:
    if not shard:
        return
    number = len(set(places.values()))
    name = f"model-{number:05}.safetensors" if number else "model.safetensors"
    mx.save_safetensors(str(folder / name), dict(shard), metadata={"format": "mlx"})
    places.update(dict.fromkeys(shard, name))


def _tokenizer_fields(source: Source) -> TokenizerFields:
    """What the file says of its tokenizer."""
    place = "tokenizer.ggml."
    tokens = source.values(f"{place}tokens", str)
    if not tokens:
        raise BaseModelError(f"{source.file}: {place}tokens: the file has no tokenizer; {MEND}")
    kinds = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad", "eot": "eot"}
    ids = {
        f"{short}_token": source.field(f"{place}{name}_token_id", int)
        for name, short in kinds.items()
        if f"{place}{name}_token_id" in source.fields
    }
    for name, number in ids.items():
        if not 0 <= number < len(tokens):
            raise source.unfit(f"{place}{name}_id", number, f"not below {len(tokens)}")
    flags = {name: f"{place}{name}" for name in ("add_bos_token", "add_space_prefix")}
    return TokenizerFields(
        model=source.field(f"{place}model", str),
        split=source.field(f"{place}pre", str, ""),
        tokens=tokens,
        types=source.values(f"{place}token_type", int) or [1] * len(tokens),
        scores=source.values(f"{place}scores", float),
        merges=source.values(f"{place}merges", str),
        ids=ids,
        flags={name: source.field(field, bool) for name, field in flags.items() if field in source.fields},
        chat_template=source.field("tokenizer.chat_template", str, ""),
        most_tokens=source.size("context_length"),
    )


FAMILIES = {
    "llama": Family("llama", llama, gguf.MODEL_ARCH.LLAMA, _llama_config, _unpermuted),
    "qwen2": Family("qwen2", qwen2, gguf.MODEL_ARCH.QWEN2, _qwen_config, _as_it_is),
    "qwen3": Family("qwen3", qwen3, gguf.MODEL_ARCH.QWEN3, _qwen_config, _as_it_is),
    "gemma3": Family("gemma3_text", gemma3_text, gguf.MODEL_ARCH.GEMMA3, _gemma3_config, _less_one),
}
