"""Where a week's bytes come from. A source is a file in this folder with a class under `@source`; nothing else names it.

Nothing is written here, and no content is looked into: that is `players.parse_week`.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from nfl_lora_pipeline.stats import Position
from nfl_lora_pipeline.weeks.sources.download import Limits, SourceError, SourceUnreachable, WeekNotPublished
from nfl_lora_pipeline.weeks.week import NflWeek

__all__ = [
    "Changed",
    "Place",
    "RawWeek",
    "Source",
    "SourceError",
    "SourceUnreachable",
    "WeekNotPublished",
    "open_source",
]

Say = Callable[[str], None]


def quiet(line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class RawWeek:
    """A week's file as found.

    Attributes:
        week: the week asked for.
        content: the whole file.
        origin: its path or URL, as shown to people.
        kind: the name of the source that had it; `sample` marks invented people.
        fetched_at: when, in UTC.
    """

    week: NflWeek
    content: bytes
    origin: str
    kind: str
    fetched_at: datetime

    @property
    def sha256(self) -> str:
        """The hash of the content, in hex."""
        return sha256(self.content).hexdigest()

    @property
    def size(self) -> int:
        """The content's length in bytes."""
        return len(self.content)


@dataclass(frozen=True)
class Changed:
    """Whether a week is another than it was.

    Attributes:
        sha256: the hash of its content now; empty where it is as it was.
        validator: what to show when asking the next time; empty where the source gives nothing for it.
    """

    sha256: str
    validator: str


@dataclass(frozen=True)
class Place:
    """What a deployment says of where its weeks are; a source takes of it what it needs.

    Attributes:
        folder: files in upstream's layout, `{season}/{week}/{position}.json`.
        base_url: the address that upstream's layout starts from; empty for the source's own.
        sample_fallback: whether `auto` takes the bundled sample where upstream is unreachable and the sample has the week.
        limits: of a download; None for the usual ones.
        position: whose files are wanted.
    """

    folder: Path
    base_url: str = ""
    sample_fallback: bool = False
    limits: Limits | None = None
    position: Position = "WR"


class Source(Protocol):
    """One way to get weeks. Whoever inherits from it has to write `fetch` and may write the rest."""

    def fetch(self, week: NflWeek, say: Say = quiet) -> RawWeek:
        """Get a week's file, whole or not at all.

        Args:
            week: which one.
            say: is told what is waited for, such as another attempt.

        Raises:
            WeekNotPublished: there is no such week yet.
            SourceUnreachable: there was no answer, or not within its time.
            SourceError: the week cannot be had for another reason.
        """

    def where(self, week: NflWeek) -> str:
        """The place of a week, as shown to people."""
        return type(self).__name__.lower()

    def has(self, week: NflWeek) -> bool | None:
        """Whether a week is there, where that is seen without asking anybody; None where only asking tells."""
        return None

    def seasons(self) -> list[int]:
        """The seasons that there are weeks of, where that is seen without asking anybody; else none."""
        return []

    def changed(self, week: NflWeek, validator: str) -> Changed:
        """Whether a week is another than at the time of `validator`, which is empty the first time.

        Raises:
            WeekNotPublished: there is no such week, or no longer.
            SourceError: there was no answer, or none of use.
        """
        return Changed(self.fetch(week).sha256, "")

    def close(self) -> None:
        """Let go of whatever was opened for many weeks."""
        return


Opened = Callable[[Place], Source]
_sources: dict[str, Opened] = {}


def source(name: str) -> Callable[[Opened], Opened]:
    """Give a class the name under which weeks are asked for: `--source NAME`, `WeekSource(kind=NAME)`."""

    def named(opened: Opened) -> Opened:
        _sources[name] = opened
        return opened

    return named


def source_names() -> list[str]:
    """The names of all sources, sorted: every file of this folder is looked into."""
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        importlib.import_module(module.name)
    return sorted(_sources)


def open_source(name: str, place: Place) -> Source:
    """The source of a name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in source_names():
        raise ValueError(f"source {name!r}: use {', '.join(source_names())}")
    return _sources[name](place)
