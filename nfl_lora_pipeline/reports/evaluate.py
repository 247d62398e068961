"""The evaluation of the newest adapter: what base and tuned model answer to the questions of the splits and to the probes."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from nfl_lora_pipeline.evaluation import base_retention as general_prompts
from nfl_lora_pipeline.evaluation.gates import Gate, judge
from nfl_lora_pipeline.evaluation.grading import with_verdict
from nfl_lora_pipeline.evaluation.probes import asked_of_base, questions_of
from nfl_lora_pipeline.evaluation.regressions import coverage_loss_of, regressions_of
from nfl_lora_pipeline.evaluation.summary import RunFacts, questions_to_show, summarise
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.base_model import EMBEDDED_FOLDER, BaseModel
from nfl_lora_pipeline.models.scoring import merged, predict
from nfl_lora_pipeline.reports.plots import loss_plot
from nfl_lora_pipeline.reports.report import is_whole, read_report, write_report
from nfl_lora_pipeline.season.oddities import warnings_of
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.tuning.recipe import Recipe
from nfl_lora_pipeline.weeks.week import NflWeek


def questions_answered(rows: pl.DataFrame, predictions: pl.DataFrame) -> dict[str, int]:
    """How many rows of the splits there are (`rows`), and how many of them have an answer (`answered`)."""
    same = ["fact", "phrasing", "question", "answer"]
    answered = predictions.filter(pl.col("tuned").is_not_null()).select(same)
    return {"rows": rows.height, "answered": rows.join(answered.unique(), on=same, how="semi").height}


def tensors_loaded(model: Any, adapter: Path) -> dict[str, int]:
    """How many tensors an adapter has (`tensors`), and how many of them are in the model as they are, and finite (`loaded`).

    A fused model on a quantised base can have lost its adapter, and so can one whose layers were replaced after loading.

    Args:
        model: of `base_model.load(..., adapter=adapter)`.
        adapter: the adapter's folder.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten

    present = dict(tree_flatten(model.parameters()))
    tensors: Any = mx.load(str(adapter / "adapters.safetensors"))
    loaded = [
        name in present and present[name].shape == tensor.shape and bool(mx.all(present[name] == tensor).item())
        for name, tensor in tensors.items()
    ]  # NaN differs from itself, and infinity is caught below
    finite = [bool(mx.all(mx.isfinite(tensor)).item()) for tensor in tensors.values()]
    return {"tensors": len(tensors), "loaded": sum(one and two for one, two in zip(loaded, finite, strict=True))}


Say = Callable[..., None]


@dataclass(frozen=True)
class Evaluation:
    """A report as it lies in the store, its verdicts, and whether the answers were there already."""

    summary: dict[str, Any]
    plot: bytes
    gates: list[Gate]
    reused: bool


def evaluate_latest(
    store: Store, recipe: Recipe, *, evaluation_code: str, say: Say, replace: bool = False
) -> Evaluation:
    """Write the report on the newest adapter.

    Nothing is asked again where the same code has asked this adapter before. What it lost against the adapter before it, and
    the verdicts, are worked out anew from the predictions: promotions and thresholds change without a training.

    Args:
        store: the store.
        recipe: with the thresholds.
        evaluation_code: the version of the code that evaluates.
        say: told how far it is.
        replace: whether the adapter may be promoted though it knows less than the promoted one.

    Raises:
        ValueError: there is no adapter, it cannot be loaded, or the splits have changed since it was trained.
    """
    fingerprint = store.latest()
    if store.rows_hash() != store.provenance(fingerprint)["rows"]:
        raise ValueError(
            f"{store.splits} has changed since adapter {fingerprint} was trained: materialise `adapter` first"
        )
    kept = read_report(store.report(fingerprint), evaluation_code=evaluation_code)
    if kept:
        say(f"adapter {fingerprint} was evaluated before: same questions, same code", 1.0)
    old, predictions, plot = kept or evaluate(store, evaluation_code=evaluation_code, say=say)
    answered = questions_answered(store.read_rows(), predictions)
    summary = old | {
        "lost": regressions_of(store, fingerprint, predictions),
        "given_up": coverage_loss_of(store, fingerprint, replace=replace),
        "warnings": warnings_of(store, map(NflWeek.parse, old["weeks"])),
        "integrity": {**old["integrity"], **answered},
    }
    gates = judge(summary, predictions, recipe)
    summary["gates"] = [asdict(gate) for gate in gates]
    if summary != old or not is_whole(store.report(fingerprint), summary):
        write_report(store.report(fingerprint), summary, predictions, plot)
    return Evaluation(summary, plot, gates, reused=kept is not None)


