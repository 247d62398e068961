"""A store's versions, in a folder or in object storage: immutable, and written by many machines without a lock.

Everything hangs on one primitive: an object is created where there is none, whole or not at all, and whoever comes second is
told so. On a file system that is a hard link to a finished file, on S3 a put with `If-None-Match: *`. A version is a manifest
of that kind, which names its files by their SHA-256; the files lie beside it by that name.

    archive.json                     says that the storage keeps to that primitive; see `Archive.publish`
    blobs/{sha256[:2]}/{sha256}      files
    versions/00000007.json           manifests (`Manifest`)
    checkpoints/{print}/{sha256}     how far an unfinished training has come: the newest one counts
"""

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import file_digest
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, model_validator
from upath import UPath

from nfl_lora_pipeline.files import UNFINISHED, beside, os_error, replace_file, replacing_folder, to_disk
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import Record, json_bytes, parse_json

CHECKPOINT = "checkpoint.safetensors"
LOCKS = "locks"
FORMAT = "archive.json"
INCOMING = ".incoming"  # what is fetched lies there until all of it is there
COPY_OF = ".copy_of"  # which archive and which version a folder is a copy of
GRACE_SECONDS = 24 * 3600.0
TOGETHER = 8  # files that are sent or fetched at once
TRIES = 5
PART_BYTES = 16 * 2**20  # of a large file that is sent in parts, eight of which are in memory
FIRST = (
    "adapters",
    "reports",
)  # folders named by a fingerprint, which nobody looks for before something else names them
LIBRARIES = {"aiobotocore", "aiohttp", "botocore", "s3fs"}
SHA256 = re.compile(r"[0-9a-f]{64}")
VERSION = re.compile(r"versions/(\d{8,})\.json")
CHECKPOINT_KEY = re.compile(r"checkpoints/([\w-]+)/([0-9a-f]{64})")
BLOB_MEND = "remove it and publish from a folder that has that file, which sends it again; or fetch another version"
USE = "use a path, file:///folder or s3://bucket/prefix"


Given = TypeVar("Given")
Made = TypeVar("Made")


class Conflict(ValueError):
    """Somebody else has published since the version that was worked on."""


class UnreachableArchive(ValueError):
    """An archive cannot be read or written: no such bucket, no way to it, no permission, nothing to speak to it with."""


class DamagedObject(ValueError):
    """An object of an archive is lost or damaged.

    Attributes:
        name: of the object, with its archive.
        wrong: what is wrong with it, in words.
    """

    def __init__(self, name: str, wrong: str, mend: str):
        super().__init__(f"{name}: {wrong}; {mend}")
        self.name, self.wrong = name, wrong


