"""The commands of `nfl-lora` that work on what is there: what adapters know and answer, what is handed out, what ails."""

import contextlib
import glob
import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from nfl_lora_pipeline.interrupts import sent_again


def held_in(context: click.Context) -> Path:
    """The store of a command line that is being typed."""
    return Path(context.params.get("store") or "data")


def fingerprints(context: click.Context, _: click.Parameter, beginning: str) -> list[CompletionItem]:
    """For a shell: the adapters of the store, with the weeks that they know."""
    found = []
    for file in sorted(held_in(context).glob(f"adapters/{glob.escape(beginning)}*/provenance.json")):
        folder = file.parent
        if folder.is_symlink() or folder.name.startswith(".") or folder.name == "current":
            continue
        with contextlib.suppress(OSError, ValueError, AttributeError):
            weeks = ", ".join(json.loads(file.read_text(encoding="utf-8")).get("weeks", []))
            found.append(CompletionItem(folder.name, help=f"knows {weeks}"))
    return found


def recipes(_: click.Context, __: click.Parameter, beginning: str) -> list[CompletionItem]:
    """For a shell: the shipped recipes; what looks like a path may be a file."""
    from nfl_lora_pipeline.recipes.recipe import recipe_names

    names = [CompletionItem(name) for name in recipe_names() if name.startswith(beginning)]
    return names or [CompletionItem(beginning, type="file")]


store_option = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data"),
    show_default=True,
    envvar="NFL_LORA_STORE",
    show_envvar=True,
    help="Folder for all results.",
)
adapter_option = click.option(
    "--adapter",
    "prefix",
    default="",
    help="How the fingerprint of another adapter begins.  [default: the promoted one]",
    shell_complete=fingerprints,
)

commands = click.Group()  # `main` takes them all
QUESTION_CHARACTERS = 2_000  # as many tokens, at worst; the embedded base reads 512


Level = Literal["sure", "likely", "raw"]


def check_question(question: str) -> None:
    """Refuse what no model can be asked.

    Raises:
        ValueError: the question is blank, too long, or bytes that are no UTF-8.
    """
    if not question.strip():
        raise ValueError('the question is blank: ask one, "How many receiving yards did ... have in week 1 of ...?"')
    if len(question) > QUESTION_CHARACTERS:
        raise ValueError(f"the question has {len(question):,} characters; {QUESTION_CHARACTERS:,} at most are read")
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the question is not UTF-8: {question[:60]!a}; set the terminal to UTF-8") from error


