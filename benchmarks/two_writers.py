"""Two processes that publish at once, and publishers that are killed: does any version of a store come out wrong?

    python -m benchmarks.two_writers --tries 1000 --write

On a folder and on object storage (moto's S3 on this machine, one request at a time). In each try both writers have looked at
the same newest version and sent their files, and stand before the creation of the next one together. Beside it: seconds of a
fetch and a publish of a store.
"""

import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import click

from benchmarks.options import write_option
from benchmarks.tables import median_and_range, publish
from nfl_lora_pipeline.markdown import table
from nfl_lora_pipeline.tenants.archive import Archive, Conflict, Storage
from nfl_lora_pipeline_tests.object_storage import object_storage

BUCKET = "stores"
WRITERS = ("one writer", "another writer")
LONGEST_SECONDS = 60.0  # for which one writer waits for the other
A_PLACE = 100  # tries in one place, then another one: the lists of versions do not grow for ever
KILLED_FILES, KILLED_BYTES = 12, 50_000
TIMES = 5


@dataclass
class Race:
    """What came of it.

    Attributes:
        published: versions that are there.
        conflicts: publishes that were refused.
        wrong: versions that are not what their writers were told, in words.
    """

    published: int = 0
    conflicts: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass
class Kills:
    """What came of it.

    Attributes:
        killed: publishers that were ended by SIGKILL.
        had_published: how many of them had their version there.
        wrong: what was not as it should be, in words.
    """

    killed: int = 0
    had_published: int = 0
    wrong: list[str] = field(default_factory=list)


class _Together:
    """A storage before whose creation of a version two writers wait for each other."""

    def __init__(self, storage: Storage, barrier: Barrier):
        self._storage, self._barrier = storage, barrier
        self.listed, self.read, self.download = storage.listed, storage.read, storage.download
        self.upload, self.remove = storage.upload, storage.remove

    def create(self, key: str, content: bytes) -> bool:
        if key.startswith("versions/"):
            self._barrier.wait(LONGEST_SECONDS)
        return self._storage.create(key, content)


def race(place: str, folder: Path, *, tries: int) -> Race:
    """Let two processes publish behind the same version, so many times.

    Args:
        place: of an empty archive; a try that comes out right makes one version of it.
        folder: for their stores.
        tries: how many.
    """
    context = _context()
    barrier, said = context.Barrier(len(WRITERS)), context.Queue()
    of_all = (place, folder, tries, barrier, said, dict(os.environ))
    writers = [context.Process(target=_write, args=(name, *of_all)) for name in WRITERS]
    for writer in writers:
        writer.start()
    results = [said.get(timeout=LONGEST_SECONDS) for _ in range(len(WRITERS) * tries)]
    for writer in writers:
        writer.join()
    archive, outcome = Archive.at(place), Race()
    outcome.published = archive.newest()
    outcome.conflicts = sum(number is None for _, _, number in results)
    won = {number: (name, token) for name, token, number in results if number is not None}
    if len(won) != outcome.published or outcome.conflicts != tries * (len(WRITERS) - 1):
        outcome.wrong.append(
            f"{len(won)} publishes of {tries} tries, {outcome.conflicts} conflicts, {outcome.published} there"
        )
    for number in range(1, outcome.published + 1):
        outcome.wrong += _wrong_version(archive, number, *won.get(number, ("", "")), folder / "read")
    return outcome


def kills(place: str, folder: Path, *, times: int, seed: int) -> Kills:
    """End a publisher at a random moment, look at what is there, and publish behind it; so many times."""
    context, rng, outcome = _context(), random.Random(seed), Kills()
    archive, store, copy = Archive.at(place), folder / "killed", folder / "copy"
    _fill(store, "the beginning")
    archive.publish(store, after=0, by="the beginning", token="0")
    seconds, number, turn = 0.0, archive.newest(), 0
    while outcome.killed < times:
        turn, token = turn + 1, f"publisher {turn}"
        _fill(store, token)
        publisher = context.Process(target=_publish, args=(place, store, number, token, dict(os.environ)))
        publisher.start()
        began = time.perf_counter()
        publisher.join(rng.uniform(0, seconds) if turn > 2 else None)  # two are left alone, to see how long it takes
        was_alive = publisher.is_alive()
        publisher.kill()
        publisher.join()
        seconds = seconds if was_alive else time.perf_counter() - began
        newest = archive.newest()
        outcome.killed += was_alive
        outcome.had_published += was_alive and newest > number
        archive.fetch(copy)  # raises where something is lost or damaged
        expected = token if newest > number else archive.manifest(number).token
        files = {file.read_bytes()[: len(expected)].decode() for file in copy.glob("weeks/*")}
        if newest not in (number, number + 1) or files != {expected} or archive.manifest(newest).token != expected:
            outcome.wrong.append(f"behind version {number} {token} was killed, and {newest} holds {files}")
        _fill(copy, f"after {token}")
        number = archive.publish(copy, after=newest, by="another machine", token=f"after {token}")
    return outcome


def seconds_of(place: str, store: Path, folder: Path, *, times: int) -> dict[str, list[float]]:
    """Seconds of a store's first publish, a fetch of all, and what is repeated: nothing or little has changed."""
    found: dict[str, list[float]] = {}
    for turn in range(times):
        archive, copy, other = Archive.at(f"{place}/{turn}"), folder / f"copy{turn}", folder / f"other{turn}"
        shutil.copytree(store, copy, symlinks=True)

        def clock(name: str, action: Callable[..., int], *given: Path, **named: Any) -> None:
            began = time.perf_counter()
            action(*given, **named)
            found.setdefault(name, []).append(time.perf_counter() - began)

        clock("publish all of it", archive.publish, copy, after=0, by="a benchmark", token="")
        clock("fetch all of it", archive.fetch, other)
        clock("fetch, nothing has changed", archive.fetch, other)
        (copy / "latest.json").write_bytes((copy / "latest.json").read_bytes() + b"\n")
        clock("publish, one file has changed", archive.publish, copy, after=1, by="a benchmark", token="")
        clock("fetch, one file has changed", archive.fetch, other)
        shutil.rmtree(copy)
        shutil.rmtree(other)
    return found