class Blob(BaseModel):
    """What a file holds."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    sha256: str = Field(pattern=f"^{SHA256.pattern}$")
    size: int = Field(ge=0)


class Manifest(Record):
    """A version of a store.

    Attributes:
        identity: no other manifest has it, so that a writer knows its own again.
        number: of the version.
        before: the version that it was made of; 0 for none.
        by, token: who published it, and the token of the lease under which that was; texts of the caller.
        published_at: UTC, ISO 8601, by the writer's clock.
        promoted: the fingerprint of the promoted adapter.
        files: by path, relative to the store.
        links: symbolic links, by path, and their targets; `adapters/current` is one.
    """

    identity: str
    number: int
    before: int
    by: str
    token: str
    published_at: str
    promoted: str | None
    files: dict[str, Blob]
    links: dict[str, str]

    @model_validator(mode="after")
    def _stays_inside(self) -> "Manifest":
        """Nothing that is written by these names lies outside of the folder."""
        for name in (*self.files, *self.links):
            if not _is_ours(name):
                raise ValueError(f"{name!r} is no path of a store")
            if beyond := next((str(above) for above in PurePosixPath(name).parents if str(above) in self.links), ""):
                raise ValueError(f"{name!r} lies behind the link {beyond!r}")
        for name, target in self.links.items():
            if not _leads_inside(name, target):
                raise ValueError(f"{name!r} is a link that leads out of the store, to {target!r}")
        return self


class Storage(Protocol):
    """Where objects lie, by keys with slashes."""

    def listed(self, prefix: str) -> dict[str, float]:
        """The keys below a folder, or the object of that key, and when each was written, in seconds of the epoch."""

    def read(self, key: str) -> bytes:
        """An object; FileNotFoundError where there is none."""

    def download(self, key: str, file: Path) -> None:
        """Write an object to a file; FileNotFoundError where there is none."""

    def upload(self, key: str, file: Path) -> None:
        """Write an object, in the place of the one that is there, whole or not at all."""

    def create(self, key: str, content: bytes) -> bool:
        """Write an object, whole or not at all, where there is none; whether there was none."""

    def remove(self, key: str) -> None:
        """Remove an object; nothing where there is none."""


@dataclass(frozen=True)
class Archive:
    """A store's versions, in a folder or in object storage; none of them ever changes.

    Attributes:
        root: `file://`, a plain path or `s3://bucket/prefix`; each store has one of its own.
    """

    root: UPath
    _storage: Storage = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_storage", _storage_at(self.root))

    @classmethod
    def at(cls, place: str | Path) -> "Archive":
        """The archive at a path or an address; nothing is looked at yet.

        Raises:
            UnreachableArchive: nothing here can speak to it, or it cannot create without replacing.
        """
        try:
            root = UPath(place)
            if not root.path.strip("/."):
                raise ValueError("it names no folder")
        except (ValueError, ImportError) as error:
            raise UnreachableArchive(f"{place}: is no address of an archive ({error}); {USE}") from error
        return cls(root if root.protocol else root.absolute())

    def newest(self) -> int:
        """The number of the newest version; 0 where there is none."""
        return max(self._versions(), default=0)

    def manifest(self, number: int) -> Manifest:
        """What a version holds.

        Raises:
            DamagedObject: there is no such version, or its manifest cannot be read.
        """
        key = _version_key(number)
        name = self._name(key)
        try:
            content = self._storage.read(key)
        except FileNotFoundError as error:
            raise DamagedObject(name, "is not there", f"use another version; the newest is {self.newest()}") from error
        mend = "put it back from a copy of the storage, or remove it, so that the version before it is the newest"
        found = parse_json(content, Manifest, mend=mend, damage=lambda wrong, mend: DamagedObject(name, wrong, mend))
        if found.number != number:
            raise DamagedObject(name, f"is damaged (it says that it is version {found.number})", mend)
        return found

    def fetch(self, folder: Path, number: int | None = None) -> int:
        """Make a folder a copy of a version, with the checkpoints of unfinished trainings; `locks/` and hidden files stay.

        All that differs is fetched and checked before anything in the folder is touched. Nobody else may work in it meanwhile.

        Args:
            folder: made where there is none.
            number: of the version; the newest where it is not given.

        Returns:
            The number of the version.

        Raises:
            DamagedObject: an object is lost, or is not what its name says.
            ValueError: the folder holds work that is no copy of a version of this archive, or is a copy of one that has none.
        """
        number = self.newest() if number is None else number
        self._check_copy(folder, number)
        manifest = self.manifest(number) if number else None
        files, links = (manifest.files, manifest.links) if manifest else ({}, {})
        here = _contents(folder)
        differing = [name for name, blob in files.items() if here.files.get(name) != blob]
        folder.mkdir(parents=True, exist_ok=True)
        self._note_copy(folder, number)
        with replacing_folder(folder / INCOMING) as incoming:
            _together(lambda at: self._fetch_blob(files[differing[at]], incoming / str(at)), range(len(differing)))
            checkpoints = self._fetch_checkpoints(Store(folder), _adapters(files), incoming)
        arrived = {name: folder / INCOMING / str(at) for at, name in enumerate(differing)}
        _put_in_place(folder, arrived, links, [name for name in here.names if name not in files and name not in links])
        _put_checkpoints(Store(folder), checkpoints)
        shutil.rmtree(folder / INCOMING)
        return number

    def publish(self, folder: Path, *, after: int, by: str, token: str) -> int:
        """Make a folder's files the next version. Nobody may write into it meanwhile.

        Checkpoints of trainings that a new adapter among them has ended are removed.

        Args:
            folder: of the store.
            after: the version that it is made of, as `fetch` or `publish` returned it.
            by: who publishes, for people.
            token: of the lease under which that is done.

        Returns:
            The number of the new version, `after` + 1.

        Raises:
            Conflict: somebody else has published since.
            ValueError: the folder holds nothing, or a link that leads out of it; a file was written to meanwhile.
        """
        self._check_exclusive()
        if (newest := self.newest()) != after:
            raise self._conflict(after, by, newest)
        here = _contents(folder)
        if not here.files:
            raise ValueError(f"{folder}: holds nothing to publish; fetch version {after} and do the work again")
        before = self.manifest(after) if after else None
        self._send_blobs(folder, here.files, before.files if before else {})
        manifest = Manifest(
            schema_version=Manifest.SCHEMA,
            identity=uuid4().hex,
            number=after + 1,
            before=after,
            by=by,
            token=token,
            published_at=datetime.now(UTC).isoformat(timespec="seconds"),
            promoted=Store(folder).promoted(),
            files=here.files,
            links=here.links,
        )
        self._create_version(manifest)
        self._note_copy(folder, manifest.number)
        if _adapters(manifest.files) - _adapters(before.files if before else {}):
            self._remove_checkpoints(all_but={name for name, _ in _unfinished(folder)})
        return manifest.number

    def keep_checkpoint(self, folder: Path) -> list[str]:
        """Put the checkpoints of a folder's unfinished trainings where the next `fetch` finds them, on any machine.

        Returns:
            The fingerprints of these trainings.
        """
        kept = _unfinished(folder)
        for fingerprint, file in kept:
            with _outgoing(folder) as outgoing:
                shutil.copyfile(file, outgoing / CHECKPOINT)  # it may be replaced while it is sent
                key = f"checkpoints/{fingerprint}/{_blob_of(outgoing / CHECKPOINT).sha256}"
                there = self._storage.listed(f"checkpoints/{fingerprint}")
                if key not in there:
                    self._storage.upload(key, outgoing / CHECKPOINT)
            for other in there.keys() - {key}:
                self._storage.remove(other)
        return [fingerprint for fingerprint, _ in kept]

    def tidy(self, keep: int, *, grace_seconds: float = GRACE_SECONDS) -> list[str]:
        """Remove old versions, and files that no other one refers to.

        What is younger than the grace time stays, since a publish may be under way, or somebody may still publish after it.

        Args:
            keep: how many of the newest versions stay.
            grace_seconds: a day; a publish may take half of it.

        Returns:
            The keys of what was removed.
        """
        if keep < 1:
            raise ValueError(f"tidy keeps {keep} versions; the newest has to stay, so keep 1 at least")
        old = time.time() - grace_seconds
        blobs = self._storage.listed("blobs")
        versions = self._versions()
        gone = [number for number in sorted(versions)[:-keep] if versions[number] <= old]
        kept = [self.manifest(number) for number in sorted(versions.keys() - set(gone))]
        needed = {_blob_key(blob.sha256) for manifest in kept for blob in manifest.files.values()}
        removed = [_version_key(number) for number in gone]
        removed += [key for key, written in blobs.items() if key not in needed and written <= old]
        leftovers = self._storage.listed("versions") | self._storage.listed("checkpoints")
        removed += [key for key, written in leftovers.items() if _is_hidden(key) and written <= old]
        for key in removed:
            if self._storage.listed(key).get(key, old) <= old:  # not one that was just written anew
                self._storage.remove(key)
        return removed

    @property
    def _address(self) -> str:
        """One spelling of where it is: `file://` and a plain path are the same."""
        is_local = isinstance(self._storage, _Folder)
        return (self.root.path if is_local else str(self.root)).rstrip("/")

    def _name(self, key: str) -> str:
        return f"{self._address}/{key}"

    def _versions(self) -> dict[int, float]:
        """The numbers of all versions, and when each was written."""
        found = {}
        for key, written in self._storage.listed("versions").items():
            if _is_hidden(key):  # of a writer that was killed, or is at work
                continue
            if not (match := VERSION.fullmatch(key)):
                raise DamagedObject(
                    self._name(key), "is no version", "move it away: versions have names like 00000007.json"
                )
            found[int(match[1])] = written
        return found

    def _conflict(self, after: int, by: str, newest: int) -> Conflict:
        if newest < after:
            return Conflict(
                f"{self.root}: {by} has worked on version {after}, and the newest is {newest}; fetch that one"
            )
        other = self.manifest(newest)
        return Conflict(
            f"{self.root}: {by} has worked on version {after}, and {other.by} has published version {newest} since "
            f"({other.published_at}); fetch that one and do the work again"
        )

    def _check_exclusive(self) -> None:
        """Whether the storage refuses to create what is there: some S3-compatible ones take no notice of that condition."""
        content = json_bytes({"schema_version": 1})
        if self._storage.create(FORMAT, content) and self._storage.create(FORMAT, content):
            wrong = "lets a second writer replace what a first one has created (it ignores `If-None-Match`)"
            raise UnreachableArchive(f"{self.root}: {wrong}; use a storage with conditional writes")

    def _create_version(self, manifest: Manifest) -> None:
        key, lost = _version_key(manifest.number), None
        try:
            created = self._storage.create(key, json_bytes(manifest.content()))
        except UnreachableArchive as error:  # it may be there, and only the answer was lost
            created, lost = False, error
        if created:
            return
        if lost and key not in self._storage.listed(key):
            raise lost
        if self.manifest(manifest.number).identity != manifest.identity:
            raise self._conflict(manifest.before, manifest.by, self.newest())

    def _send_blobs(self, folder: Path, files: dict[str, Blob], before: dict[str, Blob]) -> None:
        """All but what the version before has, or was sent a short while ago: anything older `tidy` may be about to remove."""
        young = time.time() - GRACE_SECONDS / 2
        used = {_blob_key(blob.sha256) for blob in before.values()}
        there = {key for key, written in self._storage.listed("blobs").items() if key in used or written > young}
        new = {blob.sha256: name for name, blob in files.items() if _blob_key(blob.sha256) not in there}
        with _outgoing(folder) as outgoing:

            def send(sha256: str) -> None:
                shutil.copyfile(folder / new[sha256], outgoing / sha256)
                if _blob_of(outgoing / sha256).sha256 != sha256:
                    raise ValueError(f"{folder / new[sha256]}: was written to while it was published; publish again")
                self._storage.upload(_blob_key(sha256), outgoing / sha256)
                (outgoing / sha256).unlink()

            _together(send, list(new))

    def _fetch_blob(self, blob: Blob, file: Path) -> None:
        self._fetch_object(_blob_key(blob.sha256), blob.sha256, file, mend=BLOB_MEND)

    def _fetch_object(self, key: str, sha256: str, file: Path, *, mend: str) -> None:
        try:
            self._storage.download(key, file)
        except FileNotFoundError as error:
            raise DamagedObject(self._name(key), "is lost", mend) from error
        if _blob_of(file).sha256 != sha256:
            raise DamagedObject(self._name(key), "is damaged (its SHA-256 is not its name)", mend)

    def checkpoints(self) -> dict[str, str]:
        """The hash of the newest checkpoint of each unfinished training, by fingerprint."""
        found = self._storage.listed("checkpoints")
        oldest_first = sorted(found, key=lambda key: found[key])
        return {match[1]: match[2] for key in oldest_first if (match := CHECKPOINT_KEY.fullmatch(key))}

    def _fetch_checkpoints(self, store: Store, finished: set[str], incoming: Path) -> dict[str, str]:
        """By fingerprint of a training that is not finished, the name of what is fetched; none where the folder has it."""
        for tries in range(TRIES):
            arrived: dict[str, str] = {}
            try:
                for fingerprint, sha256 in self.checkpoints().items():
                    here, name = store.unfinished(fingerprint) / CHECKPOINT, f"{fingerprint}.checkpoint"
                    if fingerprint in finished:  # by a publisher that was killed before it removed this
                        continue
                    if here.is_file() and _blob_of(here).sha256 == sha256:
                        arrived[fingerprint] = ""
                        continue
                    key = f"checkpoints/{fingerprint}/{sha256}"
                    self._fetch_object(key, sha256, incoming / name, mend="remove it; that training begins anew")
                    arrived[fingerprint] = name
                return arrived
            except DamagedObject as error:  # overwritten by a later one in this moment
                if tries + 1 == TRIES or not isinstance(error.__cause__, FileNotFoundError):
                    raise
        return {}

    def _remove_checkpoints(self, *, all_but: set[str]) -> None:
        for key in self._storage.listed("checkpoints"):
            match = CHECKPOINT_KEY.fullmatch(key)
            if match and match[1] not in all_but:
                self._storage.remove(key)

    def _check_copy(self, folder: Path, number: int) -> None:
        """So that nobody's own work, or another store's, is taken for an old copy and removed."""
        if not (Store(folder).adapters() or Store(folder).weeks_taken()):
            return
        noted = (folder / COPY_OF).read_text(encoding="utf-8") if (folder / COPY_OF).is_file() else "no archive"
        of, _, version = noted.strip().partition("\n")
        if of != self._address:
            mend = "publish it first, or name another folder"
            raise ValueError(f"{folder}: is a store of its own (a copy of {of}, not of {self._address}); {mend}")
        if not number and version not in ("", "0"):
            mend = f"see whether it is mounted; if all versions were removed on purpose, remove {folder} too"
            raise UnreachableArchive(
                f"{self._address}: has no version, and {folder} is a copy of version {version}; {mend}"
            )

    def _note_copy(self, folder: Path, number: int) -> None:
        replace_file(folder / COPY_OF, f"{self._address}\n{number}\n".encode())


def _storage_at(root: UPath) -> Storage:
    if root.protocol in ("", "file", "local"):
        return _Folder(Path(root.path))
    if root.protocol not in ("s3", "s3a"):
        wrong = f"{root.protocol}:// is not known to create an object only where there is none, which versions rest on"
        raise UnreachableArchive(f"{root}: {wrong}; {USE}")
    try:
        return _Bucket(root)
    except ImportError as error:
        mend = "install it: `pip install 'nfl-lora-pipeline[deploy]'`"
        raise UnreachableArchive(f"{root}: object storage needs the package s3fs; {mend}") from error


@dataclass(frozen=True)
class _Folder:
    """A folder of this machine or of a network."""

    root: Path

    def listed(self, prefix: str) -> dict[str, float]:
        found = {}
        with _reached(self.root):
            top = self.root / prefix
            for file in [top] if top.is_file() else top.rglob("*"):
                with contextlib.suppress(FileNotFoundError):  # what another one removes meanwhile
                    if not file.is_dir():
                        found[file.relative_to(self.root).as_posix()] = file.stat().st_mtime
        return found

    def read(self, key: str) -> bytes:
        with _reached(self.root, may_lack=True):
            return (self.root / key).read_bytes()

    def download(self, key: str, file: Path) -> None:
        with _reached(self.root, may_lack=True):
            shutil.copyfile(self.root / key, file)

    def upload(self, key: str, file: Path) -> None:
        with _reached(self.root), _finished(self.root / key) as finished:
            shutil.copyfile(file, finished)
            to_disk(finished)
            finished.replace(self.root / key)
            to_disk((self.root / key).parent)

    def create(self, key: str, content: bytes) -> bool:
        with _reached(self.root), _finished(self.root / key) as finished:
            finished.write_bytes(content)
            to_disk(finished)
            try:
                os.link(finished, self.root / key)
            except FileExistsError:
                return False
            to_disk((self.root / key).parent)
            return True

    def remove(self, key: str) -> None:
        with _reached(self.root):
            (self.root / key).unlink(missing_ok=True)


class _Bucket:
    """A place in S3, or in what speaks as S3 does."""

    def __init__(self, root: UPath):
        self._root, self._name, self._files = root.path.rstrip("/"), root, root.fs

    def listed(self, prefix: str) -> dict[str, float]:
        with _reached(self._name):
            self._files.invalidate_cache()
            found = self._files.find(self._path(prefix), detail=True)
        start = len(self._root) + 1  # what ends with a slash is how consoles show an empty folder
        objects = {path[start:]: entry for path, entry in found.items() if not path.endswith("/")}
        # Where nothing was listed s3fs looks again, and finds a folder if its first object was written in between.
        return {key: entry["LastModified"].timestamp() for key, entry in objects.items() if entry["type"] == "file"}

    def read(self, key: str) -> bytes:
        with _reached(self._name, may_lack=True):
            content: bytes = self._files.cat_file(self._path(key))
            return content

    def download(self, key: str, file: Path) -> None:
        with _reached(self._name, may_lack=True):
            self._files.get_file(self._path(key), str(file))

    def upload(self, key: str, file: Path) -> None:
        with _reached(self._name):
            self._files.put_file(str(file), self._path(key), chunksize=PART_BYTES, max_concurrency=TOGETHER)

    def create(self, key: str, content: bytes) -> bool:
        with _reached(self._name):
            for tries in range(TRIES):
                try:
                    self._files.pipe_file(self._path(key), content, mode="create")
                    return True
                except FileExistsError:
                    return False
                except OSError as error:
                    if _code(error) in ("PreconditionFailed", "412"):
                        return False
                    if _code(error) not in ("ConditionalRequestConflict", "409") or tries + 1 == TRIES:
                        raise
                time.sleep(0.1 * 2**tries)  # another one writes it in this moment, and may fail
        return False

    def remove(self, key: str) -> None:
        with _reached(self._name), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(key))

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"


class _Contents(NamedTuple):
    """What of a folder is archived: files and links, by path."""

    files: dict[str, Blob]
    links: dict[str, str]

    @property
    def names(self) -> list[str]:
        return [*self.files, *self.links]


def _contents(folder: Path) -> _Contents:
    """All but `locks/` and what is hidden: half-written, or of this machine alone.

    Raises:
        ValueError: a link leads out of the folder.
    """
    files, links = [], {}
    for above, folders, names in os.walk(folder):
        inside = Path(above).relative_to(folder)
        folders[:] = sorted(name for name in folders if _is_ours((inside / name).as_posix()))
        for name in ((inside / each).as_posix() for each in sorted((*folders, *names))):
            if _is_ours(name) and (folder / name).is_symlink():
                links[name] = str((folder / name).readlink())
            elif _is_ours(name) and (folder / name).is_file():
                files.append(name)
    for name, target in links.items():
        if not _leads_inside(name, target):
            raise ValueError(
                f"{folder / name}: is a link out of the store, to {target}; put what it leads to in its place"
            )
    blobs = _together(lambda name: _blob_of(folder / name), files)
    return _Contents(dict(zip(files, blobs, strict=True)), links)


def _blob_of(file: Path) -> Blob:
    with file.open("rb") as content:
        sha256 = file_digest(content, "sha256").hexdigest()
        return Blob(sha256=sha256, size=content.tell())


def _unfinished(folder: Path) -> list[tuple[str, Path]]:
    """The fingerprints of a store's unfinished trainings that have a checkpoint, and this."""
    found = [(each.name[1:].removesuffix(".unfinished"), each / CHECKPOINT) for each in Store(folder).all_unfinished()]
    return [(fingerprint, file) for fingerprint, file in found if file.is_file()]