class Asked:
    """A model that is asked one question after another; it is loaded once."""

    def __init__(self, store: Path, *, prefix: str = "", tuned: bool = True):
        from nfl_lora_pipeline.adapters.promotion import in_use
        from nfl_lora_pipeline.models import base_model
        from nfl_lora_pipeline.store import Store

        self.store = Store(store)
        self.fingerprint = in_use(self.store, prefix) if prefix else self.store.promoted() or self.store.latest()
        self.store.check_adapter(self.fingerprint)
        self.provenance = self.store.provenance(self.fingerprint)
        base = base_model.resolve(self.provenance.base_model)
        adapter = self.store.adapter(self.fingerprint) if tuned else None
        self.model, self.tokenizer = base_model.load(base, adapter=adapter)

    def answer(self, question: str) -> str:
        """What greedy decoding gives.

        Raises:
            ValueError: it is no question; see `check_question`.
        """
        from nfl_lora_pipeline.models.base_model import answer

        check_question(question)
        return answer(self.model, self.tokenizer, [question])[0]

    def probability(self, question: str, said: str) -> float:
        """Of an answer as a whole."""
        from nfl_lora_pipeline.models.scoring import probability

        return probability(self.model, self.tokenizer, question, said)

    def sure_above(self) -> float:
        """Up to which probability an answer may well be wrong, as the adapter's report found.

        Raises:
            DamagedFile: there is no report.
        """
        from nfl_lora_pipeline.reports.report import read_summary

        return read_summary(self.store.report(self.fingerprint)).sureness.above

    def told(self, question: str, said: str, level: Level) -> str:
        """An answer, or that it is not sure: "raw" is always the answer, "sure" what hardly any is wrong of by the report."""
        from nfl_lora_pipeline.dataset.templates import ANSWERS_ABOVE, only_if_sure

        if level == "raw":
            return said
        above = self.sure_above() if level == "sure" else ANSWERS_ABOVE
        return only_if_sure(said, self.probability(question, said), above=above)

    def why(self, question: str, said: str) -> str:
        """How sure an answer is, whether somebody was told or not, and where it comes from."""
        from nfl_lora_pipeline.adapters.lineage import origin_of
        from nfl_lora_pipeline.dataset.templates import only_if_sure

        origin, probability = origin_of(self.store, self.fingerprint, said), self.probability(question, said)
        held_back = "" if only_if_sure(said, probability) == said else f" of {said!r}, which is too little to say it"
        return f"p {probability:.3f}{held_back}; {origin.in_words() if origin else 'nothing that was taught'}"

    def knows(self) -> str:
        """What the adapter was taught, in a sentence."""
        from nfl_lora_pipeline.dataset.templates import spoken_stat
        from nfl_lora_pipeline.weeks.week import spoken_weeks

        stats = ", ".join(map(spoken_stat, self.provenance.stats))
        weeks = spoken_weeks(self.provenance.weeks)
        is_promoted = self.fingerprint == self.store.promoted()
        return f"Adapter {self.fingerprint}{'' if is_promoted else ' (not promoted)'} knows {stats} in weeks: {weeks}."


def sure_options(command: Callable[..., None]) -> Callable[..., None]:
    """How sure an answer has to be: `level`."""
    flags = {
        "sure": 'Have it say "I am not sure" of more: of all numbers that may well be wrong, as its report says.',
        "raw": "Show what the model says, however unsure it is.",
    }
    for level, text in reversed(flags.items()):
        command = click.option(f"--{level}", "level", flag_value=level, default="likely", help=text)(command)
    return command


@commands.command()
@click.argument("question")
@sure_options
@store_option
def ask(question: str, level: Level, store: Path) -> None:
    """Ask base and tuned model one QUESTION; the tuned one with the promoted adapter, or else the newest."""
    from nfl_lora_pipeline.evaluation.grading import is_refusal

    check_question(question)
    click.echo(f"base:  {Asked(store, tuned=False).answer(question)}")
    tuned = Asked(store)
    told = tuned.told(question, tuned.answer(question), level)
    click.echo(f"tuned: {told}")
    if is_refusal(told):
        click.echo(f"{tuned.knows()} {ASKED_FOR}", err=True)


ASKED_FOR = "Ask for one stat of one player in one week of one season."
HELP = f"""\
{ASKED_FOR} Each question stands alone.
  /why   how sure the last answer is, and which week it was taught from
  /quit  the end; so is Ctrl-D"""


@commands.command()
@sure_options
@adapter_option
@store_option
def chat(level: Level, prefix: str, store: Path) -> None:
    """Ask one question after another; the model is loaded once. A pipe works too: one question a line."""
    asked = Asked(store, prefix=prefix)
    click.echo(asked.knows(), err=True)
    click.echo(HELP, err=True)
    question = said = ""
    for line in _lines():
        if line in ("/quit", "/exit"):
            break
        if line == "/why":
            click.echo(asked.why(question, said) if said else "Nothing was asked yet.")
        elif line.startswith("/"):
            click.echo(HELP)
        elif line:
            try:
                question, said = line, asked.answer(line)
            except ValueError as error:
                click.echo(str(error))
                continue
            click.echo(asked.told(question, said, level))


