"""Files and folders that are written whole or not at all, and locks that go with the process that holds them.

What is being written lies beside its place under a hidden name and is locked for as long as its writer lives. A process that
is killed therefore leaves nothing that cannot be told from work in progress: `sweep` removes it, and puts back a folder
whose successor never came.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from nfl_lora_pipeline.processes import Process

BEGUN, UNFINISHED, REPLACED = ".new", ".tmp", ".old"
TOKEN_BYTES = 6
BEGUN_SECONDS = 60.0  # what is begun is locked, and then called unfinished, within a moment
POLL_SECONDS = 0.2
SAY_AGAIN_SECONDS = 60.0


class DamagedFile(ValueError):
    """A file of the store is lost or damaged.

    Attributes:
        path: of the file.
        wrong: what is wrong with it, in words.
    """

    def __init__(self, path: Path, wrong: str, mend: str):
        super().__init__(f"{path}: {wrong}; {mend}")
        self.path, self.wrong = path, wrong


def replace_file(path: Path, content: bytes) -> None:
    """Write a file under a temporary name beside it, then rename it; whoever reads sees the old content or the new.

    Args:
        path: the file; its folder is made where there is none.
        content: all of it.

    Raises:
        DamagedFile: a folder with something in it lies in its place.
        OSError: it cannot be written. The old file stands, and nothing temporary is left.
    """
    unfinished = beside(path, UNFINISHED)
    _make_place(path)
    try:
        begun = unfinished.with_suffix(BEGUN)
        with begun.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            begun.rename(unfinished)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Fill a new folder in the block; it takes the place of `path`, which need not exist, when the block ends.

    A process that is killed between the two renames leaves the old folder under a hidden name; `sweep` puts it back.

    Args:
        path: the folder; the one above it is made where there is none.

    Yields:
        An empty folder beside `path`. Where the block raises, it is removed and `path` stays as it was.

    Raises:
        OSError: the folders cannot be renamed; `path` stays as it was.
    """
    unfinished, old = beside(path, UNFINISHED), beside(path, REPLACED)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, unfinished, ignore_errors=True)
        begun = unfinished.with_suffix(BEGUN)
        begun.mkdir()
        stack.enter_context(_held_by_this_process(begun))
        begun.rename(unfinished)
        yield unfinished
        for file in unfinished.rglob("*"):
            to_disk(file)
        if path.exists():
            stack.enter_context(_held_by_this_process(path))
            path.rename(old)
        try:
            unfinished.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        to_disk(path.parent)
        shutil.rmtree(old, ignore_errors=True)


def read_file(path: Path, *, mend: str, most_bytes: int = -1) -> bytes:
    """A file's content, or so many bytes of it.

    Raises:
        DamagedFile: it is not there, no regular file, or cannot be read.
    """
    if not path.is_file():  # a pipe would be waited for
        raise DamagedFile(path, _what_lies_there(path), mend)
    try:
        with path.open("rb") as file:
            return file.read(most_bytes)
    except OSError as error:
        raise DamagedFile(path, f"cannot be read ({error.strerror})", mend) from error


def sweep(folder: Path) -> list[Path]:
    """Remove what killed processes left half-written in a folder, and put back what they had moved out of the way.

    Args:
        folder: the one that holds the files and folders that are written; those below it are not looked at.

    Returns:
        The files and folders that are whole again because of it, or gone.
    """
    ours = f".*.{'[0-9a-f]' * 2 * TOKEN_BYTES}"
    leftovers = [path for end in (BEGUN, UNFINISHED, REPLACED) for path in sorted(folder.glob(f"{ours}{end}"))]
    return [path for leftover in leftovers if (path := _swept(leftover))]


