"""Where a week's bytes come from: a folder, upstream on GitHub, or the bundled sample. Nothing is written here."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from nfl_lora_pipeline.weeks.download import (
    LARGEST,
    Connections,
    Limits,
    SourceError,
    SourceUnreachable,
    WeekNotPublished,
    download,
    shown_url,
)
from nfl_lora_pipeline.weeks.week import NflWeek

__all__ = ["RawWeek", "SourceError", "SourceKind", "SourceUnreachable", "WeekNotPublished", "fetch_week", "read_file"]

SourceKind = Literal["auto", "folder", "github", "sample"]

UPSTREAM_URL = "https://raw.githubusercontent.com/hvpkod/NFL-Data/main/NFL-data-Players"
SAMPLE_FOLDER = Path(str(files("nfl_lora_pipeline"))) / "sample"
LOOK_LIMITS = Limits(whole_seconds=20.0, attempts=2)  # of one week: Dagster gives a whole look 60 s
VALIDATORS = {"etag": "ETag", "modified": "Last-Modified"}  # the better one first
CONDITIONS = {"etag": "If-None-Match", "modified": "If-Modified-Since"}


@dataclass(frozen=True)
class RawWeek:
    """A week's file as found.

    Attributes:
        week: the week asked for.
        content: the whole file.
        origin: its path or URL, as shown to people.
        kind: where it came from; `sample` marks invented people.
        fetched_at: when, in UTC.
    """

    week: NflWeek
    content: bytes
    origin: str
    kind: Literal["folder", "github", "sample"]
    fetched_at: datetime

    @property
    def sha256(self) -> str:
        """The hash of the content, in hex."""
        return sha256(self.content).hexdigest()

    @property
    def size(self) -> int:
        """The content's length in bytes."""
        return len(self.content)


def week_file(folder: Path, week: NflWeek) -> Path:
    """Where a folder in upstream's layout keeps a week: `{folder}/2025/1/WR.json`."""
    return folder / str(week.season) / str(week.week) / "WR.json"


def is_there(file: Path) -> bool:
    """Whether anything lies at a path; what cannot be looked at may, and `read_file` says why it cannot be read."""
    try:
        return file.exists()
    except OSError:
        return True


def week_url(base_url: str, week: NflWeek) -> str:
    """Where upstream publishes a week. A token after a `?` stays at the end."""
    try:
        address = urlsplit(base_url)
    except ValueError:
        raise SourceError(f"{shown_url(base_url)}: not an address to download from; correct the base URL") from None
    path = f"{address.path.rstrip('/')}/{week.season}/{week.week}/WR.json"
    return address._replace(path=path).geturl()


