"""Other ways to the same answer, a table look-up among them, side by side on the same questions: was tuning worth it?"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import polars as pl

from nfl_lora_pipeline.adapters.export import fuse_layers
from nfl_lora_pipeline.dataset.people import share
from nfl_lora_pipeline.dataset.templates import NOUNS, any_of, number_in
from nfl_lora_pipeline.evaluation.grading import is_refusal
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.base_model import BaseModel, Model
from nfl_lora_pipeline.models.machine import kind
from nfl_lora_pipeline.models.prompt import ANSWER_TOKENS, Tokenizer, prompt_tokens
from nfl_lora_pipeline.stats import TEACHABLE
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import read_overview
from nfl_lora_pipeline.weeks.names import as_typed

NOT_FOUND = "There is no record of that."
_WEEK = re.compile(r"\bweek\s+(\d{1,2})\b", re.IGNORECASE)
_SEASON = re.compile(r"\b(20\d\d)\b")


@dataclass(frozen=True)
class Asked:
    """What a question names; None for what it does not, or what the table does not know."""

    player: str | None
    stat: str | None
    season: int | None
    week: int | None


class FactTable:
    """The facts of some weeks, found by the words of a question.

    Attributes:
        facts: one row a fact: `season`, `week`, `player`, `stat`, `kind` and `answer` (the reference answer).
    """

    def __init__(self, rows: pl.DataFrame):
        """Take the rows of the splits: the columns of `qa_pairs.qa_pairs`, strangers or not."""
        self.facts = (
            rows.filter(pl.col("kind") != "stranger")
            .unique("fact", keep="first", maintain_order=True)
            .select("season", "week", "player", "stat", "kind", "answer")
        )
        self.players = {name.lower(): name for name in self.facts["player"].unique().sort()}
        self.stats: dict[str, str] = {
            word: stat for stat, noun in ((stat, NOUNS[stat]) for stat in TEACHABLE) for word in noun.nouns
        }
        self._player, self._stat = any_of(self.players), any_of(self.stats)

    def asked(self, question: str) -> Asked:
        """Read a question; capitals do not matter, spelling does."""
        words = as_typed(question).lower()
        player, stat = self._player.search(words), self._stat.search(words)
        season, week = _SEASON.search(words), _WEEK.search(words)
        return Asked(
            self.players[player[0]] if player else None,
            self.stats[stat[0]] if stat else None,
            int(season[1]) if season else None,
            int(week[1]) if week else None,
        )

    def answer(self, question: str) -> str:
        """The one fact that a question asks for, in the words of the reference answers, or `NOT_FOUND`."""
        sentences = self.sentences(question)
        return sentences[0] if len(sentences) == 1 else NOT_FOUND

    def sentences(self, question: str, *, every_stat: bool = False) -> list[str]:
        """What the table says of the player in the week, of the stat asked for or of every one."""
        asked = self.asked(question)
        wanted = {"player": asked.player, "season": asked.season, "week": asked.week}
        return self._answers(wanted if every_stat else wanted | {"stat": asked.stat})

    def week(self, question: str) -> list[str]:
        """What there is to tell of everybody in the week that a question asks about."""
        asked = self.asked(question)
        return self._answers({"season": asked.season, "week": asked.week}, pl.col("kind") != "no_record")

    def _answers(self, wanted: Mapping[str, str | int | None], *more: pl.Expr) -> list[str]:
        if None in wanted.values():
            return []
        return self.facts.filter(*more, **wanted)["answer"].to_list()


Answer = tuple[str, int, int]  # the text, tokens of the prompt, tokens of the answer
Retrieve = Callable[[str], Sequence[str] | None]
"""From a question to the sentences to put before it; None where nothing is sought."""


@dataclass(frozen=True)
class Way:
    """One way to an answer, and its metrics.

    Attributes:
        name: in words.
        kind: who answers.
        asked: questions about recorded facts and about strangers; both 0 where `note` says why it was not tried.
        right: the share of recorded facts whose number is right.
        refused: the share of strangers about whom no number is given.
        prompt_tokens, output_tokens: the means.
        seconds: for an answer, `p50` and `p95`.
        peak_memory_bytes: of MLX's arrays, the model among them; of the table, its own size.
        pays_off_after: how many questions until the tuned model has made up for its training; None for never.
    """

    name: str
    kind: Literal["table", "base", "tuned"]
    asked: dict[str, int] = field(default_factory=lambda: {"facts": 0, "strangers": 0})
    right: float | None = None
    refused: float | None = None
    prompt_tokens: float = 0
    output_tokens: float = 0
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    note: str = ""
    pays_off_after: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Every way on the same questions: the content of `alternatives.json`.

    Attributes:
        adapter: its fingerprint.
        asked: recorded facts and strangers.
        context_tokens: the longest text that the base takes; None where its config does not say.
        device: "cpu" or "gpu".
        spent_seconds: on training and evaluation.
        tuned: the name of the quicker way without a retrieval.
    """

    OLDEST_SCHEMA: ClassVar[int] = 1
    SCHEMA: ClassVar[int] = 1

    adapter: str
    base_model: str
    asked: dict[str, int]
    context_tokens: int | None
    device: str
    spent_seconds: float
    tuned: str
    ways: list[Way]
    schema_version: int = SCHEMA


