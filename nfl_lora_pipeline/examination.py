"""The exam of the newest adapter: what base and tuned model answer to every question of the splits."""

import json
import time
from collections.abc import Callable
from typing import Any

import polars as pl

from nfl_lora_pipeline import base_model as base_models
from nfl_lora_pipeline.evaluation import predict
from nfl_lora_pipeline.plots import loss_plot
from nfl_lora_pipeline.report import RunFacts, questions_to_show, summarise
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.strangers import share
from nfl_lora_pipeline.week import NflWeek
from nfl_lora_pipeline.wording import load_templates


def examine(held: Store, *, say: Callable[..., None]) -> tuple[dict[str, Any], pl.DataFrame, bytes]:
    """Ask base and tuned model.

    The tuned model answers every row; the base model answers every fact once, in a phrasing drawn by the fact's hash.

    Returns:
        The summary, the predictions (one row a question) and the loss plot as PNG.

    Raises:
        ValueError: there is no adapter, or the splits have changed since it was trained.
    """
    started = time.perf_counter()
    fingerprint = held.latest()
    made_of = held.provenance(fingerprint)
    if held.rows_hash() != made_of["rows"]:
        raise ValueError(
            f"{held.splits} has changed since adapter {fingerprint} was trained: materialise `adapter` first"
        )
    training = json.loads((held.adapter(fingerprint) / "training.json").read_text(encoding="utf-8"))
    rows = pl.read_parquet(held.splits / "rows.parquet")
    base = base_models.resolve(made_of["base_model"])

    asked = rows.with_row_index("row")
    of_base = asked.filter(pl.Series(asked_of_base(rows), dtype=pl.Boolean))
    shown = questions_to_show(rows)
    questions = pl.concat([of_base.select(shown.columns), shown])
    model, tokenizer = base_models.load(base)
    answers = predict(
        model, tokenizer, questions, progress=lambda done, all: say(f"base: {done:,} of {all:,}", done / all / 4)
    )
    base_said, base_shown = answers["said"].head(of_base.height), answers["said"].tail(shown.height)

    model, tokenizer = base_models.load(base, adapter=held.adapter(fingerprint))
    everything = pl.concat([rows.select(shown.columns), shown])
    answers = predict(
        model,
        tokenizer,
        everything,
        progress=lambda done, all: say(f"tuned: {done:,} of {all:,}", 0.25 + 0.75 * done / all),
    )
    predictions = (
        asked.join(of_base.select("row").with_columns(base=base_said), on="row", how="left", maintain_order="left")
        .drop("row")
        .with_columns(tuned=answers["said"].head(rows.height), lowest=answers["lowest"].head(rows.height))
    )
    facts = RunFacts(
        base_model=base.name,
        base_revision=base.revision,
        recipe=made_of["recipe"],
        weeks=made_of["weeks"],
        stats=made_of["stats"],
        sources={week: _source(held, week) for week in made_of["weeks"]},
        adapter=fingerprint,
        training=training,
        seconds={"training": training["seconds"], "evaluation": time.perf_counter() - started},
        split_mode=made_of["mode"],
    )
    shown = shown.with_columns(base=base_shown, tuned=answers["said"].tail(shown.height))
    return summarise(predictions, facts, shown=shown), predictions, loss_plot(training["losses"], training["certain"])


def asked_of_base(rows: pl.DataFrame) -> list[bool]:
    """For each row, whether the base model is asked it: every fact once, its phrasing drawn by a hash."""
    phrasings = sorted(load_templates().questions)
    return [
        kind == "stranger" or phrasing == phrasings[int(share(f"base/{fact}") * len(phrasings))]
        for fact, phrasing, kind in rows.select("fact", "phrasing", "kind").iter_rows()
    ]


def _source(held: Store, key: str) -> str:
    content = json.loads(held.raw_origin(NflWeek.parse(key)).read_text(encoding="utf-8"))
    return str(content["kind"])