def fetch_week(
    week: NflWeek,
    *,
    kind: SourceKind = "auto",
    folder: Path,
    base_url: str = UPSTREAM_URL,
    sample_fallback: bool = False,
    limits: Limits | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> RawWeek:
    """Get a week's file, whole or not at all. The content is not looked into: that is `players.parse_week`.

    Args:
        week: which one.
        kind: `folder`, `github` and `sample` force one source; `auto` takes the folder's file where there is one, and
            downloads it otherwise.
        folder: files in upstream's layout.
        base_url: the address that upstream's layout starts from.
        sample_fallback: with `auto`, take the bundled sample where upstream is unreachable and the sample has the week.
        limits: of the download.
        say: is told of each attempt that failed, and that there is another.

    Raises:
        WeekNotPublished: upstream has no such week.
        SourceUnreachable: upstream gave no answer, or not within its time.
        SourceError: the file does not exist or cannot be read, the download broke off, or the URL is of no use.
    """
    if kind == "sample":
        return _read_sample(week)
    file = week_file(folder, week)
    if kind == "folder" or (kind == "auto" and is_there(file)):
        return _read(week, file, "folder")
    url = week_url(base_url, week)
    by_hand = _by_hand(folder, week)
    try:
        with Connections() as connections:
            answer = download(connections, url, limits=limits, by_hand=by_hand, say=say)
    except SourceUnreachable:
        if kind == "auto" and sample_fallback and week_file(SAMPLE_FOLDER, week).is_file():
            return _read_sample(week)
        raise
    if answer.status == 404:
        raise _not_published(url, by_hand)
    return RawWeek(week, answer.content, shown_url(url), "github", datetime.now(UTC))


@dataclass(frozen=True)
class Changed:
    """Upstream's answer to whether a week has changed.

    Attributes:
        content: the whole file; None where it is as it was.
        validator: what to show when asking the next time; empty where the server gives nothing for it.
    """

    content: bytes | None
    validator: str


def fetch_if_changed(
    connections: Connections, week: NflWeek, *, base_url: str, folder: Path, validator: str = ""
) -> Changed:
    """Ask upstream for a week, if it is another than at the time of `validator`: a conditional request.

    Args:
        connections: one serves many weeks.
        week: which one.
        base_url: the address that upstream's layout starts from.
        folder: where the file can be put by hand; for messages.
        validator: that of the last answer; empty for the whole file.

    Raises:
        WeekNotPublished: upstream has no such week.
        SourceError: there was no answer, or none of use.
    """
    kind, _, value = validator.partition(":")
    headers = {CONDITIONS[kind]: value} if kind in CONDITIONS else {}
    url, by_hand = week_url(base_url, week), _by_hand(folder, week)
    answer = download(connections, url, headers=headers, limits=LOOK_LIMITS, by_hand=by_hand)
    if answer.status == 404:
        raise _not_published(url, by_hand)
    given = {kind: answer.headers.get(name, "") for kind, name in VALIDATORS.items()}
    renewed = next((f"{kind}:{value}" for kind, value in given.items() if value), "")
    if answer.status == 304:
        return Changed(None, renewed or validator)
    return Changed(answer.content, renewed)


def read_file(file: Path) -> bytes:
    """The content of a file that somebody has put somewhere.

    Raises:
        FileNotFoundError: it is not there.
        SourceError: it is no file (a pipe would be waited for, a device has no end), is larger than 20 MB, or cannot be read.
    """
    try:
        _check_regular(file, file.stat())
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
            _check_regular(file, os.fstat(opened.fileno()))
            content = opened.read(LARGEST + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SourceError(f"{file}: cannot be read ({error.strerror}); mend the file or its permissions") from error
    if len(content) > LARGEST:
        raise _too_large(file, len(content))
    return content


def _check_regular(file: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        names = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = names.get(stat.S_IFMT(found.st_mode), "a device")
        raise SourceError(f"{file}: cannot be read (this is {kind}); put the file there")
    if found.st_size > LARGEST:
        raise _too_large(file, found.st_size)


def _too_large(file: Path, size: int) -> SourceError:
    return SourceError(
        f"{file}: {size:,} bytes, and no week is larger than {LARGEST / 1e6:g} MB; put the right file there"
    )


def _by_hand(folder: Path, week: NflWeek) -> str:
    return f"put the file at {week_file(folder, week)} by hand"


def _not_published(url: str, by_hand: str) -> WeekNotPublished:
    return WeekNotPublished(
        f"{shown_url(url)}: this week is not (yet) published upstream (HTTP 404); "
        f"weeks appear from Tuesday to Saturday: try again later, or {by_hand}"
    )


def _read_sample(week: NflWeek) -> RawWeek:
    file = week_file(SAMPLE_FOLDER, week)
    if not file.is_file():
        raise SourceError(f"{file}: the bundled sample has weeks 1 to 3 of 2025, not {week}; ask for one of these")
    return _read(week, file, "sample")


def _read(week: NflWeek, file: Path, kind: Literal["folder", "sample"]) -> RawWeek:
    try:
        return RawWeek(week, read_file(file), str(file), kind, datetime.now(UTC))
    except FileNotFoundError as error:
        raise SourceError(f"{file}: no such file; put {week} there, or let it be downloaded (github)") from error