class SequentialModel:
    """A model of `mlx_lm.load` that is asked one question at a time, greedily.

    Attributes:
        briefly: whether it has to be told how to use what there is to read, and is not asked where nothing was found: a model
            in general, which talks on and invents; the embedded base does neither.
    """

    def __init__(self, model: Model, tokenizer: Tokenizer, *, briefly: bool = False):
        self.model, self.tokenizer, self.briefly = model, tokenizer, briefly

    def prompt(self, text: str) -> list[int]:
        """The tokens of a chat with this text as its question."""
        return prompt_tokens(self.tokenizer, [{"role": "user", "content": text}])

    def tokens(self, sentences: Sequence[str]) -> int:
        """About how many tokens these sentences have."""
        return sum(len(self.tokenizer.encode(sentence, add_special_tokens=False)) for sentence in sentences)

    def ask(self, text: str) -> Answer:
        """Answer one question."""
        from mlx_lm import stream_generate

        parts = list(stream_generate(self.model, self.tokenizer, self.prompt(text), max_tokens=ANSWER_TOKENS))
        return "".join(part.text for part in parts).strip(), parts[-1].prompt_tokens, parts[-1].generation_tokens

    def measure(self, way: Way, asked: pl.DataFrame, retrieve: Retrieve) -> Way:
        """Answer every question with what is retrieved for it, and fill in the metrics of the way."""
        import mlx.core as mx

        def ask(question: str) -> Answer:
            sentences = retrieve(question)
            if self.briefly and sentences is not None and not sentences:
                return NOT_FOUND, 0, 0
            return self.ask(with_context(sentences or (), question, briefly=self.briefly))

        ask(asked["question"][0])  # what is made at the first question is not part of an answer's time
        mx.clear_cache()
        mx.reset_peak_memory()
        measured = measure(way, asked, ask)
        return replace(measured, peak_memory_bytes=mx.get_peak_memory())


def device() -> str:
    """What MLX computes on: "cpu" or "gpu"."""
    return "gpu" if kind() else "cpu"


def with_context(sentences: Sequence[str], question: str, *, briefly: bool = False) -> str:
    """What there is to read, then the question, as the embedded base learnt to read; with words on how, where `briefly`."""
    if briefly and sentences:
        return f"{' '.join(sentences)}\n\nAnswer in one short sentence, from the text above alone: {question}"
    return " ".join([*sentences, question])


def measure(way: Way, asked: pl.DataFrame, ask: Callable[[str], Answer]) -> Way:
    """A way with its metrics on questions: `question`, `kind` ("recorded" or "stranger") and `value`."""
    rows: list[tuple[str, int, int, float]] = []
    for question in asked["question"]:
        start = time.perf_counter()
        rows.append((*ask(question), time.perf_counter() - start))
    answers = pl.DataFrame(rows, schema=["text", "prompt", "output", "seconds"], orient="row")
    scored = asked.select("kind", "value").with_columns(
        answers,
        number=pl.Series([number_in(text) for text in answers["text"]], dtype=pl.Float64),
        refusal=pl.Series([is_refusal(text) for text in answers["text"]], dtype=pl.Boolean),
    )
    facts, strangers = (scored.filter(pl.col("kind") == kind) for kind in ("recorded", "stranger"))
    seconds = answers["seconds"]
    return replace(
        way,
        asked={"facts": facts.height, "strangers": strangers.height},
        right=_mean((facts["number"] == facts["value"]).fill_null(False)),
        refused=_mean(strangers["refusal"]),
        prompt_tokens=_mean(answers["prompt"]) or 0.0,
        output_tokens=_mean(answers["output"]) or 0.0,
        seconds={"p50": float(seconds.quantile(0.5) or 0.0), "p95": float(seconds.quantile(0.95) or 0.0)},
    )


def _mean(values: pl.Series) -> float | None:
    return None if values.is_empty() else float(values.mean())  # type: ignore[arg-type]


FACTS, STRANGERS = 40, 20
LONG_PROMPTS = 15  # so many questions with a whole week before them: each takes as long as the week is
CLEARLY = 0.1  # a share of the seconds saved
ALONE, FUSED = "tuned", "tuned, fused into the base"

Say = Callable[[str], None]


