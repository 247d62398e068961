"""The exam of the newest adapter: what base and tuned model answer to every question of the splits."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from nfl_lora_pipeline import base_model as base_models
from nfl_lora_pipeline.evaluation import predict
from nfl_lora_pipeline.forgetting import lost_by
from nfl_lora_pipeline.gates import Gate, judge
from nfl_lora_pipeline.plots import loss_plot
from nfl_lora_pipeline.recipe import Recipe
from nfl_lora_pipeline.report import RunFacts, questions_to_show, read_report, summarise, write_report
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.strangers import share
from nfl_lora_pipeline.week import NflWeek
from nfl_lora_pipeline.wording import load_templates


@dataclass(frozen=True)
class Exam:
    """A report as it lies in the store, its verdicts, and whether the answers were there already."""

    summary: dict[str, Any]
    plot: bytes
    gates: list[Gate]
    reused: bool


def report_on_latest(held: Store, recipe: Recipe, *, evaluation_code: str, say: Callable[..., None]) -> Exam:
    """Write the report on the newest adapter.

    Nothing is asked again where the same code has asked this adapter before. What it lost against the adapter before it, and
    the verdicts, are worked out anew from the predictions: promotions and thresholds change without a training.

    Raises:
        ValueError: there is no adapter, or the splits have changed since it was trained.
    """
    fingerprint = held.latest()
    if held.rows_hash() != held.provenance(fingerprint)["rows"]:
        raise ValueError(
            f"{held.splits} has changed since adapter {fingerprint} was trained: materialise `adapter` first"
        )
    kept = read_report(held.report(fingerprint), evaluation_code=evaluation_code)
    if kept:
        say(f"adapter {fingerprint} was evaluated before: same questions, same code", 1.0)
    old, predictions, plot = kept or examine(held, evaluation_code=evaluation_code, say=say)
    summary = old | {"lost": lost_by(held, fingerprint, predictions)}
    gates = judge(summary, predictions, recipe)
    summary["gates"] = [asdict(gate) for gate in gates]
    if summary != old:
        write_report(held.report(fingerprint), summary, predictions, plot)
    return Exam(summary, plot, gates, reused=kept is not None)


def examine(
    held: Store, *, evaluation_code: str, say: Callable[..., None]
) -> tuple[dict[str, Any], pl.DataFrame, bytes]:
    """Ask base and tuned model.

    The tuned model answers every row; the base model answers every fact once, in a phrasing drawn by the fact's hash.

    Returns:
        The summary, the predictions (one row a question) and the loss plot as PNG.
    """
    started = time.perf_counter()
    fingerprint = held.latest()
    made_of = held.provenance(fingerprint)
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
    origins = {week: _origin(held, week) for week in made_of["weeks"]}
    facts = RunFacts(
        base_model=base.name,
        base_revision=base.revision,
        recipe=made_of["recipe"],
        weeks=made_of["weeks"],
        stats=made_of["stats"],
        sources={week: origin["kind"] for week, origin in origins.items()},
        raw_sha256={week: origin["sha256"] for week, origin in origins.items()},
        adapter=fingerprint,
        evaluation_code=evaluation_code,
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


def _origin(held: Store, key: str) -> dict[str, str]:
    content: dict[str, str] = json.loads(held.raw_origin(NflWeek.parse(key)).read_text(encoding="utf-8"))
    return content
