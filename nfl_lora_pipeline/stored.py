"""Reading what lies in the store: whole and of the expected form, or one error that names the file and the mend.

A process that is killed leaves nothing half-written (`files`), but disks fail, people edit, and copies break off. Records are
converted here, at the edge of a file, and are typed objects everywhere else.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache, partial
from hashlib import file_digest
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError

from nfl_lora_pipeline.dataset.qa_pairs import PAIR_COLUMNS
from nfl_lora_pipeline.files import DamagedFile, read_file
from nfl_lora_pipeline.stats import Position

RUN_AGAIN = "`nfl-lora run` on its weeks makes it anew"
PREDICTION_COLUMNS = [*PAIR_COLUMNS, "tuned"]
JsonObject = dict[str, JsonValue]


class Versioned(Protocol):
    """A record that is kept in a file: a pydantic model or a dataclass, with `schema_version` among its fields.

    A file without one is from before there were versions, which is version 1.

    Attributes:
        OLDEST_SCHEMA, SCHEMA: the versions of the form that this code reads; it writes the latter.
    """

    OLDEST_SCHEMA: ClassVar[int]
    SCHEMA: ClassVar[int]


Kind = TypeVar("Kind", bound=Versioned)


class Record(BaseModel):
    """What a JSON object has to hold at least, with its types as they are. What else it holds stays in it."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    OLDEST_SCHEMA: ClassVar[int] = 1
    SCHEMA: ClassVar[int] = 1

    schema_version: int = 1

    def content(self) -> JsonObject:
        """All that was given or read, for a file."""
        return self.model_dump(mode="json", exclude_unset=True)


class RawOrigin(Record):
    """`raw.json`.

    Attributes:
        kind: the name of the source.
        origin: the path or URL that the file came from.
        sha256: of the file.
        fetched_at: UTC, ISO 8601.
        position: whose file it is; earlier code, which does not say, took wide receivers alone.
    """

    kind: str
    origin: str
    sha256: str
    fetched_at: str
    position: Position = "WR"


class WeekRecord(Record):
    """`players.json`."""

    source: str
    warnings: list[str]
    accepted: bool


class SplitsRecord(Record):
    """`splits.json`."""

    weeks: list[str]
    stats: list[str]
    mode: str
    sources: dict[str, str]
    shared_names: dict[str, list[str]]


class Provenance(Record):
    """What an adapter was made of (`provenance.json`). What has a default is missing in those of earlier code.

    Attributes:
        weeks: partition keys.
        base_model, base_revision: as `base_model.resolve` names them.
        recipe: its name or path.
        recipe_values: all its keys.
        rows: a hash of the splits.
        sources: the name of the source of each week ("sample": invented people), by partition key; None where not on record.
        parent: the fingerprint of the adapter that its training started from.
        mode: how the splits were made.
        shared_names: by partition key, names of several people, of whom nothing is taught.
        code: the version of the code that trained.
        weights_sha256: of `adapters.safetensors`, as it was written.
        trained_at: when its training ended, UTC, ISO 8601; None where it is not on record.
    """

    weeks: list[str]
    stats: list[str]
    base_model: str
    base_revision: str
    recipe: str
    recipe_values: JsonObject = {}
    rows: str
    sources: dict[str, str] | None = None
    parent: str | None = None
    mode: str = ""
    shared_names: dict[str, list[str]] = {}
    code: str | None = None
    weights_sha256: str | None = None
    trained_at: str | None = None


class Training(Record):
    """Of `training.json` what is needed of an adapter of any code."""

    iterations: int
    seconds: float


class TrainingRecord(Training):
    """`training.json` as this code writes it: `records.TrainingLog`."""

    losses: list[tuple[int, float]]
    certain: list[tuple[int, float]]
    facts: int
    uncertain: dict[str, float]
    lowest_probability: float
    trained_parameters: int
    tokens_per_second: float
    peak_memory_bytes: int
    stopped: str


class CertificateRecord(Record):
    """`certificate.json` as this code writes it."""

    above: float
    facts: int
    certain: int
    uncertain: dict[str, float]
    margins: dict[str, float]
    answer_margins: dict[str, float] = {}  # missing in those of earlier code, as what follows
    asked: dict[str, str] = {}

    def is_certain(self, fact: str) -> bool:
        """Whether a fact was certain in every phrasing."""
        return fact in self.margins and fact not in self.uncertain


class AdapterConfig(Record):
    """What every `adapter_config.json` has."""

    fine_tune_type: str
    num_layers: int


