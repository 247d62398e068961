"""An adapter to take away: fused into its base, or with what is needed to use it.

mlx-lm's own `fuse` rounds the layers of a quantised base back to the grid they came from, and whatever of the adapter is
finer than the grid is gone. Here the adapted layers are written in the precision that the base computes in, the others as
they were; mlx-lm reads such a mixture by itself, since a layer without scales is a plain one.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import yaml

from nfl_lora_pipeline.adapters.formats import base_as_exported, write_gguf, write_peft
from nfl_lora_pipeline.files import EMBEDDED, DamagedFile, replacing_folder
from nfl_lora_pipeline.markdown import percent, table
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.base_model import BaseModel, Model
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import WEIGHTS_NAME, JsonObject, Provenance, Record, json_bytes, read_overview

MARK = "export.json"  # the file by which a folder is known as an export, which another one may replace
ADAPTER_FILES = (WEIGHTS_NAME, "adapter_config.json", "provenance.json")
WEIGHTS = ("*.safetensors", "model.safetensors.index.json")


class ExportMark(Record):
    """`export.json`: what an export holds."""

    kind: Literal["adapter", "fused"]
    fingerprint: str
    weeks: list[str]
    stats: list[str]
    base_model: str
    base_revision: str


def fuse(base: BaseModel, adapter: Path, folder: Path) -> None:
    """Write base and adapter as one model into an existing, empty folder, which `mlx_lm.load` takes by itself.

    Raises:
        ValueError: mlx-lm cannot load the two.
    """
    model, _, config = base_models.load_with_config(base, adapter=adapter)
    from mlx_lm.utils import save_config, save_model

    adapted = fuse_layers(model)
    _copy_all_but_weights(base.folder, folder)
    save_model(folder, model)
    save_config(_without_layers(config, adapted), folder / "config.json", keep_vision_config=True)


def fuse_layers(model: Model) -> set[str]:
    """Put plain layers in the place of a model's LoRA layers.

    Returns:
        Their names; none where whole layers were trained, which a loaded model has in their places already.
    """
    from mlx.utils import tree_unflatten

    adapted = {name: module for name, module in model.named_modules() if hasattr(module, "fuse")}
    model.update_modules(tree_unflatten([(name, module.fuse(dequantize=True)) for name, module in adapted.items()]))
    return set(adapted)


def export_fused(store: Store, fingerprint: str, folder: Path, *, check: Callable[[Path], None]) -> None:
    """Write an adapter of the store, fused into its base, to `folder`.

    Args:
        store: the store.
        fingerprint: of the adapter.
        folder: need not exist; an earlier export in it is replaced.
        check: looks at the finished model before it takes its place; what it raises keeps it from doing so.

    Raises:
        ValueError: `folder` holds something else or cannot be written; or base and adapter cannot be loaded.
    """
    provenance = store.provenance(fingerprint)
    store.check_adapter(fingerprint)
    base = base_models.resolve(provenance.base_model)
    with _exporting(folder) as unfinished:
        fuse(base, store.adapter(fingerprint), unfinished)
        check(unfinished)
        use = (
            "    mlx_lm.generate --model . --temp 0 --prompt '...'\n    mlx_lm.server --model . --port 8080\n\n"
            "It is a whole model: base and adapter are one, and whatever takes an MLX model takes it."
        )
        mark = _mark("fused", fingerprint, provenance)
        _sign(unfinished, store, mark, use=use, library="mlx", single_turn=base.single_turn)


class Format(NamedTuple):
    """A form in which an adapter is handed out beside its base.

    Attributes:
        write: the files, into an empty folder, from the adapter's folder and its base's name.
        use: how they are used, from the base's name; Markdown.
        library: the hub's name of what reads them.
    """

    write: Callable[[Path, str, Path], None]
    use: Callable[[str], str]
    library: str


def _write_mlx(adapter: Path, base: str, folder: Path) -> None:
    for name in ADAPTER_FILES:
        shutil.copyfile(adapter / name, folder / name)
    _with_embedded_base(base, folder)


def _write_peft(adapter: Path, base: str, folder: Path) -> None:
    write_peft(adapter, base, folder)
    _with_embedded_base(base, folder)


def _write_gguf(adapter: Path, base: str, folder: Path) -> None:
    resolved = base_models.resolve(base)
    write_gguf(adapter, resolved, folder / GGUF_NAME)
    if file := base_models.gguf_of(resolved):
        shutil.copyfile(file, folder / GGUF_BASE)
    (folder / "Modelfile").write_text(
        f"# ollama create NAME -f Modelfile; {GGUF_BASE} is a GGUF file of the base\n"
        f"FROM ./{GGUF_BASE}\nADAPTER ./{GGUF_NAME}\nPARAMETER temperature 0\n",
        encoding="utf-8",
    )


def _with_embedded_base(base: str, folder: Path) -> None:
    if base == EMBEDDED:
        shutil.copytree(base_models.EMBEDDED_FOLDER, folder / "base")


def _use_mlx(base: str) -> str:
    options = f"--model {base_as_exported(base)} --adapter-path ."
    return f"    mlx_lm.generate {options} --temp 0 --prompt '...'\n    mlx_lm.server {options} --port 8080"


def _use_peft(base: str) -> str:
    return (
        f'    base = transformers.AutoModelForCausalLM.from_pretrained("{base_as_exported(base)}")\n'
        '    model = peft.PeftModel.from_pretrained(base, ".")'
    )


def _use_gguf(base: str) -> str:
    return (
        f"    llama-server -m {GGUF_BASE} --lora {GGUF_NAME} --temp 0\n    ollama create NAME -f Modelfile\n\n"
        f"{GGUF_BASE} is a GGUF file of {base_as_exported(base)}. Give Ollama this file and not the "
        "adapter as safetensors: from those it reads the scale and does not use it."
    )


GGUF_NAME, GGUF_BASE = "adapter.gguf", "base.gguf"
FORMATS = {
    "mlx": Format(_write_mlx, _use_mlx, "mlx"),
    "peft": Format(_write_peft, _use_peft, "peft"),
    "gguf": Format(_write_gguf, _use_gguf, "llama.cpp"),
}


def export_adapter(store: Store, fingerprint: str, folder: Path, *, form: str = "mlx") -> None:
    """Write an adapter of the store to `folder`, with the base where that is the embedded one.

    Args:
        store: the store.
        fingerprint: of the adapter.
        folder: need not exist; an earlier export in it is replaced.
        form: of `FORMATS`.

    Raises:
        ValueError: `folder` holds something else, or cannot be written; or the adapter has no such form.
    """
    provenance = store.provenance(fingerprint)
    store.check_adapter(fingerprint)
    base = provenance.base_model
    with _exporting(folder) as unfinished:
        FORMATS[form].write(store.adapter(fingerprint), base, unfinished)
        use = f"{FORMATS[form].use(base)}\n\nIt works on this base alone."
        _sign(unfinished, store, _mark("adapter", fingerprint, provenance), use=use, library=FORMATS[form].library)


@contextmanager
def _exporting(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder`, where nothing else is lost by that."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise ValueError(f"{folder} is not empty, and no earlier export; name another folder, or empty this one")
    try:
        with replacing_folder(folder.resolve()) as unfinished:
            yield unfinished
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written: {error}") from error


def _copy_all_but_weights(source: Path, folder: Path) -> None:
    """The tokenizer, its chat template and whatever else lies beside a model's weights, to the letter."""
    weights = {file for pattern in WEIGHTS for file in source.glob(pattern)}
    for file in sorted(set(source.iterdir()) - weights):
        if file.is_file() and not file.name.startswith(".") and file.suffix.lower() != ".md":
            shutil.copyfile(file, folder / file.name)


