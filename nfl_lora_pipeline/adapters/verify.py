"""Whether what is handed out answers as the report says: the adapter on disk, the fused model, the server."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import polars as pl
import requests

from nfl_lora_pipeline.adapters import formats
from nfl_lora_pipeline.adapters.export import export_fused, fuse
from nfl_lora_pipeline.dataset.people import share
from nfl_lora_pipeline.dataset.templates import NOT_SURE
from nfl_lora_pipeline.markdown import percent, table
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.base_model import Model
from nfl_lora_pipeline.models.prompt import ANSWER_TOKENS, Tokenizer, prompt_tokens
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import Miss, read_overview, read_predictions

STARTS_WITHIN_SECONDS, ANSWERS_WITHIN_SECONDS = 120, 300


@dataclass(frozen=True)
class RunningServer:
    """A process of `nfl-lora serve`.

    Attributes:
        address: `http://127.0.0.1:PORT`.
        process: the process.
        log: the file with all that it prints.
    """

    address: str
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.address.rpartition(":")[2])


@contextmanager
def running_server(store: Store, *options: str, python: Sequence[str] = ()) -> Iterator[RunningServer]:
    """`nfl-lora serve` on a free port, until the block ends.

    Args:
        store: the store.
        options: of the command.
        python: the interpreter's own options, and what it runs instead of the command line's module.

    Raises:
        ValueError: it does not come up.
    """
    run = [sys.executable, *(python or ("-m", "nfl_lora_pipeline.cli.main"))]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            command = [*run, "serve", "--store", str(store.root), "--port", "0", *options]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield RunningServer(_address(process, log), process, log)
        finally:
            process.kill()
            process.wait()


def ask_server(address: str, chat: str | Sequence[Mapping[str, str]]) -> str:
    """One question, or a chat, over the OpenAI-compatible interface.

    Raises:
        ValueError: the server gives no answer.
    """
    messages = [{"role": "user", "content": chat}] if isinstance(chat, str) else [dict(message) for message in chat]
    body = {"messages": messages, "max_tokens": ANSWER_TOKENS, "temperature": 0}
    try:
        with _direct() as session:
            response = session.post(f"{address}/v1/chat/completions", json=body, timeout=ANSWERS_WITHIN_SECONDS)
        if not response.ok:
            raise ValueError(f"{address} gives no answer to {chat!r}: {response.status_code} {response.text[:500]}")
        return str(response.json()["choices"][0]["message"]["content"]).strip()
    except (requests.RequestException, KeyError, IndexError) as error:
        raise ValueError(f"{address} gives no answer to {chat!r}: {error}") from error


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """What the first line of a server's output says once it answers.

    Raises:
        ValueError: it ends before, or takes too long.
    """
    give_up = time.monotonic() + STARTS_WITHIN_SECONDS
    while process.poll() is None and time.monotonic() < give_up:
        first, newline, _ = log.read_text(errors="replace").partition("\n")
        if newline and first.startswith("http://"):
            return first.partition("/v1 ")[0]
        time.sleep(0.05)
    raise ValueError(f"`nfl-lora serve` does not come up: {log.read_text(errors='replace').strip()[-500:]}")


def _direct() -> requests.Session:
    """A session past whatever proxy the environment names."""
    session = requests.Session()
    session.trust_env = False
    return session


QUESTIONS = 40
QUESTIONS_OF_ENGINES = 100  # of other engines, which are asked one way
QUESTIONS_IN_CHATS = 12
SYSTEM_PROMPT = "You are a helpful assistant. Answer briefly."
EXAMPLE_CHARACTERS = 120
EXAMPLES = 3  # of other answers where none had to be the report's
ENOUGH = 0.95  # of the answers the same; two probabilities that are all but equal may fall either way

Say = Callable[[str], None]
Chat = list[dict[str, str]]
Ask = Callable[[Sequence[Chat]], list[str]]


@dataclass(frozen=True)
class Verification:
    """How one of them answered.

    Attributes:
        name: in words.
        asked, same: questions, and answers that are the report's to the letter.
        different: the others.
        required: whether it has to answer so; where it need not, the report shows how it does.
    """

    name: str
    asked: int
    same: int
    different: list[Miss]
    required: bool = True

    @property
    def faithful(self) -> bool:
        """Whether it can be handed out."""
        return not self.required or self.same >= ENOUGH * self.asked

    @property
    def shown(self) -> list[Miss]:
        """Of `different` what people should see: all, or some examples."""
        if self.required:
            return self.different
        return [replace(miss, answer=miss.answer[:EXAMPLE_CHARACTERS]) for miss in self.different[:EXAMPLES]]


@dataclass(frozen=True)
class VerificationRecord:
    """The content of `verification.json`."""

    OLDEST_SCHEMA: ClassVar[int] = 1
    SCHEMA: ClassVar[int] = 1

    verifications: list[Verification]
    schema_version: int = SCHEMA


def verify(store: Store, fingerprint: str, *, say: Say = lambda line: None) -> list[Verification]:
    """Ask an adapter's questions again: of the adapter as mlx-lm loads it, of the fused model, and over the server.

    The first and the last are also asked after a system prompt and as a second turn. A server has to answer then too where
    the base is one for single turns, since it leaves out what comes before; otherwise the report only shows how it answers.

    Raises:
        ValueError: there is no report on the adapter, or one of the three cannot be made to answer at all.
    """
    expected = answers_in_report(store, fingerprint)
    told = answers_in_report(store, fingerprint, column="tuned")
    store.check_adapter(fingerprint)
    base = base_models.resolve(store.provenance(fingerprint).base_model)
    say("the adapter, loaded by mlx-lm")
    loaded = base_models.load(base, adapter=store.adapter(fingerprint))
    found = in_all_settings("the adapter, loaded by mlx-lm", expected, partial(_answers, *loaded))
    del loaded
    with tempfile.TemporaryDirectory() as folder:
        say("the fused model")
        fuse(base, store.adapter(fingerprint), Path(folder))
        found.append(fused_model(Path(folder), expected))
    say("the server")
    with running_server(store, "--adapter", fingerprint) as server:
        found += in_all_settings(
            "the server",
            told,
            lambda chats: [ask_server(server.address, chat) for chat in chats],
            required=base.single_turn,
        )
    return found


def verify_engine(
    store: Store, fingerprint: str, engine: str, *, python: str = sys.executable, say: Say = lambda line: None
) -> Verification:
    """Ask an adapter's questions of another engine, which gets the adapter in its own form.

    Args:
        store: the store.
        fingerprint: of the adapter.
        engine: of `formats.ENGINES`.
        python: an interpreter that has the engine.
        say: called with the name of what is asked next.

    Raises:
        ValueError: there is no report on the adapter, the adapter has no such form, or the engine gives no answers.
    """
    expected = answers_in_report(store, fingerprint, questions=QUESTIONS_OF_ENGINES)
    store.check_adapter(fingerprint)
    base = base_models.resolve(store.provenance(fingerprint).base_model)
    _, tokenizer = base_models.load(base)
    say(f"{expected.height} questions to {engine}")
    questions = expected["question"].to_list()
    replies = formats.ask(engine, base, store.adapter(fingerprint), tokenizer, questions, python=python)
    return compared(
        f"{replies.engine}, {replies.seconds / expected.height:.2f} s a question", expected, replies.answers
    )


def in_all_settings(name: str, expected: pl.DataFrame, ask: Ask, *, required: bool = False) -> list[Verification]:
    """How something answers a question by itself, after a system prompt, and as a second turn.

    Args:
        name: of what is asked.
        expected: of `answers_in_report`.
        ask: answers chats; where it raises ValueError, that is the answer to them.
        required: whether it has to answer in the last two as well.
    """
    (first, answer), *_ = expected.iter_rows()
    system = [{"role": "system", "content": SYSTEM_PROMPT}]
    turn = [{"role": "user", "content": first}, {"role": "assistant", "content": answer}]
    alone = compared(name, expected, ask(_chats(expected, [])))
    some = expected.head(QUESTIONS_IN_CHATS)
    others = {"after a system prompt": system, "as a second turn": turn}
    return [alone] + [
        replace(compared(f"{name}, {when}", some, _answers_of(ask, _chats(some, before))), required=required)
        for when, before in others.items()
    ]


def _chats(expected: pl.DataFrame, before: Chat) -> list[Chat]:
    return [[*before, {"role": "user", "content": question}] for question in expected["question"]]


def _answers_of(ask: Ask, chats: Sequence[Chat]) -> list[str]:
    try:
        return ask(chats)
    except ValueError as error:
        return [f"({error})"] * len(chats)


def _answers(model: Model, tokenizer: Tokenizer, chats: Sequence[Chat]) -> list[str]:
    """Greedy answers to chats, all of their turns given to the model as they are."""
    from mlx_lm import batch_generate

    prompts = [prompt_tokens(tokenizer, chat) for chat in chats]
    return [text.strip() for text in batch_generate(model, tokenizer, prompts, max_tokens=ANSWER_TOKENS).texts]


def export_checked(store: Store, fingerprint: str, folder: Path) -> str:
    """Write an adapter, fused into its base, to `folder`, unless it does not answer as its report says.

    Returns:
        What was checked, in words.

    Raises:
        ValueError: it does not; or `export.export_fused` raises it. Nothing is written.
    """
    expected = answers_in_report(store, fingerprint)
    found: list[Verification] = []

    def check(written: Path) -> None:
        found.append(fused_model(written, expected))
        if not found[0].faithful:
            first = found[0].different[0]
            raise ValueError(
                f"{folder}: not written, since the fused model gives {found[0].same} of {found[0].asked} answers of the "
                f"report: {first.question} {first.expected!r} became {first.answer!r}"
            )

    export_fused(store, fingerprint, folder, check=check)
    return f"{found[0].same} of {found[0].asked} answers as in the report"


def answers_in_report(
    store: Store, fingerprint: str, *, questions: int = QUESTIONS, column: Literal["generated", "tuned"] = "generated"
) -> pl.DataFrame:
    """So many questions of an adapter's report, drawn by a hash, and the three that it shows.

    Those with two blanks in places, which the report alone leaves to the model, are none of them.

    Args:
        store: the store.
        fingerprint: of the adapter.
        questions: so many, besides those that are shown.
        column: what the model answers, which any engine should, or what somebody is told of it, as by the server.

    Returns:
        `question` and `tuned` (the answer in the report).

    Raises:
        DamagedFile: there is no report on this adapter, or none that can be read.
    """
    shown_questions = read_overview(store.report(fingerprint)).questions
    predictions = read_predictions(store.report(fingerprint), ["question", "tuned"])
    found = column if column in predictions.columns else "tuned"  # reports of earlier code held nothing back
    predictions = predictions.select("question", tuned=found)
    predictions = predictions.filter(~pl.col("question").str.contains("  ", literal=True))
    keys = pl.Series([share(f"verify/{question}") for question in predictions["question"]], dtype=pl.Float64)
    rows = [(each.question, each.tuned) for each in shown_questions if each.tuned != NOT_SURE]
    shown = pl.DataFrame(rows, orient="row", schema={"question": pl.String, "tuned": pl.String})
    drawn = predictions.with_columns(key=keys).sort("key").drop("key").head(questions)
    return pl.concat([shown, drawn]).unique("question", keep="first", maintain_order=True)


def fused_model(folder: Path, expected: pl.DataFrame) -> Verification:
    """How a fused model in a folder answers.

    Raises:
        ValueError: mlx-lm cannot load it.
    """
    loaded = base_models.load(base_models.resolve(str(folder)))
    return compared("the fused model", expected, base_models.answer(*loaded, expected["question"].to_list()))


def compared(name: str, expected: pl.DataFrame, answers: Sequence[str]) -> Verification:
    """Answers against those of the report."""
    asked = expected.select("question", expected="tuned").with_columns(answer=pl.Series(answers, dtype=pl.String))
    different = asked.filter(pl.col("answer").str.strip_chars() != pl.col("expected").str.strip_chars())
    misses = [Miss(**row) for row in different.to_dicts()]
    return Verification(name, asked.height, asked.height - len(misses), misses)


def to_markdown(found: Sequence[Verification]) -> str:
    """A section of the report."""
    rows = [
        [
            verification.name + ("" if verification.required else " (need not)"),
            percent(verification.same / verification.asked),
            f"{verification.asked:,} questions",
        ]
        for verification in found
    ]
    section = "## What is handed out\n\nAnswers that are those of this report, to the letter.\n\n" + table(
        ["", "same", "of"], rows
    )
    different = [
        [verification.name, miss.question, miss.expected, miss.answer]
        for verification in found
        for miss in verification.shown
    ]
    return section + ("\n" + table(["", "question", "in the report", "answer"], different) if different else "")