class Latest(Record):
    """`latest.json`."""

    adapter: str
    previous: str | None = None
    base_model: str = ""


@dataclass(frozen=True)
class Miss:
    """A question whose answer is not the one that was expected."""

    question: str
    expected: str
    answer: str


class ShownQuestion(Record):
    """One of the questions that a report begins with, and what the tuned model answers."""

    question: str
    tuned: str | None = None


class GateVerdict(Record):
    """What a report says of one gate; `passed` is None where it was not judged."""

    name: str
    passed: bool | None
    explanation: str = ""


class HeldBackCount(Record):
    """How many numbers of a group of questions were right, and wrong, and not told (`metrics.HeldBack`)."""

    right: int
    wrong: int


class SurenessOverview(Record):
    """What is used of `metrics.Sureness`."""

    held_back: list[HeldBackCount] = []


class ReportOverview(Record):
    """What is used of a `report.json` of any code, where it is there; `summary.Summary` is all of it."""

    SCHEMA: ClassVar[int] = 4

    adapter: str = ""
    evaluation_code: str = ""
    raw_sha256: dict[str, str] | None = None
    recall: dict[str, float | None] | None = None
    sources: dict[str, str] = {}
    seconds: dict[str, float] = {}
    questions: list[ShownQuestion] = []
    gates: list[GateVerdict] | None = None
    sureness: SurenessOverview = SurenessOverview()


def read_json(path: Path, kind: type[Kind], *, mend: str) -> Kind:
    """A record that is kept as a JSON object.

    Raises:
        DamagedFile: it cannot be read, is no JSON, is of a form that this code does not read, or something is missing in it or
            of another type.
    """
    return parse_json(read_file(path, mend=mend), kind, mend=mend, damage=partial(DamagedFile, path))


def parse_json(content: bytes, kind: type[Kind], *, mend: str, damage: Callable[[str, str], ValueError]) -> Kind:
    """A record of the content of a JSON object.

    Args:
        content: of the file, or of whatever holds it.
        kind: of the record.
        mend: what to do where it is damaged.
        damage: makes the error that is raised, of what is wrong and the mend.
    """
    try:
        version = _adapter(Record).validate_json(content).schema_version
        if version > kind.SCHEMA:
            wrong = f"is of schema version {version}, which newer code has written; this code reads up to {kind.SCHEMA}"
            raise damage(wrong, f"update nfl_lora_pipeline, or {mend}")
        if version < kind.OLDEST_SCHEMA:
            wrong = f"is of schema version {version}, and this code reads from {kind.OLDEST_SCHEMA} on"
            raise damage(wrong, mend)
        return _adapter(kind).validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise damage(f"is damaged ({where}: {first['msg']})", mend) from error


def to_json(record: Versioned) -> JsonObject:
    """A record as it is kept in a file."""
    content: JsonObject = _adapter(type(record)).dump_python(record, mode="json")
    return content


def json_bytes(content: JsonValue) -> bytes:
    """The content of a JSON file that people can read."""
    return (json.dumps(content, indent=2) + "\n").encode()


@cache
def _adapter(kind: type[Kind]) -> TypeAdapter[Kind]:
    return TypeAdapter(kind)


def read_frame(path: Path, columns: Collection[str] | Mapping[str, pl.DataType], *, mend: str) -> pl.DataFrame:
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


def read_overview(report: Path) -> ReportOverview:
    """What is used of the `report.json` in a folder."""
    return read_json(report / "report.json", ReportOverview, mend=RUN_AGAIN)


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


def weights_hash(folder: Path) -> str:
    """The SHA-256 of the weights in an adapter's folder, for `Provenance.weights_sha256`."""
    return _hash(folder / WEIGHTS_NAME)


def check_weights(folder: Path, provenance: Provenance, *, mend: str) -> None:
    """Hold an adapter's weights against the hash that was recorded when they were trained.

    Args:
        folder: of the adapter.
        provenance: of the adapter. One from before the hash was recorded has none, and is taken as it is.
        mend: what to do about it, for the message.

    Raises:
        DamagedFile: they are others, or cannot be read.
    """
    if provenance.weights_sha256 is None:
        return
    file = folder / WEIGHTS_NAME
    try:
        found = _hash(file)
    except OSError as error:
        raise DamagedFile(file, f"cannot be read ({error.strerror})", mend) from error
    if found != provenance.weights_sha256:
        raise DamagedFile(file, "is damaged, since its SHA-256 is not the one recorded when it was trained", mend)


def _hash(file: Path) -> str:
    with file.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()