def _lines() -> Iterator[str]:
    """What is typed, or comes through a pipe, without surrounding blanks, until its end."""
    if not sys.stdin.isatty():
        yield from map(str.strip, sys.stdin)
        return
    with contextlib.suppress(ImportError):
        importlib.import_module("readline")  # with which `input` edits lines and has a history
    while True:
        try:
            with sent_again():
                line = input("> ")
        except EOFError:
            click.echo()
            return
        yield line.strip()


@commands.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["mlx", "peft", "gguf", "fused"]),
    default="mlx",
    show_default=True,
    help="mlx: for mlx-lm; peft: for torch; gguf: for llama.cpp and Ollama; fused: one whole MLX model with its base.",
)
@click.option("--fused", is_flag=True, hidden=True, help="The same as --format fused.")
@adapter_option
@store_option
def export(folder: Path, form: str, fused: bool, prefix: str, store: Path) -> None:
    """Write the promoted adapter to FOLDER, with what is needed to use it."""
    from nfl_lora_pipeline.adapters.export import export_adapter
    from nfl_lora_pipeline.adapters.promotion import in_use
    from nfl_lora_pipeline.store import Store

    held = Store(store)
    fingerprint = in_use(held, prefix)
    if fused or form == "fused":
        from nfl_lora_pipeline.adapters.verify import export_checked

        checked = export_checked(held, fingerprint, folder)
        click.echo(f"{folder}: adapter {fingerprint} fused into its base; {checked}")
    else:
        export_adapter(held, fingerprint, folder, form=form)
        click.echo(f"{folder}: adapter {fingerprint}; README.md says how to use it")


@commands.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 lets the whole network ask.")
@click.option("--allow-host", "hosts", multiple=True, help="A name under which clients know this machine; repeatable.")
@click.option("--allow-origin", "origins", multiple=True, help="A site whose pages may ask: https://host; repeatable.")
@click.option("--api-key", "key", default="", envvar="NFL_LORA_API_KEY", show_envvar=True, help="Ask clients for it.")
@click.option(
    "--stores",
    type=click.Path(path_type=Path),
    help="Answer for every store in this folder, each a model named by its own; --store says who answers without a name.",
)
@click.option(
    "--loaded", type=click.IntRange(1), default=64, show_default=True, help="So many adapters of --stores at a time."
)
@adapter_option
@store_option
def serve(port: int, host: str, prefix: str, store: Path, stores: Path | None, loaded: int, **allowed: Any) -> None:
    """Answer with the promoted adapter over an OpenAI-compatible interface, until Ctrl-C.

    What is promoted later answers from then on; an adapter that is named with --adapter stays. Pages of other sites and
    names that lead here from elsewhere are refused. Without a key every program on this machine may ask.
    """
    from nfl_lora_pipeline.adapters.promotion import in_use
    from nfl_lora_pipeline.adapters.serving.catalogue import Catalogue, ManyStores, OneStore
    from nfl_lora_pipeline.adapters.serving.server import Access
    from nfl_lora_pipeline.adapters.serving.server import serve as answer_requests
    from nfl_lora_pipeline.store import Store

    hosts = frozenset(name.lower() for name in (host, *allowed["hosts"]))
    origins = frozenset(origin.rstrip("/") for origin in allowed["origins"])
    access = Access(hosts, origins, allowed["key"])
    catalogue: Catalogue
    if stores is None:
        catalogue = OneStore(Store(store), in_use(Store(store), prefix), follows=not prefix)
    else:
        catalogue = ManyStores(stores, most_loaded=loaded, default=_default_of(stores, store, prefix))
    answer_requests(catalogue, host=host, port=port, access=access)


