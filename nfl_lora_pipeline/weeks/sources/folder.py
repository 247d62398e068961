"""Weeks that lie in a folder in upstream's layout: somebody's own, or the bundled sample of invented people."""

import os
import stat
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from nfl_lora_pipeline.stats import Position, in_words
from nfl_lora_pipeline.weeks.sources import Changed, Place, RawWeek, Say, Source, quiet, source
from nfl_lora_pipeline.weeks.sources.download import LARGEST, SourceError, WeekNotPublished
from nfl_lora_pipeline.weeks.week import NflWeek, file_name

SAMPLE_FOLDER = Path(str(files("nfl_lora_pipeline"))) / "sample"


@source("folder")
class Folder(Source):
    """Files that somebody has put somewhere."""

    kind = "folder"

    def __init__(self, place: Place) -> None:
        self.folder, self.position = place.folder, place.position

    def fetch(self, week: NflWeek, say: Say = quiet) -> RawWeek:
        """Read a week's file.

        Raises:
            SourceError: it does not exist or cannot be read.
        """
        file = self._file(week)
        try:
            return RawWeek(week, read_file(file), str(file), self.kind, datetime.now(UTC))
        except FileNotFoundError as error:
            raise SourceError(f"{file}: no such file; put {week} there, or let it be downloaded (github)") from error

    def where(self, week: NflWeek) -> str:
        """The path of a week's file."""
        return str(self._file(week))

    def has(self, week: NflWeek) -> bool | None:
        """Whether a week's file is there."""
        return is_there(self._file(week))

    def seasons(self) -> list[int]:
        """The seasons that the folder has a week of, in order."""
        names = {file.parents[1].name for file in self.folder.glob(f"[0-9]*/*/{file_name(self.position)}")}
        return sorted(int(name) for name in names if name.isascii() and name.isdecimal())

    def changed(self, week: NflWeek, validator: str) -> Changed:
        """Whether a week is another than at the time of `validator`: it is read only when its time or size has changed."""
        file = self._file(week)
        try:
            status = file.stat()
            renewed = f"file:{status.st_mtime_ns}-{status.st_size}"
            return Changed("" if renewed == validator else sha256(read_file(file)).hexdigest(), renewed)
        except FileNotFoundError as error:
            raise WeekNotPublished(f"{file}: no such file") from error
        except OSError as error:
            raise SourceError(f"{file}: cannot be read ({error.strerror}); mend the file or its permissions") from error

    def _file(self, week: NflWeek) -> Path:
        return week_file(self.folder, week, self.position)


@source("sample")
class Sample(Folder):
    """The bundled weeks of invented people, all of whom play the same position."""

    kind = "sample"
    of: Position = "WR"

    def __init__(self, place: Place) -> None:
        if place.position != self.of:
            raise SourceError(
                f"source 'sample': the bundled sample has {in_words(self.of)} only, and no {in_words(place.position)}; "
                "use --source folder or github"
            )
        self.folder, self.position = SAMPLE_FOLDER, self.of

    def fetch(self, week: NflWeek, say: Say = quiet) -> RawWeek:
        """Read a week's file.

        Raises:
            SourceError: the sample has no such week.
        """
        if not self.has(week):
            file = self.where(week)
            raise SourceError(f"{file}: the bundled sample has weeks 1 to 3 of 2025, not {week}; ask for one of these")
        return super().fetch(week, say)


def week_file(folder: Path, week: NflWeek, position: Position = "WR") -> Path:
    """Where a folder in upstream's layout keeps a week: `{folder}/2025/1/WR.json`."""
    return folder / str(week.season) / str(week.week) / file_name(position)


def is_there(file: Path) -> bool:
    """Whether anything lies at a path; what cannot be looked at may, and `read_file` says why it cannot be read."""
    try:
        return file.exists()
    except OSError:
        return True


def read_file(file: Path) -> bytes:
    """The content of a file that somebody has put somewhere.

    Raises:
        FileNotFoundError: it is not there.
        SourceError: it is no file (a pipe would be waited for, a device has no end), is larger than 20 MB, or cannot be read.
    """
    try:
        _check_regular(file, file.stat())
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            _check_regular(file, os.fstat(stream.fileno()))
            content = stream.read(LARGEST + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SourceError(f"{file}: cannot be read ({error.strerror}); mend the file or its permissions") from error
    if len(content) > LARGEST:
        raise _too_large(file, len(content))
    return content


def _check_regular(file: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        names = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = names.get(stat.S_IFMT(status.st_mode), "a device")
        raise SourceError(f"{file}: cannot be read (this is {kind}); put the file there")
    if status.st_size > LARGEST:
        raise _too_large(file, status.st_size)


def _too_large(file: Path, size: int) -> SourceError:
    return SourceError(
        f"{file}: {size:,} bytes, and no week is larger than {LARGEST / 1e6:g} MB; put the right file there"
    )