def evaluate(store: Store, *, evaluation_code: str, say: Say) -> tuple[dict[str, Any], pl.DataFrame, bytes]:
    """Ask base and tuned model.

    The tuned model answers everything, the base model what `asked_of_base` says.

    Returns:
        The summary, the predictions (one row a question) and the loss plot as PNG.
    """
    started = time.perf_counter()
    fingerprint = store.latest()
    made_of = store.provenance(fingerprint)
    training = store.training(fingerprint)
    base = base_models.resolve(made_of["base_model"])
    asked, notes = questions_of(store, made_of)
    shown = questions_to_show(asked)
    base_said, talk = _ask_base(base, asked, shown, say)
    told, model, tokenizer = _ask_tuned(
        base, store.adapter(fingerprint), pl.concat([asked.select(shown.columns), shown]), say
    )
    predictions = with_verdict(
        asked.with_columns(
            base=base_said.head(asked.height),
            tuned=told["said"].head(asked.height),
            lowest=told["lowest"].head(asked.height),
        )
    )
    summary = summarise(
        predictions,
        _run_facts(store, made_of, base, training, evaluation_code),
        shown=shown.with_columns(base=base_said.tail(shown.height), tuned=told["said"].tail(shown.height)),
        general=general_prompts.compare(*talk, model, tokenizer) if talk else None,
        notes=notes,
        integrity=tensors_loaded(model, store.adapter(fingerprint)),
    )
    summary["seconds"]["evaluation"] = time.perf_counter() - started
    return summary, predictions, loss_plot(training["losses"], training["certain"])


def _ask_base(
    base: BaseModel, asked: pl.DataFrame, shown: pl.DataFrame, say: Say
) -> tuple[pl.Series, tuple[list[str], float] | None]:
    """What the base says (null where it is not asked), those shown behind the others; and what it says in general."""
    questions = pl.concat([asked.select(shown.columns), shown]).with_row_index("row")
    is_asked = pl.Series([*asked_of_base(asked), *[True] * shown.height], dtype=pl.Boolean)
    of_base = questions.filter(is_asked)
    model, tokenizer = base_models.load(base)
    answers = predict(
        model, tokenizer, of_base, progress=lambda done, all: say(f"base: {done:,} of {all:,}", done / all / 4)
    )
    told = of_base.select("row").with_columns(answers["said"])
    said = questions.select("row").join(told, on="row", how="left", maintain_order="left")["said"]
    talk = general_prompts.before(model, tokenizer) if base.folder != EMBEDDED_FOLDER else None
    return said, talk


def _ask_tuned(base: BaseModel, adapter: Path, questions: pl.DataFrame, say: Say) -> tuple[pl.DataFrame, Any, Any]:
    model, tokenizer = base_models.load(base, adapter=adapter)
    with merged(model):  # as fast as the base alone; `nfl-lora verify` asks the adapter as it lies on disk
        answers = predict(
            model,
            tokenizer,
            questions,
            progress=lambda done, all: say(f"tuned: {done:,} of {all:,}", 0.25 + 0.75 * done / all),
        )
    return answers, model, tokenizer


def _run_facts(
    store: Store, made_of: Mapping[str, Any], base: BaseModel, training: dict[str, Any], evaluation_code: str
) -> RunFacts:
    weeks: Sequence[str] = made_of["weeks"]
    origins = {week: store.read_raw_origin(NflWeek.parse(week)) for week in weeks}
    return RunFacts(
        base_model=base.name,
        base_revision=base.revision,
        recipe=made_of["recipe"],
        weeks=list(weeks),
        stats=made_of["stats"],
        sources={week: origin["kind"] for week, origin in origins.items()},
        raw_sha256={week: origin["sha256"] for week, origin in origins.items()},
        adapter=store.latest(),
        evaluation_code=evaluation_code,
        training=training,
        seconds={"training": training["seconds"]},
        split_mode=made_of["mode"],
        shared_names=made_of.get("shared_names", {}),
    )