@contextmanager
def locked(
    file: Path, *, purpose: str = "", wait: bool = True, on_wait: Callable[[str], None] = lambda line: None
) -> Iterator[bool]:
    """Hold a lock for the block; the system frees it when the process ends, however that ends.

    Args:
        file: stands for the lock; made where there is none, with its folder. It is never deleted, since a lock on a file
            that has gone keeps nobody out. Beside it `{name}.holder` says who holds it.
        purpose: what the block does, for whoever waits.
        wait: for whoever holds it. An interrupt ends the waiting.
        on_wait: called with the name of whom this process waits for, at once and then every minute.

    Yields:
        Whether the lock is held; always, where it was waited for.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _make_place(file)
    except FileExistsError as error:
        raise DamagedFile(file.parent, "is no folder", "move it away: a new one is made") from error
    lock, holder = FileLock(file, timeout=0, thread_local=False), file.with_name(f"{file.name}.holder")
    reported_at = 0.0
    while not _acquired(lock):
        if not wait:
            yield False
            return
        if time.monotonic() - reported_at > SAY_AGAIN_SECONDS or not reported_at:
            reported_at = time.monotonic()
            on_wait(f"waiting for {_described(holder)}")
        time.sleep(POLL_SECONDS)
    try:
        content = {"purpose": purpose, "process": Process.this().to_json(), "since": time.time()}
        replace_file(holder, json.dumps(content).encode())
        yield True
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def to_disk(path: Path) -> None:
    """So that a loss of power leaves no empty file under a name that says it is whole."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def one_line(text: object, characters: int = 200) -> str:
    """What a library says of an error, on one line and no longer than that."""
    return " ".join(str(text).split())[:characters]


def files_hash(files: Sequence[Path]) -> str:
    """Sixteen hexadecimal digits that depend on the files' names and contents."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def beside(path: Path, suffix: str) -> Path:
    """A hidden name beside a path, by which `sweep` knows what was left behind; the folder above is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent / f".{path.name}.{secrets.token_hex(TOKEN_BYTES)}{suffix}"


def _make_place(path: Path) -> None:
    """Remove an empty folder that lies in the place of a file."""
    if path.is_dir() and not path.is_symlink():
        try:
            path.rmdir()
        except OSError as error:
            raise DamagedFile(path, "is a folder with something in it, not a file", "move it away") from error


def _acquired(lock: FileLock) -> bool:
    with contextlib.suppress(TimeoutError):
        lock.acquire()
        return True
    return False


def _described(holder: Path) -> str:
    """Who holds a lock, from what it wrote down; it may have let go of it in the meantime."""
    try:
        content = json.loads(holder.read_text(encoding="utf-8"))
        process = Process.from_json(content["process"])
        since = time.strftime("%H:%M:%S", time.localtime(content["since"]))
        return f"{content['purpose'] or 'another process'}: {process}, since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


@contextmanager
def _held_by_this_process(folder: Path) -> Iterator[None]:
    """Mark a folder as being filled, for as long as this process lives."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _swept(leftover: Path) -> Path | None:
    """Put a leftover back in its place, or remove it; the path that is whole or gone, None where a living process has it."""
    place = leftover.with_name(leftover.name.removeprefix(".").rsplit(".", 2)[0])
    with contextlib.suppress(OSError):
        cannot_be_locked = leftover.suffix == BEGUN or leftover.is_symlink()
        if cannot_be_locked and time.time() - leftover.lstat().st_mtime < BEGUN_SECONDS:
            return None
        if not leftover.is_symlink() and _is_being_written(leftover):
            return None
        if leftover.suffix == REPLACED and not place.exists():
            leftover.rename(place)
            return place
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
        return leftover
    return None


def _is_being_written(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _what_lies_there(path: Path) -> str:
    if not os.path.lexists(path):
        return "is lost"
    return "is a folder, not a file" if path.is_dir() else "is no file that can be read"


EMBEDDED = "embedded"
YAML_ENDINGS = (".yaml", ".yml")


def lasting_base(name: str) -> str:
    """A base model's name: of a folder or a file its absolute path, any other as it is."""
    place = Path(name).expanduser()
    return str(place.resolve()) if name not in ("", EMBEDDED) and place.exists() else name


def lasting_recipe(name: str) -> str:
    """A recipe's name: of a YAML file its absolute path, any other as it is."""
    file = Path(name)
    return str(file.resolve()) if name.endswith(YAML_ENDINGS) and file.is_file() else name


def os_error(error: OSError) -> str:
    """File and reason."""
    files = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    reason = error.strerror or str(error) or type(error).__name__
    return f"{' -> '.join(files)}: {reason}" if files else reason
