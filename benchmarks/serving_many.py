"""One server for many stores against one for one: the same clients, asking random tenants, or one.

    python -m benchmarks.serving_many

One small adapter is trained on the bundled sample; the stores hold variants of it, whose answers noise in the weights changes.
An answer counts as right if it is, to the letter, what that variant says when it is asked alone.
"""

import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import cast

import click
import mlx.core as mx
import polars as pl
import requests

from benchmarks import ours
from benchmarks.options import write_option
from benchmarks.tables import publish
from nfl_lora_pipeline.adapters.promotion import promote
from nfl_lora_pipeline.adapters.verify import RunningServer, running_server
from nfl_lora_pipeline.files import replace_file
from nfl_lora_pipeline.markdown import percent, table
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.prompt import ANSWER_TOKENS
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import WEIGHTS_NAME, Provenance, json_bytes, weights_hash
from nfl_lora_pipeline.weeks.week import NflWeek

SAMPLE = Path(str(files("nfl_lora_pipeline"))) / "sample"
WEEK, FACTS = NflWeek(2025, 1), 12
NOISE = 1.5  # of each array's own deviation; with half of it hardly an answer changes
QUESTIONS = 12
TIMEOUT_SECONDS = 120

Question = tuple[str, str]  # a tenant's name, and what he is asked


@dataclass
class Side:
    """What came of the clients of one server.

    Attributes:
        seconds: of each answer.
        wrong: answers that are another adapter's, or nobody's.
        failed: requests without an answer, with what came instead.
    """

    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def taught_rows() -> pl.DataFrame:
    """Some numbers of the first week of the bundled sample, in all phrasings."""
    rows = ours.rows_of(SAMPLE, [WEEK], ["receiving_yards"]).filter(status="recorded")
    facts = rows["fact"].unique(maintain_order=True).head(FACTS)
    return rows.filter(pl.col("fact").is_in(facts.to_list()))


def train(rows: pl.DataFrame, store: Store) -> str:
    """An adapter of a short training, in a store; it need not know much. Its fingerprint."""
    recipe, folder = (
        load_recipe("embedded").changed(batch_rows=16, max_steps=250, ending_steps=50, refusal_share=0.2),
        store.adapter("one"),
    )
    ours.learn(rows, recipe, folder)
    base = base_models.resolve(recipe.base_model)
    provenance = Provenance(
        weeks=[str(WEEK)],
        stats=["receiving_yards"],
        base_model=base.name,
        base_revision=base.revision,
        recipe="embedded",
        rows="",
        weights_sha256=weights_hash(folder),
    )
    replace_file(folder / "provenance.json", json_bytes(provenance.content()))
    return folder.name


def put_variant(adapter: Path, held: Store, number: int) -> None:
    """A store whose promoted adapter is that of a folder, with noise of its own in the weights."""
    fingerprint = f"{number:016x}"
    folder = held.adapter(fingerprint)
    shutil.copytree(adapter, folder)
    weights, noise = cast(dict[str, mx.array], mx.load(str(folder / WEIGHTS_NAME))), mx.random.key(number)
    for name, array in weights.items():
        noise, now = mx.random.split(noise)
        weights[name] = array + NOISE * mx.std(array) * mx.random.normal(array.shape, key=now)
    mx.save_safetensors(str(folder / WEIGHTS_NAME), weights)
    content = held.provenance(fingerprint).content() | {"weights_sha256": weights_hash(folder)}
    replace_file(folder / "provenance.json", json_bytes(content))
    promote(held, fingerprint)


def answers_alone(held: Store, questions: list[str]) -> list[str]:
    """What a store's promoted adapter says, without a server."""
    fingerprint = str(held.promoted())
    base = base_models.resolve(held.provenance(fingerprint).base_model)
    return base_models.answer(*base_models.load(base, adapter=held.adapter(fingerprint)), questions)


def told_apart(expected: dict[Question, str], tenants: Sequence[str]) -> float:
    """How often an answer would be seen as wrong if it came from another tenant's adapter."""
    pairs = [
        expected[one, question] != expected[other, question]
        for one, question in expected
        for other in tenants
        if other != one
    ]
    return statistics.mean(pairs)


class Clients:
    """People who ask tenants at random, each in a thread and on a connection of his own."""

    def __init__(self, server: RunningServer, expected: dict[Question, str], count: int, side: Side):
        self._address, self._expected, self._side = f"{server.address}/v1/chat/completions", expected, side
        self._ends, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(count)]

    def ask(self, seconds: float) -> None:
        """Have them ask for so long."""
        for thread in self._threads:
            thread.start()
        time.sleep(seconds)
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, seed: int) -> None:
        rng, keys = random.Random(f"{seed}/{time.monotonic()}"), sorted(self._expected)
        with requests.Session() as session:
            session.trust_env = False
            while not self._ends.is_set():
                self.one(session, *rng.choice(keys))

    def one(self, session: requests.Session, tenant: str, question: str) -> None:
        """Ask one question."""
        body: dict[str, object] = {"model": tenant, "messages": [{"role": "user", "content": question}]}
        body |= {"logprobs": True, "max_tokens": ANSWER_TOKENS}  # what the model says, however unsure it is
        began = time.monotonic()
        try:
            response = session.post(self._address, json=body, timeout=TIMEOUT_SECONDS)
            response.raise_for_status()
            said = str(response.json()["choices"][0]["message"]["content"])
        except (requests.RequestException, KeyError) as error:
            with self._lock:
                self._side.failed.append(f"{tenant}: {error!r}")
            return
        with self._lock:
            self._side.seconds.append(time.monotonic() - began)
            if said != self._expected[tenant, question]:
                self._side.wrong.append(f"{tenant}: {question} {said!r}, not {self._expected[tenant, question]!r}")