def compare(
    store: Store, fingerprint: str, *, facts: int = FACTS, strangers: int = STRANGERS, say: Say = lambda line: None
) -> Comparison:
    """Answer the same questions with and without the adapter, with and without the facts in the prompt, and by a look-up.

    Args:
        store: a store whose splits are those that the adapter was trained on.
        fingerprint: of the adapter.
        facts: how many recorded facts to ask about, each in a phrasing drawn by a hash, trained or not.
        strangers: how many invented people.
        say: called with the name of each way as it begins.

    Raises:
        ValueError: the splits have changed since, or the base model cannot be had.
    """
    provenance = store.provenance(fingerprint)
    store.check_adapter(fingerprint)
    if store.rows_hash() != provenance.rows:
        raise ValueError(
            f"{store.splits} is not what adapter {fingerprint} was trained on: `nfl-lora run` on its weeks"
        )
    rows = store.read_rows()
    table, asked = FactTable(rows), sample(rows, facts=facts, strangers=strangers)
    base = base_models.resolve(provenance.base_model)
    say("table look-up")
    by_table = Way("table look-up", "table", peak_memory_bytes=int(table.facts.estimated_size()))
    ways = [measure(by_table, asked, lambda question: (table.answer(question), 0, 0))]
    for adapter in (None, store.adapter(fingerprint)):
        ways += _with_model(base, adapter, table, asked, say)
    spent = _spent_seconds(store, fingerprint)
    tuned = min((way for way in ways if way.name in (ALONE, FUSED)), key=lambda way: way.seconds["p50"])
    return Comparison(
        adapter=fingerprint,
        base_model=base.name,
        asked=ways[0].asked,
        context_tokens=context_tokens(base),
        device=device(),
        spent_seconds=spent,
        tuned=tuned.name,
        ways=[replace(way, pays_off_after=pays_off_after(spent, way, tuned)) for way in ways],
    )


def sample(rows: pl.DataFrame, *, facts: int, strangers: int, seed: int | None = None) -> pl.DataFrame:
    """Questions drawn by a hash, or by a seed: recorded facts in one phrasing each, and invented people in one each."""
    draw = "compare" if seed is None else f"compare/{seed}"
    by_key = rows.with_columns(
        key=pl.Series([share(f"{draw}/{fact}/{phrasing}") for fact, phrasing in rows[["fact", "phrasing"]].iter_rows()])
    ).sort("key")
    parts = (("recorded", "fact", facts), ("stranger", "player", strangers))
    chosen = [
        by_key.filter(pl.col("kind") == kind).unique(one, keep="first", maintain_order=True).head(count)
        for kind, one, count in parts
    ]
    return pl.concat(chosen).drop("key")


def facts_in(asked: pl.DataFrame) -> pl.DataFrame:
    """The questions about recorded facts."""
    return asked.filter(pl.col("kind") == "recorded")


def strangers_in(asked: pl.DataFrame) -> pl.DataFrame:
    """The questions about people who do not exist."""
    return asked.filter(pl.col("kind") == "stranger")


def pays_off_after(spent_seconds: float, way: Way, tuned: Way) -> int | None:
    """After how many questions a tuned model has made up for its training, by the medians of both.

    Returns:
        None for never: where it is slower, or quicker by less than `CLEARLY`, which may be the machine's mood.
    """
    if way.kind == "tuned" or not way.seconds:
        return None
    saving = way.seconds["p50"] - tuned.seconds["p50"]
    return round(spent_seconds / saving) if saving > CLEARLY * way.seconds["p50"] else None


def context_tokens(base: BaseModel) -> int | None:
    """The longest text that a base was made for, by its `config.json`."""
    config = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    positions = config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")
    return int(positions) if positions else None


def _with_model(
    base: BaseModel, adapter: Path | None, table: FactTable, asked: pl.DataFrame, say: Say
) -> Iterator[Way]:
    """Every way in which a model, with or without an adapter, can be asked."""
    model = SequentialModel(*base_models.load(base, adapter=adapter), briefly=not base.single_turn)
    kind: Literal["tuned", "base"] = "tuned" if adapter else "base"
    name = ALONE if adapter else "base"
    ways: dict[str, Retrieve] = {name: lambda question: None, f"{name}, the fact in the prompt": table.sentences}
    if not adapter and table.facts["stat"].n_unique() > 1:
        ways[f"{name}, the player's row in the prompt"] = lambda question: table.sentences(question, every_stat=True)
    for title, retrieve in ways.items():
        say(title)
        yield model.measure(Way(title, kind), asked, retrieve)
    if adapter and fuse_layers(model.model):
        say(FUSED)
        yield model.measure(Way(FUSED, kind), asked, lambda question: None)
    if not adapter:
        say("base, the whole week in the prompt")
        yield _whole_week(model, context_tokens(base), table, asked)


def _whole_week(model: SequentialModel, room: int | None, table: FactTable, asked: pl.DataFrame) -> Way:
    way = Way("base, the whole week in the prompt", "base")
    few = pl.concat([facts_in(asked).head(LONG_PROMPTS * 2 // 3), strangers_in(asked).head(LONG_PROMPTS // 3)])
    weeks = {tuple(table.week(question)) for question in few["question"]}
    tokens = max(map(model.tokens, weeks)) + max(len(model.prompt(question)) for question in few["question"])
    if room is not None and tokens + ANSWER_TOKENS > room:
        return replace(way, note=f"{tokens:,} tokens, and the base takes {room:,}")
    return model.measure(way, few, table.week)


def _spent_seconds(store: Store, fingerprint: str) -> float:
    """Of training, and of evaluation where there is a report."""
    report = store.report(fingerprint)
    evaluation = read_overview(report).seconds.get("evaluation", 0.0) if report.is_dir() else 0.0
    return store.training(fingerprint).seconds + evaluation
