"""Which adapter knows which weeks, from which data, with what recall."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nfl_lora_pipeline.reports.markdown import percent
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.week import spoken_weeks

SHORT = 8
WIDE = 150  # columns, where nobody watches


@dataclass(frozen=True)
class Entry:
    """One adapter.

    Attributes:
        trained_at: UTC, ISO 8601.
        weeks: partition keys.
        parent: the adapter that its training started from.
        raw_sha256: of each week's file, by partition key; None where there is no report.
        recall: as in a report; None where there is none.
        steps: of training.
        seconds: of training.
    """

    fingerprint: str
    promoted: bool
    trained_at: str
    weeks: list[str]
    stats: list[str]
    base_model: str
    recipe: str
    parent: str | None
    raw_sha256: dict[str, str] | None
    recall: dict[str, float | None] | None
    steps: int
    seconds: float

    @property
    def data(self) -> str | None:
        """One short hash of all weeks' files."""
        if not self.raw_sha256:
            return None
        return hashlib.sha256(json.dumps(self.raw_sha256, sort_keys=True).encode()).hexdigest()[:SHORT]

    def to_json(self) -> dict[str, Any]:
        """All of it, JSON-serialisable."""
        return asdict(self) | {"data": self.data}


def history_of(held: Store) -> list[Entry]:
    """All adapters of a store, the newest first."""
    entries = [_entry(held, fingerprint) for fingerprint in held.adapters()]
    return sorted(entries, key=lambda entry: (entry.trained_at, entry.fingerprint), reverse=True)


def show_history(entries: Sequence[Entry]) -> None:
    """Print them as a table."""
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
    console.print("* promoted; trained, nonzero and held out are recall; refused is of strangers", soft_wrap=True)


def _cells(entry: Entry) -> list[str]:
    parent = f"\nfrom {entry.parent[:SHORT]}" if entry.parent else ""
    recipe = Path(entry.recipe).stem if entry.recipe.endswith((".yaml", ".yml")) else entry.recipe
    names = ("trained", "nonzero", "heldout_phrasings", "refused_strangers")
    recall = [percent(entry.recall[name]) for name in names] if entry.recall else ["no report", "-", "-", "-"]
    return [
        "*" if entry.promoted else "",
        f"{entry.fingerprint}{parent}",
        f"{entry.trained_at[:16].replace('T', ' ')}\n{entry.steps:,} steps, {entry.seconds:.0f} s",
        f"{spoken_weeks(entry.weeks)}\n{', '.join(entry.stats)}",
        f"{entry.base_model}\n{recipe}",
        entry.data or "-",
        *recall,
    ]


def _entry(held: Store, fingerprint: str) -> Entry:
    folder, made_of = held.adapter(fingerprint), held.provenance(fingerprint)
    log = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    file = held.report(fingerprint) / "report.json"
    report = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    trained_at = datetime.fromtimestamp((folder / "provenance.json").stat().st_mtime, UTC)
    return Entry(
        fingerprint=fingerprint,
        promoted=fingerprint == held.promoted(),
        trained_at=trained_at.isoformat(timespec="seconds"),
        weeks=made_of["weeks"],
        stats=made_of["stats"],
        base_model=made_of["base_model"],
        recipe=made_of["recipe"],
        parent=made_of.get("parent"),
        raw_sha256=report.get("raw_sha256"),
        recall=report.get("recall"),
        steps=log["iterations"],
        seconds=log["seconds"],
    )
