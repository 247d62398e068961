"""Other ways to the same answer, side by side on the same questions: was tuning worth it?"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from nfl_lora_pipeline.adapters.export import fuse_layers
from nfl_lora_pipeline.exam.lookup import FactTable
from nfl_lora_pipeline.exam.one_by_one import OneByOne, Retrieve, Way, device, fared
from nfl_lora_pipeline.lessons.strangers import share
from nfl_lora_pipeline.lessons.wording import load_templates
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.base_model import BaseModel
from nfl_lora_pipeline.models.prompt import ANSWER_TOKENS
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import read_summary

FACTS, STRANGERS = 40, 20
LONG_PROMPTS = 15  # so many questions with a whole week before them: each takes as long as the week is
CLEARLY = 0.1  # a share of the seconds saved
TABLE, BASE, TUNED = "table", "base", "tuned"
ALONE, FUSED = "tuned", "tuned, fused into the base"

Say = Callable[[str], None]


def compare(
    held: Store, fingerprint: str, *, facts: int = FACTS, strangers: int = STRANGERS, say: Say = lambda line: None
) -> dict[str, Any]:
    """Answer the same questions with and without the adapter, with and without the facts in the prompt, and by a look-up.

    Args:
        held: a store whose splits are those that the adapter was trained on.
        fingerprint: of the adapter.
        facts: how many recorded facts to ask about, each in a phrasing drawn by a hash, trained or not.
        strangers: how many invented people.
        say: told each way as it begins.

    Returns:
        A JSON-serialisable dict: `adapter`, `base_model`, `asked`, `device`, `context_tokens` (the longest text that the base
        takes), `spent_seconds` (on training and evaluation), `tuned` (the name of the quicker way without a retrieval), and
        `ways`: the fields of `Way`, and `pays_off_after`, the number of questions until `tuned` has made up for
        `spent_seconds` against that way; null for never.

    Raises:
        ValueError: the splits have changed since, or the base model cannot be had.
    """
    made_of = held.provenance(fingerprint)
    held.check_adapter(fingerprint)
    if held.rows_hash() != made_of["rows"]:
        raise ValueError(f"{held.splits} is not what adapter {fingerprint} was trained on: `nfl-lora run` on its weeks")
    rows = held.read_rows()
    table, asked = FactTable(rows, load_templates()), sample(rows, facts=facts, strangers=strangers)
    base = base_models.resolve(made_of["base_model"])
    say("table look-up")
    by_table = Way("table look-up", TABLE, peak_memory_bytes=int(table.facts.estimated_size()))
    ways = [fared(by_table, asked, lambda question: (table.answer(question), 0, 0))]
    for adapter in (None, held.adapter(fingerprint)):
        ways += _with_model(base, adapter, table, asked, say)
    spent = _spent_seconds(held, fingerprint)
    tuned = min((way for way in ways if way.name in (ALONE, FUSED)), key=lambda way: way.seconds["p50"])
    return {
        "adapter": fingerprint,
        "base_model": base.name,
        "asked": ways[0].asked,
        "context_tokens": context_tokens(base),
        "device": device(),
        "spent_seconds": spent,
        "tuned": tuned.name,
        "ways": [asdict(way) | {"pays_off_after": pays_off_after(spent, way, tuned)} for way in ways],
    }


def sample(rows: pl.DataFrame, *, facts: int, strangers: int) -> pl.DataFrame:
    """Questions drawn by a hash: recorded facts in one phrasing each, and invented people in one each."""
    keyed = rows.with_columns(
        key=pl.Series(
            [share(f"compare/{fact}/{phrasing}") for fact, phrasing in rows[["fact", "phrasing"]].iter_rows()]
        )
    ).sort("key")
    parts = (("recorded", "fact", facts), ("stranger", "player", strangers))
    chosen = [
        keyed.filter(pl.col("kind") == kind).unique(one, keep="first", maintain_order=True).head(count)
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
    if way.kind == TUNED or not way.seconds:
        return None
    saving = way.seconds["p50"] - tuned.seconds["p50"]
    return round(spent_seconds / saving) if saving > CLEARLY * way.seconds["p50"] else None


def context_tokens(base: BaseModel) -> int | None:
    """The longest text that a base was made for, by its `config.json`."""
    config = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    found = config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")
    return int(found) if found else None


def _with_model(
    base: BaseModel, adapter: Path | None, table: FactTable, asked: pl.DataFrame, say: Say
) -> Iterator[Way]:
    """Every way in which a model, with or without an adapter, can be asked."""
    model = OneByOne(*base_models.load(base, adapter=adapter))
    kind, name = (TUNED, ALONE) if adapter else (BASE, "base")
    ways: dict[str, Retrieve] = {name: lambda question: [], f"{name}, the fact in the prompt": table.sentences}
    if not adapter and table.facts["stat"].n_unique() > 1:
        ways[f"{name}, the player's row in the prompt"] = lambda question: table.sentences(question, every_stat=True)
    for title, retrieve in ways.items():
        say(title)
        yield model.fared(Way(title, kind), asked, retrieve)
    if adapter and fuse_layers(model.model):
        say(FUSED)
        yield model.fared(Way(FUSED, kind), asked, lambda question: [])
    if not adapter:
        say("base, the whole week in the prompt")
        yield _whole_week(model, context_tokens(base), table, asked)


def _whole_week(model: OneByOne, room: int | None, table: FactTable, asked: pl.DataFrame) -> Way:
    way = Way("base, the whole week in the prompt", BASE)
    few = pl.concat([facts_in(asked).head(LONG_PROMPTS * 2 // 3), strangers_in(asked).head(LONG_PROMPTS // 3)])
    weeks = {tuple(table.week(question)) for question in few["question"]}
    needed = max(map(model.tokens, weeks)) + max(len(model.prompt(question)) for question in few["question"])
    if room is not None and needed + ANSWER_TOKENS > room:
        way.note = f"{needed:,} tokens, and the base takes {room:,}"
        return way
    return model.fared(way, few, table.week)


def _spent_seconds(held: Store, fingerprint: str) -> float:
    """Of training, and of evaluation where there is a report."""
    seconds = read_summary(held.report(fingerprint)).get("seconds", {}) if held.report(fingerprint).is_dir() else {}
    return float(held.training(fingerprint)["seconds"] + seconds.get("evaluation", 0.0))