def resident_mb(server: RunningServer) -> float:
    """Memory of a server's process, which /proc tells."""
    lines = (line.split() for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines())
    return next(int(words[1]) / 1024 for words in lines if words[0] == "VmRSS:")


@contextmanager
def servers(folder: Path, tenant: str, loaded: int) -> Iterator[tuple[RunningServer, RunningServer]]:
    """One for all stores in a folder, and one for one of them."""
    held = Store(folder / tenant)
    options = ("--stores", str(folder), "--loaded", str(loaded))
    with running_server(held, *options) as many, running_server(held) as one:
        yield many, one


def first_answers(server: RunningServer, expected: dict[Question, str], side: Side) -> str:
    """What an adapter more costs a server: every tenant is asked the same question twice, nobody else asks meanwhile."""
    tenants, (_, question) = sorted({tenant for tenant, _ in expected}), min(expected)
    clients, used = Clients(server, expected, 0, side), []
    with requests.Session() as session:
        for tenant in tenants:
            clients.one(session, tenant, question)
            clients.one(session, tenant, question)
            used.append(resident_mb(server))
    first, again = side.seconds[2::2], side.seconds[3::2]  # the first tenant's adapter is loaded, and warms up
    grown = (used[-1] - used[0]) / (len(tenants) - 1)
    return (
        f"Before that, one question at a time: an adapter more takes {grown:.2f} MB of memory, and the first answer of a "
        f"tenant, for which it is loaded, {statistics.median(first):.2f} s, the second {statistics.median(again):.2f} s."
    )


def rows_of(sides: dict[str, Side], seconds: float, memory: dict[str, str]) -> list[list[str]]:
    """A row of the table for each side."""
    rows = []
    for name, side in sides.items():
        cuts = statistics.quantiles(side.seconds, n=20)
        figures = [
            f"{len(side.seconds):,}",
            f"{len(side.seconds) / seconds:.1f}",
            str(len(side.wrong)),
            str(len(side.failed)),
        ]
        rows.append([name, *figures, f"{cuts[9]:.2f} s", f"{cuts[18]:.2f} s", memory[name]])
    return rows


HEADING = ["one process", "answers", "a second", "wrong", "failed", "p50", "p95", "memory (RSS)"]


def measure(
    folder: Path, expected: dict[Question, str], *, clients: int, seconds: float, turns: int, loaded: int
) -> str:
    """The table: both sides in turn, each for so many seconds altogether."""
    tenants = sorted({tenant for tenant, _ in expected})
    alone = {key: said for key, said in expected.items() if key[0] == tenants[0]}
    all_of_them, single = f"{len(tenants)} stores", "one store"
    sides = {all_of_them: Side(), single: Side()}
    with servers(folder, tenants[0], loaded) as (many, one):
        costs = first_answers(many, expected, Side())
        asking: dict[str, Callable[[], Clients]] = {
            all_of_them: lambda: Clients(many, expected, clients, sides[all_of_them]),
            single: lambda: Clients(one, alone, clients, sides[single]),
        }
        for _ in range(turns):
            for begin in asking.values():
                begin().ask(seconds / turns)
        used = {all_of_them: resident_mb(many), single: resident_mb(one)}
    memory = {name: f"{mb:,.0f} MB" for name, mb in used.items()}
    memory[single] += f"; {len(tenants)} such processes {len(tenants) * used[single]:,.0f} MB"
    for line in (*sides[all_of_them].wrong, *sides[single].wrong, *sides[all_of_them].failed, *sides[single].failed)[
        :20
    ]:
        click.echo(line, err=True)
    return f"{table(HEADING, rows_of(sides, seconds, memory))}\n{costs}"


@click.command()
@click.option("--tenants", "count", default=50, show_default=True)
@click.option("--clients", default=16, show_default=True)
@click.option("--seconds", default=60.0, show_default=True, help="Of each side.")
@click.option("--turns", default=4, show_default=True, help="In which each side has its seconds.")
@click.option("--loaded", default=64, show_default=True, help="Adapters at a time.")
@write_option
def main(count: int, clients: int, seconds: float, turns: int, loaded: int, write: bool) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as temporary:
        source, rows = Store(Path(temporary) / "trained"), taught_rows()
        adapter = source.adapter(train(rows, source))
        asked = random.Random(17).sample(ours.trained_rows(rows)["question"].to_list(), QUESTIONS)
        expected: dict[Question, str] = {}
        for number in range(1, count + 1):
            held = Store(Path(temporary) / "stores" / f"tenant-{number:03d}")
            put_variant(adapter, held, number)
            said = answers_alone(held, asked)
            expected |= {(held.root.name, question): each for question, each in zip(asked, said, strict=True)}
        apart = told_apart(expected, sorted({tenant for tenant, _ in expected}))
        figures = measure(
            Path(temporary) / "stores", expected, clients=clients, seconds=seconds, turns=turns, loaded=loaded
        )
    body = (
        f"{clients} clients, each with a question at a time, for {seconds:.0f} s of each side, in turn ({turns} each); up to "
        f"{loaded} adapters loaded. The stores' adapters are variants of one, with noise in the weights: the answer of another "
        f"tenant's would be seen as wrong in {percent(apart)} of the cases."
    )
    publish("One server for many stores", f"{body}\n\n{figures}", write=write)


if __name__ == "__main__":
    main()
