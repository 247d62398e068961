"""Every file of a good store is lost or damaged, and commands are run on what is left: who breaks down, and who says what?

python -m nfl_lora_pipeline_tests.damages --write
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from nfl_lora_pipeline.adapters.promotion import before
from nfl_lora_pipeline.files import DamagedFile, replace_file
from nfl_lora_pipeline.reports.report import is_whole, read_summary
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import read_predictions
from nfl_lora_pipeline_tests import upstream
from nfl_lora_pipeline_tests.kills import Scene, adapter_hash

COMMANDS = ("run", "ask", "history", "rollback", "export", "verify")
CODES = (0, 1, 3)
LONGEST_SECONDS = 400.0  # of a command; more is a hang
QUESTION = "how many receiving yards did Nico Hale have in week 1 of the 2025 NFL season?"
DOCUMENT = Path(__file__).parent.parent / "docs" / "damages.md"
GARBAGE = bytes((73 * place * place + 11) % 251 for place in range(3_000))

Change = Callable[[Path], None]


@dataclass(frozen=True)
class Damage:
    """Something done to a store.

    Attributes:
        name: in words.
        path: in the store; `NEW` is the promoted adapter, `OLD` the one before.
        change: does it to that path.
        mended: whether `nfl-lora run` makes the store whole again.
    """

    name: str
    path: str
    change: Change
    mended: bool = True

    def do(self, store: Path) -> None:
        """Damage a store."""
        held = Store(store)
        new = str(held.promoted())
        self.change(store / self.path.replace("NEW", new).replace("OLD", str(before(held, new))))


@dataclass(frozen=True)
class Case:
    """One command on one damaged store, and what came of it.

    Attributes:
        code: its exit code; None where it did not come to an end.
        said: its last line on standard error.
        problems: what was not as it should be, in words.
    """

    damage: Damage
    command: str
    code: int | None
    said: str
    problems: tuple[str, ...]


def lose(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    path.write_bytes(GARBAGE)


def make_list(path: Path) -> None:
    path.write_text("[1, 2]\n")


def lose_a_key(path: Path) -> None:
    """The first one; of a week's file that of the first row."""
    content = json.loads(path.read_text())
    values = content[0] if isinstance(content, list) else content
    values.pop(next(iter(values)))
    path.write_text(json.dumps(content))


def make_folder(path: Path) -> None:
    lose(path)
    path.mkdir()


def make_file(path: Path) -> None:
    lose(path)
    path.write_text("not a folder\n")


def half_a_line_more(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'{"time": "2025-11-2')


def garbage_in_the_middle(path: Path) -> None:
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + GARBAGE[:100].replace(b"\n", b"") + b"\n" + b"".join(others))


def follow_link(path: Path) -> None:
    target = path.resolve()
    path.unlink()
    shutil.copytree(target, path)


