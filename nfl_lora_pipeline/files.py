"""Files and folders that are written whole or not at all."""

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file under a temporary name beside it, then rename it; whoever reads sees the old content or the new.

    Args:
        path: the file; its folder is made where there is none.
        content: all of it.

    Raises:
        OSError: it cannot be written. The old file stands, and nothing temporary is left.
    """
    unfinished = _beside(path)
    try:
        with unfinished.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Fill a new folder in the block; it takes the place of `path`, which need not exist, when the block ends.

    Args:
        path: the folder; the one above it is made where there is none.

    Yields:
        An empty folder beside `path`. Where the block raises, it is removed and `path` stays as it was.

    Raises:
        OSError: the folders cannot be renamed; `path` stays as it was.
    """
    unfinished, old = _beside(path), _beside(path)
    unfinished.mkdir()
    try:
        yield unfinished
        if path.exists():
            path.rename(old)
        try:
            unfinished.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock for the block; it goes with the process, however that ends.

    Args:
        file: stands for the lock; made where there is none, with its folder.
        wait: for whoever holds it.

    Yields:
        Whether the lock is held; always, where it was waited for.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _beside(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"


def files_hash(files: Sequence[Path]) -> str:
    """Sixteen hexadecimal digits that depend on the files' names and contents."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