def _put_in_place(folder: Path, arrived: dict[str, Path], links: dict[str, str], leftovers: Sequence[str]) -> None:
    """Adapters and reports come first, then the link to the promoted one, so that whoever answers by it finds it whole.

    What is no part of the version goes before the rest comes: the write-ahead log of another SQLite database would be replayed.
    """
    first = [name for name in arrived if name.partition("/")[0] in FIRST]
    for name in first:
        _make_way(folder, name)
        arrived[name].replace(folder / name)
    for name, target in links.items():
        _make_way(folder, name)
        unfinished = beside(folder / name, UNFINISHED)
        unfinished.symlink_to(target)
        unfinished.replace(folder / name)
    for name in leftovers:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            (folder / name).unlink()
    for above in sorted({above for name in leftovers for above in PurePosixPath(name).parents}, reverse=True):
        with contextlib.suppress(OSError):  # it holds something else
            (folder / above).rmdir()
    for name in [name for name in arrived if name not in first]:
        _make_way(folder, name)
        arrived[name].replace(folder / name)


def _put_checkpoints(store: Store, checkpoints: dict[str, str]) -> None:
    """The archive's word is the last: a training that it does not know was ended elsewhere."""
    for unfinished in store.all_unfinished():
        if unfinished not in map(store.unfinished, checkpoints):
            shutil.rmtree(unfinished)
    for fingerprint, name in checkpoints.items():
        if name:
            store.unfinished(fingerprint).mkdir(parents=True, exist_ok=True)
            (store.root / INCOMING / name).replace(store.unfinished(fingerprint) / CHECKPOINT)