def lead_to(target: str) -> Change:
    def change(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return change


_JSON = [
    *(f"weeks/2025-W01/{name}.json" for name in ("WR", "raw", "players")),
    "splits/splits.json",
    *(f"adapters/NEW/{name}.json" for name in ("provenance", "adapter_config", "training", "certificate")),
    "latest.json",
    "reports/NEW/report.json",
]
_BINARY = [
    *(f"weeks/2025-W01/{name}.parquet" for name in ("players", "qa_pairs")),
    "splits/rows.parquet",
    *(f"adapters/NEW/{name}" for name in ("adapters.safetensors", "facts.parquet")),
    "reports/NEW/predictions.parquet",
]
_LISTS = ["weeks/2025-W01/raw.json", "adapters/NEW/provenance.json", "latest.json", "reports/NEW/report.json"]
_FOLDERS = ["weeks/2025-W01/qa_pairs.parquet", "latest.json", "reports/NEW/predictions.parquet"]
_LINK, _LOG = "adapters/current", "adapters/promotions.jsonl"
DAMAGES = [
    *(Damage("lost", path, lose) for path in [*_JSON, *_BINARY]),
    *(Damage("cut in the middle", path, cut) for path in [*_JSON, *_BINARY]),
    *(Damage("without a key", path, lose_a_key) for path in _JSON),
    *(Damage("garbage", path, garble) for path in _BINARY),
    *(Damage("a list", path, make_list) for path in _LISTS),
    *(Damage("a folder in its place", path, make_folder) for path in _FOLDERS),
    Damage("empty", "reports/NEW/report.md", empty),
    Damage("lost", _LOG, lose),
    Damage("half a line at its end", _LOG, half_a_line_more),
    Damage("garbage in its middle", _LOG, garbage_in_the_middle),
    Damage("a folder in its place", _LOG, make_folder),
    Damage("a folder, by cp -rL", _LINK, follow_link),
    Damage("leads nowhere", _LINK, lead_to("0123456789abcdef")),
    Damage("leads to itself", _LINK, lead_to("current")),
    Damage("leads out of the store", _LINK, lead_to(tempfile.gettempdir())),
    Damage("a file in its place", _LINK, make_file),
    Damage("lost", "splits", lose),
    Damage("lost", "reports/NEW", lose),
    Damage("lost", "adapters/NEW", lose),
    Damage("garbage", "adapters/OLD/provenance.json", garble, mended=False),
    Damage("lost", "adapters/OLD/adapters.safetensors", lose, mended=False),
    Damage("a file in its place", "locks", make_file, mended=False),
    Damage("garbage", "dagster/dagster.yaml", garble, mended=False),
    *(Damage("garbage", f"dagster/{name}.db", garble, mended=False) for name in ("history/runs", "history/runs/index")),
    Damage("garbage", "dagster/schedules/schedules.db", garble, mended=False),
]


@dataclass
class GoodStore:
    """A store of two weeks and two adapters, the second one promoted, in which nothing is damaged."""

    scene: Scene
    wanted: str

    @classmethod
    def make(cls, folder: Path) -> "GoodStore":
        """Make it with two runs of the command."""
        good = cls(Scene.make(folder), "")
        good.finish(good.command("run", good.store))
        second = upstream.tiny_week()
        for row in second:
            row["ReceivingYDS"] = str(int(row["ReceivingYDS"]) + 11) if row["ReceivingYDS"] else ""
        upstream.write_week(folder / "raw", upstream.week_bytes(second), 2)
        good.finish([*good.command("run", good.store), "--weeks", "1-2"])
        good.wanted = adapter_hash(good.store)
        if problems := good.problems_of(good.store):
            raise ValueError(f"the store is not good to begin with: {problems}")
        return good

    @property
    def store(self) -> Path:
        return self.scene.folder / "good"

    def command(self, name: str, store: Path) -> list[str]:
        """The words of a command on a store."""
        if name == "run":
            return self.scene.command(store)
        more = {"ask": [QUESTION], "export": [str(store.parent / "taken")]}.get(name, [])
        return [sys.executable, "-m", "nfl_lora_pipeline.cli.main", name, *more, "--store", str(store)]

    def finish(self, words: Sequence[str]) -> None:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False)
        if done.returncode:
            raise ValueError(done.stdout + done.stderr)

    def case(self, damage: Damage, command: str) -> Case:
        """Run a command on a damaged copy."""
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "store"
            shutil.copytree(self.store, store, symlinks=True)
            damage.do(store)
            words = self.command(command, store)
            try:
                done = subprocess.run(
                    words, capture_output=True, text=True, errors="replace", timeout=LONGEST_SECONDS, check=False
                )
            except subprocess.TimeoutExpired:
                return Case(damage, command, None, "", ("a hang",))
            problems = [f"a {word}" for word in ("Traceback", "panicked") if word in done.stdout + done.stderr]
            said = (done.stderr.strip().splitlines() or [""])[-1]
            if done.returncode not in CODES:
                problems.append(f"exit code {done.returncode}")
            if done.returncode and str(store) not in done.stderr + done.stdout:
                problems.append("no path is named")
            if command == "run":
                problems += self.problems_after_run(damage, store, done.returncode)
            return Case(damage, command, done.returncode, said.replace(str(store), "STORE"), tuple(problems))

    def problems_after_run(self, damage: Damage, store: Path, code: int) -> list[str]:
        if not damage.mended:
            return []
        problems = [f"exit code {code} of a run that could mend it"] if code else []
        try:
            return problems + self.problems_of(store)
        except ValueError as error:
            return [*problems, f"still damaged: {error}"]

    def problems_of(self, store: Path) -> list[str]:
        """What is not as in a good store; weights byte for byte."""
        held = Store(store)
        if held.promoted() is None or held.promoted() != held.latest():
            return [f"promoted is {held.promoted()}"]
        problems = [] if held.current.is_symlink() else ["current is no link"]
        if self.wanted and adapter_hash(store) != self.wanted:
            problems.append("other weights")
        newest = held.latest()
        reads: list[Callable[[], object]] = [
            held.read_rows,
            held.read_splits_record,
            held.rows_hash,
            *(lambda one=one: held.check_adapter(one) for one in held.adapters()),
            *(lambda one=one: held.check_records(one) for one in held.adapters()),
            lambda: held.read_taught_facts(newest),
            lambda: read_predictions(held.report(newest)),
        ]
        for week in held.weeks_taken():
            reads += [
                lambda week=week: held.read_raw(week),
                lambda week=week: held.read_players(week),
                lambda week=week: held.read_players_record(week),
                lambda week=week: held.read_qa_pairs(week),
            ]
        for read in reads:
            try:
                read()
            except DamagedFile as error:
                problems.append(f"still damaged: {error.path.name} {error.wrong}")
        if len(held.weeks()) != 2 or len(held.adapters()) != 2:
            problems.append(f"weeks {held.weeks()}, adapters {held.adapters()}")
        if not problems and not is_whole(held.report(newest), read_summary(held.report(newest))):
            problems.append("the report's pages are not whole")
        return problems