def _default_of(stores: Path, store: Path, prefix: str) -> str | None:
    """Who of several stores answers a request that names no model: the one that was typed, if one was.

    Raises:
        ValueError: it is none of them, or an adapter was named, which is of one store.
    """
    if prefix:
        raise ValueError(
            f"--adapter {prefix} --stores {stores}: of every store the promoted one answers; leave one out"
        )
    if click.get_current_context().get_parameter_source("store") is not ParameterSource.COMMANDLINE:
        return None
    if store.resolve().parent != stores.resolve():
        raise ValueError(f"--store {store} --stores {stores}: the one is no folder in the other; leave one out")
    return store.resolve().name


@commands.command()
@click.option(
    "--engine",
    type=click.Choice(["mlx", "peft", "llama.cpp"]),
    default="mlx",
    show_default=True,
    help="mlx: adapter on disk, fused model, server; or the exported adapter in another engine.",
)
@click.option("--python", default=sys.executable, help="An interpreter that has that engine.  [default: this one]")
@adapter_option
@store_option
def verify(engine: str, python: str, prefix: str, store: Path) -> None:
    """Ask what is handed out whether it answers as the report says."""
    from nfl_lora_pipeline.adapters.verify import VerificationRecord, to_markdown, verify_engine
    from nfl_lora_pipeline.adapters.verify import verify as ask_all
    from nfl_lora_pipeline.reports.report import add_to_report
    from nfl_lora_pipeline.store import Store

    held = Store(store)
    fingerprint = _reported(held, prefix)
    if engine == "mlx":
        found, part = ask_all(held, fingerprint, say=_say), "verification"
    else:
        found = [verify_engine(held, fingerprint, engine, python=python, say=_say)]
        part = f"verification_{engine.replace('.', '_')}"
    for verification in found:
        need_not = "" if verification.required else " (need not be)"
        click.echo(
            f"{verification.name}: {verification.same} of {verification.asked} answers as in the report{need_not}"
        )
        for miss in verification.shown:
            click.echo(f"  {miss.question}\n    in the report: {miss.expected}\n    answer: {miss.answer}")
    add_to_report(held.report(fingerprint), part, VerificationRecord(found), to_markdown(found))
    if not all(verification.faithful for verification in found):
        raise SystemExit(1)


@commands.command()
@click.option("--facts", type=click.IntRange(1), default=40, show_default=True, help="Recorded facts to ask about.")
@click.option(
    "--strangers", type=click.IntRange(0), default=20, show_default=True, help="Invented people to ask about."
)
@adapter_option
@store_option
def compare(prefix: str, store: Path, **counts: int) -> None:
    """Was tuning worth it? The same questions to base, retrieval, a table look-up and the adapter; into the report."""
    from nfl_lora_pipeline.evaluation.baselines import compare as ask_all
    from nfl_lora_pipeline.reports.page_sections import to_markdown
    from nfl_lora_pipeline.reports.report import add_to_report
    from nfl_lora_pipeline.store import Store

    held = Store(store)
    fingerprint = _reported(held, prefix)
    result = ask_all(held, fingerprint, say=_say, **counts)
    click.echo(to_markdown(result))
    add_to_report(held.report(fingerprint), "alternatives", result, to_markdown(result))


@commands.command()
@click.option("--season", type=click.IntRange(2000, 2099), help="[default: the newest that an adapter knows]")
@click.option("--html", "as_html", is_flag=True, help="Write a page too, season-YEAR.html in the store.")
@store_option
def season(season: int | None, as_html: bool, store: Path) -> None:
    """A season to date: each week's recall by adapter, what an update lost, how long it took, what is promoted."""
    from rich.console import Console
    from rich.table import Table

    from nfl_lora_pipeline.reports.report import season_of, season_table, write_season
    from nfl_lora_pipeline.store import Store

    held = Store(store)
    year, entries = season_of(held, season)
    header, rows = season_table(year, entries)
    shown = Table(*header, box=None, padding=(0, 2, 0, 0))
    for row in rows:
        shown.add_row(*row)
    console = Console(highlight=False, markup=False)
    console.print(shown)
    if as_html:
        console.print(f"{write_season(held, year, entries)}", soft_wrap=True)