def _context() -> ForkServerContext:
    """Processes that begin with all that is slow to import, so that a kill comes while something is published."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([Archive.__module__, "s3fs"])
    return context


def _write(
    name: str,
    place: str,
    folder: Path,
    tries: int,
    barrier: Barrier,
    said: "Queue[tuple[str, str, int | None]]",
    environment: dict[str, str],
) -> None:
    os.environ.update(environment)  # a fork server has that of its start
    archive, store = Archive.at(place), folder / name
    object.__setattr__(archive, "_storage", _Together(archive._storage, barrier))
    for turn in range(tries):
        token = f"{name}, try {turn}"
        barrier.wait(LONGEST_SECONDS)
        after = archive.newest()
        _fill(store, token, files=1)
        try:
            said.put((name, token, archive.publish(store, after=after, by=name, token=token)))
        except Conflict:
            said.put((name, token, None))


def _publish(place: str, store: Path, after: int, token: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    Archive.at(place).publish(store, after=after, by="a publisher", token=token)


def _fill(store: Path, text: str, *, files: int = KILLED_FILES) -> None:
    """A store all of whose files begin with a text."""
    for at in range(files):
        file = store / "weeks" / f"{at}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() + os.urandom(KILLED_BYTES if files > 1 else 0))


def _wrong_version(archive: Archive, number: int, name: str, token: str, folder: Path) -> list[str]:
    manifest = archive.manifest(number)
    archive.fetch(folder, number)
    content = (folder / "weeks" / "0").read_text()
    found = (manifest.before, manifest.by, manifest.token, content)
    return (
        []
        if found == (number - 1, name, token, token)
        else [f"version {number}: {found}, and {name} has published {token}"]
    )


def _races(place: str, folder: Path, tries: int) -> Race:
    every = Race()
    for begun in range(0, tries, A_PLACE):
        outcome = race(f"{place}/race{begun}", folder / f"race{begun}", tries=min(A_PLACE, tries - begun))
        every.published += outcome.published
        every.conflicts += outcome.conflicts
        every.wrong += outcome.wrong
        click.echo(f"{place}: {every.published} published, {every.conflicts} conflicts, wrong: {every.wrong}", err=True)
    return every


def _size(store: Path) -> str:
    files = [file for file in store.rglob("*") if file.is_file() and not file.is_symlink()]
    return f"{len(files)} files, {sum(file.stat().st_size for file in files) / 2**20:.1f} MiB"


def _sample_store(folder: Path) -> Path:
    command = [sys.executable, "-m", "nfl_lora_pipeline.cli.main", "run", "--store", str(folder / "store")]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return folder / "store"


def _body(
    races: dict[str, Race], ended: dict[str, Kills], seconds: dict[str, dict[str, list[float]]], store: str
) -> str:
    """Two tables."""
    lines: list[Sequence[str]] = [
        [
            kind,
            f"{race.published:,}",
            f"{race.conflicts:,}",
            f"{len(race.wrong)}",
            f"{ended[kind].killed}, of which {ended[kind].had_published} had published",
            f"{len(ended[kind].wrong)}",
        ]
        for kind, race in races.items()
    ]
    heading = ["", "versions published", "conflicts", "wrong promotions", "publishers killed", "wrong after a kill"]
    steps = list(next(iter(seconds.values())))
    timed = [[step, *(median_and_range(found[step], "s", 2) for found in seconds.values())] for step in steps]
    return (
        "Two processes that stand before the creation of the same version together. A wrong promotion is a version that is\n"
        "lost, does not follow the one before it, or holds something else than its writer was told that it has published.\n"
        "A killed publisher (SIGKILL at a random moment) leaves the newest version whole, and another publishes behind it.\n"
        f"\n{table(heading, lines)}\n\nA store of {store}:\n\n{table(['', *seconds], timed)}"
    )


@click.command()
@click.option("--tries", default=1000, show_default=True, help="Of two writers.")
@click.option("--kills", "times", default=100, show_default=True, help="Of publishers.")
@click.option(
    "--store", type=click.Path(path_type=Path, exists=True), help="To be timed; else the sample's is made first."
)
@write_option
def main(tries: int, times: int, store: Path | None, write: bool) -> None:
    """Print the tables; exit code 1 where a version came out wrong."""
    races, ended, seconds = {}, {}, {}
    with object_storage(BUCKET) as settings, tempfile.TemporaryDirectory() as temporary:
        os.environ.update(settings)
        store = store or _sample_store(Path(temporary))
        for kind, place in (("folder", f"{temporary}/archive"), ("S3 (moto)", f"s3://{BUCKET}")):
            folder = Path(temporary) / kind[:2]
            races[kind] = _races(place, folder, tries)
            ended[kind] = kills(f"{place}/kills", folder, times=times, seed=17)
            seconds[kind] = seconds_of(f"{place}/timed", store, folder, times=TIMES)
        body = _body(races, ended, seconds, _size(store))
    publish("Two writers of one store", body, packages=("s3fs", "moto"), write=write)
    wrong = [each for kind in races for each in (*races[kind].wrong, *ended[kind].wrong)]
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
