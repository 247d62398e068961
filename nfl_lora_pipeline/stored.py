"""Reading what lies in the store: whole and of the expected form, or one error that names the file and the mend.

A process that is killed leaves nothing half-written (`files`), but disks fail, people edit, and copies break off.
"""

import json
from collections.abc import Collection, Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from nfl_lora_pipeline.dataset.qa_pairs import PAIR_COLUMNS
from nfl_lora_pipeline.files import DamagedFile, read_file

RUN_AGAIN = "`nfl-lora run` on its weeks makes it anew"
PREDICTION_COLUMNS = [*PAIR_COLUMNS, "tuned"]


class Form(BaseModel):
    """What a JSON object has to hold at least, with its types as they are."""

    model_config = ConfigDict(extra="allow", strict=True)


class RawOrigin(Form):
    """`raw.json`."""

    kind: str
    origin: str
    sha256: str
    fetched_at: str


class WeekRecord(Form):
    """`players.json`."""

    source: str
    warnings: list[str]
    accepted: bool


class SplitsRecord(Form):
    """`splits.json`."""

    weeks: list[str]
    stats: list[str]
    mode: str
    sources: dict[str, str]
    shared_names: dict[str, list[str]]


class Provenance(Form):
    """What every adapter's `provenance.json` tells, that of earlier code too."""

    weeks: list[str]
    stats: list[str]
    base_model: str
    base_revision: str
    recipe: str
    recipe_values: dict[str, Any] = {}
    rows: str
    sources: dict[str, str] | None = None
    parent: str | None = None


class Training(Form):
    """Of `training.json` what is needed of an adapter of any code."""

    iterations: int
    seconds: float


class TrainingRecord(Training):
    """`training.json` as this code writes it: `training_log.TrainingLog`."""

    losses: list[list[float]]
    certain: list[list[float]]
    facts: int
    uncertain: dict[str, float]
    lowest_probability: float
    trained_parameters: int
    tokens_per_second: float
    peak_memory_bytes: int
    stopped: str


class CertificateRecord(Form):
    """`certificate.json` as this code writes it."""

    above: float
    facts: int
    certain: int
    margins: dict[str, float]


class AdapterConfig(Form):
    """What every `adapter_config.json` has."""

    fine_tune_type: str
    num_layers: int


class Latest(Form):
    """`latest.json`."""

    adapter: str
    previous: str | None = None


class Report(Form):
    """What is used of a `report.json` of any code, where it is there."""

    raw_sha256: dict[str, str] | None = None
    recall: dict[str, float | None] | None = None
    sources: dict[str, str] = {}
    questions: list[dict[str, Any]] = []


def read_json(path: Path, form: type[Form], *, mend: str) -> dict[str, Any]:
    """A JSON object of some form.

    Raises:
        DamagedFile: it cannot be read, is no JSON, or something is missing in it or of another type.
    """
    content = read_file(path, mend=mend)
    try:
        values: dict[str, Any] = json.loads(content)
        form.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise DamagedFile(path, f"is damaged ({where}: {first['msg']})", mend) from error
    except (ValueError, RecursionError) as error:
        raise DamagedFile(path, f"is damaged (no JSON: {error})", mend) from error
    return values


def read_frame(path: Path, columns: Collection[str] | Mapping[str, Any], *, mend: str) -> pl.DataFrame:
    """A Parquet file.

    Args:
        path: the file.
        columns: the names that it has to have; with their types where it is a schema. More may be there.
        mend: what to do where it is damaged.

    Raises:
        DamagedFile: it cannot be read, or a column is missing or of another type.
    """
    content = read_file(path, mend=mend)
    try:
        frame = pl.read_parquet(content)
    except (OSError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = " ".join(str(error).split())[:100]
        raise DamagedFile(path, f"is damaged (no Parquet: {reason})", mend) from error
    if missing := [name for name in columns if name not in frame.columns]:
        raise DamagedFile(path, f"is damaged (no column {', '.join(missing)})", mend)
    wanted = columns if isinstance(columns, Mapping) else {}
    if wrong := [name for name, dtype in wanted.items() if frame.schema[name] != dtype]:
        raise DamagedFile(path, f"is damaged ({wrong[0]} is {frame.schema[wrong[0]]}, not {wanted[wrong[0]]})", mend)
    return frame


def read_predictions(report: Path, columns: Collection[str] = PREDICTION_COLUMNS) -> pl.DataFrame:
    """The predictions of a report in a folder, one row a question; reports of earlier code have fewer columns."""
    return read_frame(report / "predictions.parquet", columns, mend=RUN_AGAIN)


def read_summary(report: Path) -> dict[str, Any]:
    """The content of `report.json` in a folder, of which `Report` is sure."""
    return read_json(report / "report.json", Report, mend=RUN_AGAIN)


def check_tensors(path: Path, *, mend: str) -> None:
    """Look at the header of a safetensors file, and whether as many bytes follow as it says.

    Raises:
        DamagedFile: it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    read_file(path, mend=mend, most_bytes=1)
    try:
        with safe_open(str(path), framework="numpy"):
            pass
    except (OSError, SafetensorError) as error:
        raise DamagedFile(path, f"is damaged ({error})", mend) from error


WEIGHTS_NAME = "adapters.safetensors"
RECORDED = "weights_sha256"  # in provenance.json


def weights_record(folder: Path) -> dict[str, str]:
    """What provenance.json says of the weights in an adapter's folder."""
    return {RECORDED: _hash(folder / WEIGHTS_NAME)}


def check_weights(folder: Path, made_of: Mapping[str, Any], *, mend: str) -> None:
    """Hold an adapter's weights against the hash that was recorded when they were trained.

    Args:
        folder: of the adapter.
        made_of: its provenance. One from before the hash was recorded has none, and is taken as it is.
        mend: what to do about it, for the message.

    Raises:
        DamagedFile: they are others, or cannot be read.
    """
    file = folder / WEIGHTS_NAME
    recorded = made_of.get(RECORDED)
    try:
        found = _hash(file) if recorded else recorded
    except OSError as error:
        raise DamagedFile(file, f"cannot be read ({error.strerror})", mend) from error
    if found != recorded:
        raise DamagedFile(file, "is damaged, since its SHA-256 is not the one recorded when it was trained", mend)


def _hash(file: Path) -> str:
    with file.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()