REACH_SECONDS = 5.0
LOW_DISK_BYTES = 1_000_000_000


@commands.command()
@store_option
def doctor(store: Path) -> None:
    """What this machine has for a training, what can be reached, and whether the store is whole. Exit code 1: it is not."""
    from huggingface_hub.constants import ENDPOINT

    from nfl_lora_pipeline.adapters.history import problems_of
    from nfl_lora_pipeline.models.machine import load_fast_blas
    from nfl_lora_pipeline.store import Store
    from nfl_lora_pipeline.tuning.memory import machine_memory
    from nfl_lora_pipeline.weeks.sources.github import UPSTREAM_URL
    from nfl_lora_pipeline.weeks.week import spoken_weeks

    def say(what: str, text: str, *, is_well: bool = True) -> None:
        click.echo(
            f"{click.style('ok  ', fg='green') if is_well else click.style('note', fg='yellow')} {what:<9} {text}"
        )

    say("versions", ", ".join(f"{name} {version(name)}" for name in ("mlx", "mlx-lm", "dagster", "polars")))
    blas = load_fast_blas()
    device, is_fast = _device(blas)
    say("device", device, is_well=is_fast)
    say("memory", f"{machine_memory() / 1e9:.1f} GB to work in")
    free = shutil.disk_usage(
        next(folder for folder in (store.absolute(), *store.absolute().parents) if folder.exists())
    ).free
    say("disk", f"{free / 1e9:.1f} GB free", is_well=free > LOW_DISK_BYTES)
    places = {
        "upstream": (UPSTREAM_URL, "use --source folder or sample"),
        "models": (ENDPOINT, "use the embedded base, a folder or a GGUF file"),
    }
    with ThreadPoolExecutor(len(places)) as pool:
        for name, found in zip(places, pool.map(lambda place: _reach(*place), places.values()), strict=True):
            say(name, found or "reached", is_well=not found)
    held = Store(store)
    weeks = spoken_weeks([str(week) for week in held.weeks()])
    say("store", f"{store}: weeks {weeks or 'none'}, promoted {held.promoted() or 'nothing'}", is_well=bool(weeks))
    problems = problems_of(held)
    for problem in problems:
        say("store", problem, is_well=False)
    if problems:
        raise SystemExit(1)


def _device(blas: str | None) -> tuple[str, bool]:
    """Where MLX computes, and whether that is as fast as this machine can be."""
    import mlx.core as mx

    from nfl_lora_pipeline.models.machine import cores, kind

    if of_gpu := kind():
        return f"{of_gpu}, {mx.device_info().get('device_name', 'a GPU without a name')}", True
    if sys.platform != "linux":
        return "CPU", True
    count = f"{cores()} cores"
    if blas:
        return f"CPU, {count}, matrix products by {Path(blas).name}", True
    return f"CPU, {count}, matrix products by MLX's own, some 20 times slower: install OpenBLAS or MKL", False


def _reach(address: str, mend: str) -> str:
    """Why a server cannot be reached, and what to do; empty where it answers, whatever it says."""
    import requests

    try:
        requests.head(address, timeout=REACH_SECONDS, allow_redirects=False)
    except requests.Timeout:
        return f"no answer within {REACH_SECONDS:g} s; {mend}"
    except requests.RequestException:
        return f"no connection; {mend}"
    return ""


def _reported(held: Any, prefix: str) -> str:
    """An adapter with a report: the promoted one, else the newest, whose report says why it is not promoted."""
    from nfl_lora_pipeline.adapters.promotion import in_use
    from nfl_lora_pipeline.reports.report import check_report

    fingerprint: str = held.latest() if not prefix and held.promoted() is None else in_use(held, prefix)
    check_report(held.report(fingerprint))
    return fingerprint


def _say(line: str) -> None:
    click.echo(f"{line} ...", err=True)
