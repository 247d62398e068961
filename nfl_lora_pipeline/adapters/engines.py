"""An adapter asked by other engines than the one that it was trained with: HF PEFT on torch, and llama.cpp."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from nfl_lora_pipeline.adapters import engine_worker
from nfl_lora_pipeline.adapters.engine_worker import Answered, Asked
from nfl_lora_pipeline.adapters.formats import write_gguf, write_peft
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.base_model import BaseModel
from nfl_lora_pipeline.models.prompt import ANSWER_TOKENS, Tokenizer, prompt_tokens


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