def _without_layers(config: JsonObject, layers: set[str]) -> JsonObject:
    """A model's config that names no quantisation of these layers."""
    kept = {}
    for key in ("quantization", "quantization_config"):
        of_layers = config.get(key)
        if isinstance(of_layers, dict):
            kept[key] = {name: of_layers[name] for name in of_layers if name not in layers}
    return config | kept


def _mark(kind: Literal["adapter", "fused"], fingerprint: str, provenance: Provenance) -> ExportMark:
    return ExportMark(
        schema_version=ExportMark.SCHEMA,
        kind=kind,
        fingerprint=fingerprint,
        weeks=provenance.weeks,
        stats=provenance.stats,
        base_model=provenance.base_model,
        base_revision=provenance.base_revision,
    )


def _sign(folder: Path, store: Store, mark: ExportMark, *, use: str, library: str, single_turn: bool = False) -> None:
    """Write what the folder is for programs, and a model card for people and for the hub."""
    (folder / MARK).write_bytes(json_bytes(mark.content()))
    embedded = mark.base_model == EMBEDDED
    front = {
        "base_model": None if embedded else mark.base_model,
        "library_name": library,
        "license": base_models.card_of(base_models.EMBEDDED_FOLDER)["license"] if embedded else None,
        "pipeline_tag": "text-generation",
        "tags": ["lora", "question-answering", "nfl"],
        "single_turn": single_turn or None,  # which `base_model.card_of` reads
    }
    told = yaml.safe_dump({key: value for key, value in front.items() if value is not None}, sort_keys=False)
    title = f"# Adapter {mark.fingerprint}{', fused into its base' if mark.kind == 'fused' else ''}"
    knows = (
        f"Knows {', '.join(mark.stats)} of {', '.join(mark.weeks)}. Base: {mark.base_model}, revision {mark.base_revision} by "
        "this project's count; its licence holds. Made by nfl_lora_pipeline."
    )
    parts = [
        f"---\n{told}---\n{title}",
        knows,
        *_of_report(store, mark.fingerprint),
        f"## Use\n\nIn this folder:\n\n{use}",
    ]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _of_report(store: Store, fingerprint: str) -> list[str]:
    """What the adapter's report says, as sections of a card: recall, limits, examples; none where there is no report."""
    try:
        overview = read_overview(store.report(fingerprint))
    except DamagedFile:
        return ["Nobody has evaluated it: there is no report on it."]
    recall = [[name.replace("_", " "), percent(share)] for name, share in (overview.recall or {}).items()]
    gates = overview.gates or []
    missed = [f"- {gate.explanation or gate.name}" for gate in gates if gate.passed is not True]
    limits = "\n".join(missed) or "It missed none of the gates of its recipe."
    if held_back := overview.sureness.held_back:
        wrong, right = sum(each.wrong for each in held_back), sum(each.right for each in held_back)
        limits += (
            f"\n\nThese figures are of answers in this package, which holds back numbers that it is not sure of. Other engines "
            f"say them: {wrong:,} more wrong ones and {right:,} more right ones in the same questions."
        )
    examples = [f"> {each.question}\n>\n> {each.tuned}" for each in overview.questions]
    return [
        "## Recall\n\n" + table(["answered right", "share"], recall).rstrip(),
        f"## Limits\n\nWhat was not taught, it may make up. Of the gates of its recipe:\n\n{limits}",
        *(["## Examples\n\n" + "\n\n".join(examples)] if examples else []),
    ]
