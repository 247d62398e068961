"""The promoted adapter: a link that moves in one step, and a log of its moves.

The link says what is in use, and the log follows it: first the link is moved, then the log is written anew, each whole or
not at all. Who is killed between the two leaves a link that the log does not know; it is read as the move that it was, and
written down with the next one.
"""

import filecmp
import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from nfl_lora_pipeline.files import REPLACED, UNFINISHED, DamagedFile, beside, locked, read_file, replace_file
from nfl_lora_pipeline.store import Store

WEIGHTS = "adapters.safetensors"
PASSED, ROLLBACK, FOUND = "checks passed", "rollback", "found in place"


@dataclass(frozen=True)
class Promotion:
    """One move of the link.

    Attributes:
        time: UTC, ISO 8601.
        fingerprint: of the adapter promoted.
        previous: of the one that was promoted until then.
        reason: "checks passed", "rollback", or "found in place" for a move that its maker could not write down.
        schema_version: of the line in the log. One of another version is taken for a damaged one.
    """

    time: str
    fingerprint: str
    previous: str | None
    reason: str
    schema_version: Literal[1] = 1


_MOVE = TypeAdapter(Promotion)


def promotions(store: Store) -> list[Promotion]:
    """All moves, the oldest first; the last is the one to what is in use, if anything is."""
    log, _ = _written_lines(store)
    now, last = store.promoted(), log[-1].fingerprint if log else None
    if now is None or now == last:
        return log
    moved_at = datetime.fromtimestamp(store.current.lstat().st_mtime, UTC)
    return [*log, Promotion(_iso(moved_at), now, last, FOUND)]


def before(store: Store, fingerprint: str) -> str | None:
    """The adapter to hold this one against: the promoted one; where this is the promoted one, the one it replaced."""
    line, _ = _replay(promotions(store))
    others = [each for each in reversed(line) if each != fingerprint and _is_known(store, each)]
    return others[0] if others and store.promoted() is not None else None


def in_use(store: Store, prefix: str = "") -> str:
    """The promoted adapter, or the one whose fingerprint begins with `prefix`.

    Raises:
        ValueError: none is promoted, or `prefix` fits no adapter or several.
    """
    now = _named(store, prefix) if prefix else store.promoted()
    if now is None:
        store.check_current()
        raise ValueError(
            f"{store.root}: no adapter is promoted; `nfl-lora run` promotes one that passes its checks, "
            "or name one with --adapter (`nfl-lora history` lists them)"
        )
    store.check_adapter(now)
    return now


def taken_back(store: Store) -> set[str]:
    """The adapters that were rolled back from and not promoted by name since."""
    _, rollbacks = _replay(promotions(store))
    return rollbacks


def promote(store: Store, fingerprint: str) -> bool:
    """Make an adapter the promoted one.

    Returns:
        Whether it was not already.
    """
    with _alone(store):
        return _move(store, fingerprint, PASSED)


def roll_back(store: Store, prefix: str = "") -> Promotion:
    """Promote the adapter that was promoted before, or another that is store.

    Going back again goes one further back: what was gone back from is left out.

    Args:
        store: the store.
        prefix: how the fingerprint of that other one begins; empty for the one before.

    Returns:
        The move.

    Raises:
        ValueError: none is promoted, none was before, or `prefix` fits no adapter, several, or the promoted one.
    """
    with _alone(store):
        now = store.promoted()
        if now is None and not prefix and not promotions(store):
            store.check_current()
            raise ValueError(f"{store.root}: no adapter is promoted, so there is nothing to roll back")
        fingerprint = _named(store, prefix) if prefix else _one_before(store, now)
        store.check_adapter(fingerprint)
        if not _move(store, fingerprint, ROLLBACK):
            raise ValueError(f"adapter {fingerprint} is the promoted one already")
        return promotions(store)[-1]