def as_markdown(cases: Sequence[Case], command: str) -> str:
    """The document."""
    commands = list(dict.fromkeys(case.command for case in cases))
    rows = []
    for damage in dict.fromkeys(case.damage for case in cases):
        of_damage = {case.command: case for case in cases if case.damage == damage}
        cells = [
            "; ".join(of_damage[name].problems) or str(of_damage[name].code) if name in of_damage else ""
            for name in commands
        ]
        rows.append(f"| `{damage.path}` | {damage.name} | {' | '.join(cells)} |")
    said = sorted({case.said for case in cases if case.code})
    good = sum(not case.problems for case in cases)
    return "\n".join(
        [
            "# Damaged stores",
            "",
            f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores. A store of two weeks and two adapters",
            "(`NEW` is promoted, `OLD` was before) is copied, one thing in it is damaged, and a command is run on it in a",
            f"process of its own. Good is: an end within {LONGEST_SECONDS:.0f} s, no traceback, an exit code of {CODES[0]},",
            f"{CODES[1]} or {CODES[2]}, and where it is not 0 a path in what is said.",
            "After `run` the store has to be whole again, with the same weights byte for byte, but for what it",
            "cannot make: another adapter than the newest, Dagster's storage, a file where the locks should be.",
            "",
            f"**{good} of {len(cases)} good.** The numbers are exit codes.",
            "",
            f"| what | damage | {' | '.join(commands)} |",
            f"|---|---|{'---|' * len(commands)}",
            *rows,
            "",
            "What was said, where the exit code is not 0:",
            "",
            *(f"- {line.replace('<', '&lt;')}" for line in said),
            "",
        ]
    )


@click.command()
@click.option("--write", is_flag=True, help="Write docs/damages.md.")
@click.option("--commands", default=",".join(COMMANDS), show_default=True)
@click.option("--only", default="", help="Damages whose path or name has this in it.")
@click.option("--at-once", default=2, show_default=True)
@click.option("--good", type=click.Path(path_type=Path), default=None, help="Keep the good store here, or take it.")
def main(write: bool, commands: str, only: str, at_once: int, good: Path | None) -> None:
    """Print what came of each case; exit code 1 where one was not good."""
    chosen = [damage for damage in DAMAGES if only in f"{damage.path} {damage.name}"]
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(at_once) as pool:
        folder = good or Path(temporary)
        folder.mkdir(exist_ok=True)
        if (folder / "good").is_dir():
            store = GoodStore(Scene(folder), adapter_hash(folder / "good"))
        else:
            store = GoodStore.make(folder)
        order = [(damage, command) for damage in chosen for command in commands.split(",")]
        cases = []
        for case in pool.map(lambda pair: store.case(*pair), order):
            cases.append(case)
            outcome = "; ".join(case.problems) or "good"
            said = f" {case.said}" if case.code or case.problems else ""
            click.echo(f"{case.damage.path} {case.damage.name}: {case.command} {case.code} {outcome}{said}")
    bad = sum(bool(case.problems) for case in cases)
    click.echo(f"{len(cases) - bad} of {len(cases)} good")
    if write:
        replace_file(DOCUMENT, as_markdown(cases, "python -m nfl_lora_pipeline_tests.damages --write").encode())
    if bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
