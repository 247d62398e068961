"""Which adapter knows which weeks, from which data, with what recall."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nfl_lora_pipeline.adapters.promotion import damaged_lines
from nfl_lora_pipeline.files import DamagedFile
from nfl_lora_pipeline.markdown import percent
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import JsonObject, read_overview
from nfl_lora_pipeline.weeks.week import spoken_weeks

Found = TypeVar("Found")
SHORT = 8
WIDE = 150  # columns, where nobody watches


@dataclass(frozen=True)
class Entry:
    """One adapter.

    Attributes:
        trained_at: UTC, ISO 8601, by its provenance; of adapters of earlier code, which have no time in it, by the file's.
        weeks: partition keys.
        parent: the adapter that its training started from.
        raw_sha256: of each week's file, by partition key; None where there is no report.
        recall: as in a report; None where there is none.
        steps: of training.
        seconds: of training.
        damage: what cannot be read of it, in words; empty where nothing is damaged.
    """

    fingerprint: str
    promoted: bool
    trained_at: str
    weeks: list[str]
    stats: list[str]
    base_model: str = ""
    recipe: str = ""
    parent: str | None = None
    raw_sha256: dict[str, str] | None = None
    recall: dict[str, float | None] | None = None
    steps: int = 0
    seconds: float = 0.0
    damage: str = ""

    @property
    def data(self) -> str | None:
        """One short hash of all weeks' files."""
        if not self.raw_sha256:
            return None
        return hashlib.sha256(json.dumps(self.raw_sha256, sort_keys=True).encode()).hexdigest()[:SHORT]

    def to_json(self) -> JsonObject:
        """All of it, JSON-serialisable."""
        return {**asdict(self), "data": self.data}


def history_of(store: Store) -> list[Entry]:
    """All adapters of a store, the newest first."""
    entries = [_entry(store, fingerprint) for fingerprint in store.adapters()]
    return sorted(entries, key=lambda entry: (entry.trained_at, entry.fingerprint), reverse=True)


def problems_of(store: Store) -> list[str]:
    """What is wrong with the link to the promoted adapter, and with the log of its moves, a line each."""
    found = []
    try:
        store.check_current()
    except DamagedFile as error:
        found.append(str(error))
    if lines := damaged_lines(store):
        numbers = ", ".join(map(str, lines))
        found.append(
            f"{store.promotions}: line {numbers} cannot be read; the next promotion leaves it out, and keeps a copy"
        )
    return found


def show_history(entries: Sequence[Entry], problems: Sequence[str] = ()) -> None:
    """Print them as a table, and below it what is damaged."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    table = Table(box=None, padding=(0, 2, 1, 0))
    for name in ("", "adapter", "trained (UTC)", "knows", "base, recipe", "data"):
        table.add_column(name, no_wrap=name in ("adapter", "trained (UTC)"))
    for name in ("trained", "nonzero", "held out", "refused"):
        table.add_column(name, justify="right")
    for entry in entries:
        table.add_row(*map(escape, _cells(entry)), style="bold" if entry.promoted else None)
    console.print(table)
    for damage in [*(entry.damage for entry in entries if entry.damage), *problems]:
        console.print(f"damaged: {escape(damage)}", soft_wrap=True)
    star = "* promoted" if any(entry.promoted for entry in entries) else "none is promoted"
    console.print(f"{star}; trained, nonzero and held out are recall; refused is of strangers", soft_wrap=True)


def _cells(entry: Entry) -> list[str]:
    parent = f"\nfrom {entry.parent[:SHORT]}" if entry.parent else ""
    recipe = Path(entry.recipe).stem if entry.recipe.endswith((".yaml", ".yml")) else entry.recipe
    names = ("trained", "nonzero", "heldout_phrasings", "refused_strangers")
    missing = "damaged" if entry.damage else "no report"
    recall = [percent(entry.recall.get(name)) for name in names] if entry.recall else [missing, "-", "-", "-"]
    return [
        "*" if entry.promoted else "",
        f"{entry.fingerprint}{parent}",
        f"{entry.trained_at[:16].replace('T', ' ')}\n{entry.steps:,} steps, {entry.seconds:.0f} s",
        f"{_spoken(entry.weeks)}\n{', '.join(entry.stats)}",
        f"{entry.base_model}\n{recipe}",
        entry.data or "-",
        *recall,
    ]


def _spoken(weeks: Sequence[str]) -> str:
    try:
        return spoken_weeks(weeks)
    except ValueError:
        return ", ".join(weeks)


def _entry(store: Store, fingerprint: str) -> Entry:
    damages: list[DamagedFile] = []

    def read(reader: Callable[[str], Found]) -> Found | None:
        try:
            return reader(fingerprint)
        except DamagedFile as error:
            damages.append(error)
            return None

    folder = store.adapter(fingerprint)
    provenance, training = read(store.provenance), read(store.training)
    overview = read(lambda _: read_overview(store.report(fingerprint))) if store.report(fingerprint).is_dir() else None
    read(store.check_adapter)
    return Entry(
        fingerprint=fingerprint,
        promoted=fingerprint == store.promoted(),
        trained_at=(provenance.trained_at if provenance else None) or _time_of(folder),
        weeks=provenance.weeks if provenance else [],
        stats=provenance.stats if provenance else [],
        base_model=provenance.base_model if provenance else "",
        recipe=provenance.recipe if provenance else "",
        parent=provenance.parent if provenance else None,
        raw_sha256=overview.raw_sha256 if overview else None,
        recall=overview.recall if overview else None,
        steps=training.iterations if training else 0,
        seconds=training.seconds if training else 0.0,
        damage=str(damages[0]) if damages else "",
    )


def _time_of(folder: Path) -> str:
    file = folder / "provenance.json"
    written_at = datetime.fromtimestamp((file if file.is_file() else folder).stat().st_mtime, UTC)
    return written_at.isoformat(timespec="seconds")
