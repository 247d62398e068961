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
    """

    time: str
    fingerprint: str
    previous: str | None
    reason: str


_MOVE = TypeAdapter(Promotion)


def promotions(held: Store) -> list[Promotion]:
    """All moves, the oldest first; the last is the one to what is in use, if anything is."""
    log, _ = _written_lines(held)
    now, last = held.promoted(), log[-1].fingerprint if log else None
    if now is None or now == last:
        return log
    moved_at = datetime.fromtimestamp(held.current.lstat().st_mtime, UTC)
    return [*log, Promotion(_iso(moved_at), now, last, FOUND)]


def before(held: Store, fingerprint: str) -> str | None:
    """The adapter to hold this one against: the promoted one; where this is the promoted one, the one it replaced."""
    line, _ = _replay(promotions(held))
    others = [each for each in reversed(line) if each != fingerprint and _is_known(held, each)]
    return others[0] if others and held.promoted() is not None else None


def in_use(held: Store, prefix: str = "") -> str:
    """The promoted adapter, or the one whose fingerprint begins with `prefix`.

    Raises:
        ValueError: none is promoted, or `prefix` fits no adapter or several.
    """
    now = _named(held, prefix) if prefix else held.promoted()
    if now is None:
        held.check_current()
        raise ValueError(
            f"{held.root}: no adapter is promoted; `nfl-lora run` promotes one that passes its checks, "
            "or name one with --adapter (`nfl-lora history` lists them)"
        )
    held.check_adapter(now)
    return now


def taken_back(held: Store) -> set[str]:
    """The adapters that were rolled back from and not promoted by name since."""
    _, taken = _replay(promotions(held))
    return taken


def promote(held: Store, fingerprint: str) -> bool:
    """Make an adapter the promoted one.

    Returns:
        Whether it was not already.
    """
    with _alone(held):
        return _move(held, fingerprint, PASSED)


def roll_back(held: Store, prefix: str = "") -> Promotion:
    """Promote the adapter that was promoted before, or another that is held.

    Going back again goes one further back: what was gone back from is left out.

    Args:
        held: the store.
        prefix: how the fingerprint of that other one begins; empty for the one before.

    Returns:
        The move.

    Raises:
        ValueError: none is promoted, none was before, or `prefix` fits no adapter, several, or the promoted one.
    """
    with _alone(held):
        now = held.promoted()
        if now is None and not prefix and not promotions(held):
            held.check_current()
            raise ValueError(f"{held.root}: no adapter is promoted, so there is nothing to roll back")
        fingerprint = _named(held, prefix) if prefix else _one_before(held, now)
        held.check_adapter(fingerprint)
        if not _move(held, fingerprint, ROLLBACK):
            raise ValueError(f"adapter {fingerprint} is the promoted one already")
        return promotions(held)[-1]


def _one_before(held: Store, now: str | None) -> str:
    """The newest of the line but the promoted one, and but those that are damaged or gone."""
    line, _ = _replay(promotions(held))
    wrong = []
    for fingerprint in reversed(line):
        if fingerprint == now:
            continue
        try:
            held.check_adapter(fingerprint)
            return fingerprint
        except DamagedFile as error:
            wrong.append(f" ({error.path} {error.wrong})")
    raise ValueError(
        f"{held.promotions}: no adapter was promoted before {now or 'this'} that can be used{''.join(wrong)}; name one: "
        "`nfl-lora history` lists them"
    )


def _is_known(held: Store, fingerprint: str) -> bool:
    """Whether it can be told what an adapter knows."""
    try:
        held.provenance(fingerprint)
    except DamagedFile:
        return False
    return True


def _named(held: Store, prefix: str) -> str:
    found = [fingerprint for fingerprint in held.adapters() if fingerprint.startswith(prefix)]
    if not found:
        raise ValueError(f"adapter {prefix!r}: {held.root} holds no such adapter; `nfl-lora history` lists them")
    if len(found) > 1:
        raise ValueError(f"adapter {prefix!r}: which of {', '.join(found)}?")
    return found[0]


def _replay(log: Sequence[Promotion]) -> tuple[list[str], set[str]]:
    """The line of adapters from the first to the promoted one, without those gone back from, and these."""
    line: list[str] = []
    taken: set[str] = set()
    for move in log:
        if move.reason != PASSED and move.fingerprint in line:
            while line[-1] != move.fingerprint:
                taken.add(line.pop())
        elif line[-1:] != [move.fingerprint]:
            line.append(move.fingerprint)
        if move.reason == ROLLBACK and move.previous:
            taken.add(move.previous)
        taken.discard(move.fingerprint)
    return line, taken


def _move(held: Store, fingerprint: str, reason: str) -> bool:
    log, now = promotions(held), held.promoted()
    moves = fingerprint != now
    if moves or not held.current.is_symlink():
        _link(held, fingerprint)
    if moves:
        log = [*log, Promotion(_iso(datetime.now(UTC)), fingerprint, now, reason)]
    written, damaged = _written_lines(held)
    if damaged:
        replace_file(held.promotions.with_suffix(".damaged"), read_file(held.promotions, mend=""))
    if log != written or damaged:
        lines = "".join(json.dumps(asdict(move)) + "\n" for move in log)
        replace_file(held.promotions, lines.encode())
    return moves


def _link(held: Store, fingerprint: str) -> None:
    """Move the link in one step. A folder in its place, in a store copied with its links followed, is put aside first."""
    unfinished = beside(held.current, UNFINISHED)
    if held.current.is_dir() and not held.current.is_symlink():
        if held.promoted() is None:
            raise DamagedFile(held.current, "is a folder, and no adapter of this store", "move it away")
        if not filecmp.cmp(held.current / WEIGHTS, held.adapter(str(held.promoted())) / WEIGHTS, shallow=False):
            raise DamagedFile(held.current, f"has other weights than {held.promoted()}", "move the damaged one away")
        held.current.rename(unfinished.with_suffix(REPLACED))
    try:
        unfinished.symlink_to(fingerprint, target_is_directory=True)
        unfinished.replace(held.current)
    finally:
        unfinished.unlink(missing_ok=True)
        shutil.rmtree(unfinished.with_suffix(REPLACED), ignore_errors=True)


def damaged_lines(held: Store) -> list[int]:
    """The numbers of the lines of the log that cannot be read, from 1: half of one where the disk was full, or garbage."""
    return _written_lines(held)[1]


def _written_lines(held: Store) -> tuple[list[Promotion], list[int]]:
    """The moves in the log, and the numbers of the lines that are none."""
    moves, damaged = [], []
    if held.promotions.is_file():
        for number, line in enumerate(read_file(held.promotions, mend="").splitlines(), 1):
            try:
                moves.append(_MOVE.validate_json(line))
            except ValidationError:
                damaged.append(number)
    return moves, damaged


def _alone(held: Store) -> AbstractContextManager[bool]:
    """One at a time: a rollback may be typed while a run promotes."""
    return locked(held.lock("promotions"), purpose="a promotion")


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="seconds")