def _make_way(folder: Path, name: str) -> None:
    """Make the folders above a file, where something else may lie."""
    for above in [*reversed(PurePosixPath(name).parents)][1:]:
        if (folder / above).is_symlink() or (folder / above).is_file():
            (folder / above).unlink()
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    if (folder / name).is_dir() and not (folder / name).is_symlink():
        shutil.rmtree(folder / name)


@contextmanager
def _outgoing(folder: Path) -> Iterator[Path]:
    """A place for copies of what is sent, since a file that is sent must be the one that was hashed."""
    place = folder / ".outgoing"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _finished(path: Path) -> Iterator[Path]:
    """A hidden name beside a path, for what takes its place when it is finished."""
    unfinished = beside(path, UNFINISHED)
    try:
        yield unfinished
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _reached(root: Path | UPath, *, may_lack: bool = False) -> Iterator[None]:
    """What goes wrong on the way to the storage is one line; where an object may lack, that stays a FileNotFoundError."""
    try:
        yield
    except Exception as error:
        of_library = LIBRARIES & {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
        if not (isinstance(error, OSError) or of_library) or getattr(error, "errno", None) == errno.ENOSPC:
            raise
        reason = os_error(error) if isinstance(error, OSError) else str(error)
        if _code(error) == "NoSuchBucket":
            raise UnreachableArchive(f"{root}: there is no such bucket; make it, or name another") from error
        if may_lack and isinstance(error, FileNotFoundError):
            raise
        if isinstance(error, PermissionError) or type(error).__name__ in (
            "NoCredentialsError",
            "PartialCredentialsError",
        ):
            mend = "give this process the right to list, read, write and remove there"
            raise UnreachableArchive(f"{root}: access is refused ({reason}); {mend}") from error
        mend = (
            "see whether the address is right (for S3 also AWS_ENDPOINT_URL) and what is there is up, and do it again"
        )
        raise UnreachableArchive(f"{root}: cannot be reached ({reason}); {mend}") from error


def _code(error: BaseException | None) -> str:
    """What S3 calls an error; empty where it is none of S3."""
    while error is not None:
        if response := getattr(error, "response", None):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


def _together(make: Callable[[Given], Made], given: Sequence[Given]) -> list[Made]:
    """What is made of each, several at once; the first error ends it."""
    pool = ThreadPoolExecutor(TOGETHER)
    try:
        return [future.result() for future in [pool.submit(make, each) for each in given]]
    finally:
        pool.shutdown(cancel_futures=True)


def _adapters(files: Iterable[str]) -> set[str]:
    """The fingerprints of the adapters that files belong to."""
    paths = [PurePosixPath(name).parts for name in files]
    return {parts[1] for parts in paths if parts[0] == "adapters" and len(parts) > 2}


def _blob_key(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256}"


def _version_key(number: int) -> str:
    return f"versions/{number:08}.json"


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _is_ours(name: str) -> bool:
    """Whether a path is relative, leads upwards nowhere, is not hidden and is not of `locks/`."""
    parts = name.split("/")
    return all(parts) and not _is_hidden(name) and parts[0] != LOCKS


def _leads_inside(name: str, target: str) -> bool:
    """Whether a link leads to a place in the folder that it lies in."""
    parts = target.split("/")
    upwards = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    return _is_ours(name) and upwards <= name.count("/") and all(parts) and ".." not in parts[upwards:]