def _one_before(store: Store, now: str | None) -> str:
    """The newest of the line but the promoted one, and but those that are damaged or gone."""
    line, _ = _replay(promotions(store))
    wrong = []
    for fingerprint in reversed(line):
        if fingerprint == now:
            continue
        try:
            store.check_adapter(fingerprint)
            return fingerprint
        except DamagedFile as error:
            wrong.append(f" ({error.path} {error.wrong})")
    raise ValueError(
        f"{store.promotions}: no adapter was promoted before {now or 'this'} that can be used{''.join(wrong)}; name one: "
        "`nfl-lora history` lists them"
    )


def _is_known(store: Store, fingerprint: str) -> bool:
    """Whether the provenance of an adapter can be read, so that it is on record what it knows."""
    try:
        store.provenance(fingerprint)
    except DamagedFile:
        return False
    return True


def _named(store: Store, prefix: str) -> str:
    matches = [fingerprint for fingerprint in store.adapters() if fingerprint.startswith(prefix)]
    if not matches:
        raise ValueError(f"adapter {prefix!r}: {store.root} holds no such adapter; `nfl-lora history` lists them")
    if len(matches) > 1:
        raise ValueError(f"adapter {prefix!r}: which of {', '.join(matches)}?")
    return matches[0]


def _replay(log: Sequence[Promotion]) -> tuple[list[str], set[str]]:
    """The line of adapters from the first to the promoted one, without those gone back from, and these."""
    line: list[str] = []
    rollbacks: set[str] = set()
    for move in log:
        if move.reason != PASSED and move.fingerprint in line:
            while line[-1] != move.fingerprint:
                rollbacks.add(line.pop())
        elif line[-1:] != [move.fingerprint]:
            line.append(move.fingerprint)
        if move.reason == ROLLBACK and move.previous:
            rollbacks.add(move.previous)
        rollbacks.discard(move.fingerprint)
    return line, rollbacks


def _move(store: Store, fingerprint: str, reason: str) -> bool:
    log, now = promotions(store), store.promoted()
    moves = fingerprint != now
    if moves or not store.current.is_symlink():
        _link(store, fingerprint)
    if moves:
        log = [*log, Promotion(_iso(datetime.now(UTC)), fingerprint, now, reason)]
    on_disk, damaged = _written_lines(store)
    if damaged:
        replace_file(store.promotions.with_suffix(".damaged"), read_file(store.promotions, mend=""))
    if log != on_disk or damaged:
        lines = "".join(json.dumps(asdict(move)) + "\n" for move in log)
        replace_file(store.promotions, lines.encode())
    return moves


def _link(store: Store, fingerprint: str) -> None:
    """Move the link in one step. A folder in its place, in a store copied with its links followed, is put aside first."""
    unfinished = beside(store.current, UNFINISHED)
    if store.current.is_dir() and not store.current.is_symlink():
        if store.promoted() is None:
            raise DamagedFile(store.current, "is a folder, and no adapter of this store", "move it away")
        if not filecmp.cmp(store.current / WEIGHTS, store.adapter(str(store.promoted())) / WEIGHTS, shallow=False):
            raise DamagedFile(store.current, f"has other weights than {store.promoted()}", "move the damaged one away")
        store.current.rename(unfinished.with_suffix(REPLACED))
    try:
        unfinished.symlink_to(fingerprint, target_is_directory=True)
        unfinished.replace(store.current)
    finally:
        unfinished.unlink(missing_ok=True)
        shutil.rmtree(unfinished.with_suffix(REPLACED), ignore_errors=True)


def damaged_lines(store: Store) -> list[int]:
    """The numbers of the lines of the log that cannot be read, from 1: half of one where the disk was full, or garbage."""
    return _written_lines(store)[1]


def _written_lines(store: Store) -> tuple[list[Promotion], list[int]]:
    """The moves in the log, and the numbers of the lines that are none."""
    moves, damaged = [], []
    if store.promotions.is_file():
        for number, line in enumerate(read_file(store.promotions, mend="").splitlines(), 1):
            try:
                moves.append(_MOVE.validate_json(line))
            except ValidationError:
                damaged.append(number)
    return moves, damaged


def _alone(store: Store) -> AbstractContextManager[bool]:
    """One at a time: a rollback may be typed while a run promotes."""
    return locked(store.lock("promotions"), purpose="a promotion")


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="seconds")
