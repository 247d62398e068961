"""Where a week's bytes come from: a folder, upstream on GitHub, or the bundled sample. Nothing is written here."""

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nfl_lora_pipeline.weeks.week import NflWeek

if TYPE_CHECKING:
    from requests import Response, Session

SourceKind = Literal["auto", "folder", "github", "sample"]

UPSTREAM_URL = "https://raw.githubusercontent.com/hvpkod/NFL-Data/main/NFL-data-Players"
SAMPLE_FOLDER = Path(str(files("nfl_lora_pipeline"))) / "sample"
READ_SECONDS = 20.0
BUSY = (429, 500, 502, 503, 504)
VALIDATORS = {"etag": "ETag", "modified": "Last-Modified"}  # the better one first
CONDITIONS = {"etag": "If-None-Match", "modified": "If-Modified-Since"}


class SourceError(ValueError):
    """A week's bytes could not be had; the message names the file or URL, and the mend."""


class WeekNotPublished(SourceError):
    """Upstream answered that it has no such week (404)."""


class SourceUnreachable(SourceError):
    """Upstream gave no answer: no network, a timeout, or an error of the server's own (429, 5xx)."""


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


def week_url(base_url: str, week: NflWeek) -> str:
    """Where upstream publishes a week."""
    return f"{base_url.rstrip('/')}/{week.season}/{week.week}/WR.json"


def fetch_week(
    week: NflWeek,
    *,
    kind: SourceKind = "auto",
    folder: Path,
    base_url: str = UPSTREAM_URL,
    sample_fallback: bool = False,
    connect_seconds: float = 5.0,
    read_seconds: float = READ_SECONDS,
    attempts: int = 3,
    backoff_seconds: float = 0.5,
) -> RawWeek:
    """Get a week's file, whole or not at all. The content is not looked into: that is `players.parse_week`.

    Args:
        week: which one.
        kind: `folder`, `github` and `sample` force one source; `auto` takes the folder's file where there is one, and
            downloads it otherwise.
        folder: files in upstream's layout.
        base_url: the address that upstream's layout starts from.
        sample_fallback: with `auto`, take the bundled sample where upstream is unreachable and the sample has the week.
        connect_seconds: how long to wait for a connection.
        read_seconds: how long to wait for the next bytes.
        attempts: how often to ask in all.
        backoff_seconds: the wait before the third attempt; it doubles from there. The second follows at once.

    Raises:
        WeekNotPublished: upstream has no such week.
        SourceUnreachable: upstream gave no answer in `attempts` attempts.
        SourceError: the file does not exist or cannot be read, the download broke off, or the URL is of no use.
    """
    if kind == "sample":
        return _read_sample(week)
    file = week_file(folder, week)
    if kind == "folder" or (kind == "auto" and file.is_file()):
        return _read(week, file, "folder")
    url = week_url(base_url, week)
    by_hand = f"put the file at {file} by hand"
    try:
        with open_session(attempts, backoff_seconds) as session:
            content = _get(session, url, (connect_seconds, read_seconds), by_hand).content
    except SourceUnreachable:
        if kind == "auto" and sample_fallback and week_file(SAMPLE_FOLDER, week).is_file():
            return _read_sample(week)
        raise
    return RawWeek(week, content, url, "github", datetime.now(UTC))


@dataclass(frozen=True)
class Changed:
    """Upstream's answer to whether a week has changed.

    Attributes:
        content: the whole file; None where it is as it was.
        validator: what to show when asking the next time; empty where the server gives nothing for it.
    """

    content: bytes | None
    validator: str


def fetch_if_changed(session: "Session", week: NflWeek, *, base_url: str, folder: Path, validator: str = "") -> Changed:
    """Ask upstream for a week, if it is another than at the time of `validator`: a conditional request.

    Args:
        session: of `open_session`; one serves many weeks.
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
    by_hand = f"put the file at {week_file(folder, week)} by hand"
    response = _get(session, week_url(base_url, week), (5.0, READ_SECONDS / 2), by_hand, headers)
    given = {kind: response.headers.get(name, "") for kind, name in VALIDATORS.items()}
    renewed = next((f"{kind}:{value}" for kind, value in given.items() if value), "")
    if response.status_code == 304:
        return Changed(None, renewed or validator)
    return Changed(response.content, renewed)


def _read_sample(week: NflWeek) -> RawWeek:
    file = week_file(SAMPLE_FOLDER, week)
    if not file.is_file():
        raise SourceError(f"{file}: the bundled sample has weeks 1 to 3 of 2025, not {week}; ask for one of these")
    return _read(week, file, "sample")


def _read(week: NflWeek, file: Path, kind: Literal["folder", "sample"]) -> RawWeek:
    try:
        return RawWeek(week, file.read_bytes(), str(file), kind, datetime.now(UTC))
    except FileNotFoundError as error:
        raise SourceError(f"{file}: no such file; put {week} there, or let it be downloaded (github)") from error
    except OSError as error:
        raise SourceError(f"{file}: cannot be read ({error.strerror}); mend the file or its permissions") from error


def open_session(attempts: int = 2, backoff_seconds: float = 0.5) -> "Session":
    """A connection that asks a busy server again; close it after use."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        total=attempts - 1,
        backoff_factor=backoff_seconds / 2,
        status_forcelist=BUSY,
        allowed_methods={"GET"},
        raise_on_status=False,
        respect_retry_after_header=False,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def _get(
    session: "Session", url: str, timeout: tuple[float, float], by_hand: str, headers: dict[str, str] | None = None
) -> "Response":
    """Get a URL's whole content: urllib3 counts the bytes as they arrive, packed or not, against Content-Length.

    With `headers` that set a condition, 304 is an answer as good as 200.
    """
    import requests

    try:
        response = session.get(url, timeout=timeout, headers=headers)
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
        raise SourceError(f"{url}: the download broke off ({error}); nothing was kept: fetch it again") from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise SourceUnreachable(f"{url}: no answer ({_innermost(error)}); check the network, or {by_hand}") from error
    except requests.RequestException as error:
        raise SourceError(f"{url}: not an address to download from ({error}); correct the base URL") from error
    status = f"HTTP {response.status_code} {response.reason}"
    if response.status_code == 404:
        raise WeekNotPublished(
            f"{url}: this week is not (yet) published upstream ({status}); "
            f"weeks appear from Tuesday to Saturday: try again later, or {by_hand}"
        )
    if response.status_code == 429 or response.status_code >= 500:
        raise SourceUnreachable(f"{url}: the server is in trouble ({status}); try again later, or {by_hand}")
    if response.status_code != 200 and not (headers and response.status_code == 304):
        raise SourceError(f"{url}: refused ({status}); check the base URL, or {by_hand}")
    return response


def _innermost(error: BaseException) -> BaseException:
    while error.__context__ is not None:
        error = error.__context__
    return error
