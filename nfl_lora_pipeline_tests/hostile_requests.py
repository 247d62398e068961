"""Hostile requests to `nfl-lora serve` while others ask: does anybody lose an answer, and are all answers the same afterwards?

python -m nfl_lora_pipeline_tests.hostile_requests --write
"""

import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import click
from click.testing import CliRunner

from nfl_lora_pipeline.adapters.verify import RunningServer, answers_in_report, ask_server, running_server
from nfl_lora_pipeline.cli.main import main as nfl_lora
from nfl_lora_pipeline.files import replace_file
from nfl_lora_pipeline.markdown import table
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline_tests.attacks import CLOSED, GROUPS, Attack

QUESTIONS, CLIENTS, SECONDS = 24, 8, 60.0
DOCUMENT = Path(__file__).parent.parent / "docs" / "hostile.md"


@dataclass
class Outcome:
    """What came of a campaign.

    Attributes:
        before, after: answers to the same questions.
        unexpected: attacks that something else came of than may, with that.
        statuses: of each group's responses, and how often each came; `CLOSED` for none.
        sent: attacks, each of them at least once.
        answered: questions of the clients that were answered as before.
        lost: the others, with what came instead.
        slowest_seconds: of the clients' answers.
        memory_mb: of the server before and after; None where the system does not say.
    """

    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    sent: int = 0
    answered: int = 0
    lost: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    memory_mb: tuple[float, float] | None = None

    @property
    def is_survived(self) -> bool:
        """Whether the server did all that it has to."""
        return self.before == self.after and not self.unexpected and not self.lost and self.answered > 0


class Clients:
    """People who go on asking, each in a thread."""

    def __init__(self, address: str, expected: dict[str, str], count: int, outcome: Outcome):
        self._address, self._expected, self._outcome = address, expected, outcome
        self._ends, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(count)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, seed: int) -> None:
        rng, questions = random.Random(seed), sorted(self._expected)
        while not self._ends.is_set():
            question, began = rng.choice(questions), time.monotonic()
            try:
                said = ask_server(self._address, question)
            except ValueError as error:
                said = str(error)
            with self._lock:
                self._outcome.slowest_seconds = max(self._outcome.slowest_seconds, time.monotonic() - began)
                if said == self._expected[question]:
                    self._outcome.answered += 1
                else:
                    self._outcome.lost.append(f"{question} {said}")


def campaign(
    server: RunningServer,
    questions: Sequence[str],
    groups: dict[str, list[Attack]],
    *,
    seconds: float,
    clients: int = CLIENTS,
) -> Outcome:
    """Send every attack, again and again for so many seconds, while clients ask the questions."""
    outcome = Outcome(before=[ask_server(server.address, question) for question in questions])
    memory = _memory_mb(server)
    attacks = [(name, attack) for name, group in groups.items() for attack in group]
    outcome.statuses = {name: Counter() for name in groups}
    ends = time.monotonic() + seconds
    with Clients(server.address, dict(zip(questions, outcome.before, strict=True)), clients, outcome):
        while outcome.sent < len(attacks) or time.monotonic() < ends:
            name, attack = attacks[outcome.sent % len(attacks)]
            outcome.sent += 1
            status = attack.send(server.port)
            outcome.statuses[name][status] += 1
            if status not in attack.expects:
                outcome.unexpected.append(f"{attack.name}: {status} instead of {sorted(attack.expects)}")
    outcome.after = [ask_server(server.address, question) for question in questions]
    now = _memory_mb(server)
    outcome.memory_mb = None if memory is None or now is None else (memory, now)
    return outcome


def _memory_mb(server: RunningServer) -> float | None:
    """Resident memory, where the system has /proc."""
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.is_file():
        return None
    lines = (line.split() for line in status.read_text().splitlines())
    return next(int(words[1]) / 1024 for words in lines if words[0] == "VmRSS:")


def to_markdown(outcome: Outcome, *, command: str, seconds: float) -> str:
    """The content of docs/hostile.md."""
    same = sum(before == after for before, after in zip(outcome.before, outcome.after, strict=True))
    rows = [
        [
            name,
            str(len(GROUPS[name])),
            ", ".join(
                f"{'closed' if status == CLOSED else status} {count:,}x" for status, count in sorted(counts.items())
            ),
        ]
        for name, counts in outcome.statuses.items()
    ]
    lines = [
        "# Hostile requests",
        "",
        f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, one server on a machine of {os.cpu_count()} cores, CPU:",
        "",
        f"- {sum(map(len, GROUPS.values()))} different hostile requests, {outcome.sent:,} sent in {seconds:.0f} s; "
        f"{len(outcome.unexpected)} answered otherwise than they may be",
        f"- {CLIENTS} clients beside them asked {outcome.answered + len(outcome.lost):,} questions: {outcome.answered:,} "
        f"answered as before, {len(outcome.lost)} lost or answered otherwise; the slowest took {outcome.slowest_seconds:.1f} s",
        f"- afterwards {same} of the same {len(outcome.before)} questions are answered as before, to the letter",
    ]
    if outcome.memory_mb:
        lines.append(
            f"- memory of the server: {outcome.memory_mb[0]:.0f} MB before, {outcome.memory_mb[1]:.0f} MB after"
        )
    lines += ["", "What came back (`attacks.py` says for each request what may):", ""]
    faults = [f"    {line[:200]}" for line in (*outcome.unexpected, *outcome.lost)]
    return "\n".join([*lines, table(["hostile requests", "different", "statuses"], rows), *faults]).rstrip() + "\n"


@click.command()
@click.option("--store", type=click.Path(path_type=Path), help="With an adapter.  [default: the sample's is made]")
@click.option("--seconds", default=SECONDS, help="At least so long.")
@click.option("--write", is_flag=True, help="Into docs/hostile.md.")
def main(store: Path | None, seconds: float, write: bool) -> None:
    """Print what came of it; exit code 1 where anything was lost."""
    command = f"python -m nfl_lora_pipeline_tests.hostile_requests{' --store STORE' if store else ''} --write"
    with tempfile.TemporaryDirectory() as folder:
        if store is None:
            store = Path(folder) / "data"
            CliRunner().invoke(nfl_lora, ["run", "--source", "sample", "--store", str(store)], catch_exceptions=False)
        held = Store(store)
        fingerprint = held.promoted() or held.latest()
        questions = answers_in_report(held, fingerprint)["question"].head(QUESTIONS).to_list()
        with running_server(held, "--adapter", fingerprint) as server:
            began = time.monotonic()
            outcome = campaign(server, questions, GROUPS, seconds=seconds)
            took = time.monotonic() - began
    content = to_markdown(outcome, command=command, seconds=took)
    click.echo(content)
    if write:
        replace_file(DOCUMENT, content.encode())
    if not outcome.is_survived:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
