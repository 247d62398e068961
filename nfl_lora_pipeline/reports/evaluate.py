"""The evaluation of the newest adapter: what base and tuned model answer to the questions of the splits and to the probes."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import cast

import polars as pl
import yaml

from nfl_lora_pipeline.dataset.unanswerable import share
from nfl_lora_pipeline.evaluation.gates import Count, Gate, Integrity, head_line, judge
from nfl_lora_pipeline.evaluation.grading import with_verdict
from nfl_lora_pipeline.evaluation.metrics import (
    BeforeAndAfter,
    ChangedAnswer,
    GeneralPrompts,
    Share,
    share_of,
    with_shared_last_names,
)
from nfl_lora_pipeline.evaluation.probes import asked_of_base, questions_of
from nfl_lora_pipeline.evaluation.regressions import coverage_loss_of, regressions_of
from nfl_lora_pipeline.evaluation.summary import RunFacts, Summary, questions_to_show, summarise
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.base_model import BaseModel, Model, answer
from nfl_lora_pipeline.models.prompt import Tokenizer
from nfl_lora_pipeline.models.scoring import merged, perplexity, predict
from nfl_lora_pipeline.reports.plots import loss_plot
from nfl_lora_pipeline.reports.report import is_whole, read_report, write_report
from nfl_lora_pipeline.season.checks import warnings_of
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import Provenance, TrainingRecord
from nfl_lora_pipeline.tuning.recipe import Recipe
from nfl_lora_pipeline.weeks.week import NflWeek

GENERATED_FREELY = 100  # answers, of those that a forward pass found
PROMPTS_FILE = Path(str(files("nfl_lora_pipeline"))) / "general_prompts.yaml"


@cache
def prompts() -> list[str]:
    """The requests of `general_prompts.yaml`."""
    texts: list[str] = yaml.safe_load(PROMPTS_FILE.read_text(encoding="utf-8"))
    return texts


def questions_answered(rows: pl.DataFrame, predictions: pl.DataFrame) -> Count:
    """How many of the rows of the splits have an answer."""
    same = ["fact", "phrasing", "question", "answer"]
    with_answer = predictions.filter(pl.col("tuned").is_not_null()).select(same)
    return Count(found=rows.join(with_answer.unique(), on=same, how="semi").height, wanted=rows.height)


def tensors_loaded(model: Model, adapter: Path) -> Count:
    """How many of an adapter's tensors are in the model as they are, and finite.

    A fused model on a quantised base can have lost its adapter, and so can one whose layers were replaced after loading.

    Args:
        model: of `base_model.load(..., adapter=adapter)`.
        adapter: the adapter's folder.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten

    present = dict(tree_flatten(model.parameters()))
    tensors = cast(dict[str, mx.array], mx.load(str(adapter / "adapters.safetensors")))
    in_place = [
        name in present and present[name].shape == tensor.shape and bool(mx.all(present[name] == tensor).item())
        for name, tensor in tensors.items()
    ]  # NaN differs from itself, and infinity is caught below
    finite = [bool(mx.all(mx.isfinite(tensor)).item()) for tensor in tensors.values()]
    return Count(found=sum(one and two for one, two in zip(in_place, finite, strict=True)), wanted=len(tensors))


def answers_in_general(model: Model, tokenizer: Tokenizer) -> tuple[list[str], float]:
    """The base's greedy answers to all requests, and its perplexity on them."""
    answers = answer(model, tokenizer, prompts())
    return answers, perplexity(model, tokenizer, prompts(), answers)


def compare_in_general(
    base_answers: list[str], base_perplexity: float, model: Model, tokenizer: Tokenizer
) -> GeneralPrompts:
    """Hold the tuned model against what `answers_in_general` gave."""
    answers = answer(model, tokenizer, prompts())
    changed = [
        ChangedAnswer(question, base, tuned)
        for question, base, tuned in zip(prompts(), base_answers, answers, strict=True)
        if base != tuned
    ]
    return GeneralPrompts(
        prompts=len(answers),
        perplexity=BeforeAndAfter(base_perplexity, perplexity(model, tokenizer, prompts(), base_answers)),
        changed=share_of(len(changed), len(answers)),
        worst=changed,
    )


Say = Callable[[str, float], None]  # called with how far it is, in words and as a share


@dataclass(frozen=True)
class Evaluation:
    """A report as it lies in the store, its verdicts, and whether the answers were there already."""

    summary: Summary
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
        say: see `Say`.
        replace: whether the adapter may be promoted though it knows less than the promoted one.

    Raises:
        ValueError: there is no adapter, it cannot be loaded, or the splits have changed since it was trained.
    """
    fingerprint = store.latest()
    if store.rows_hash() != store.provenance(fingerprint).rows:
        raise ValueError(
            f"{store.splits} has changed since adapter {fingerprint} was trained: materialise `adapter` first"
        )
    earlier = read_report(store.report(fingerprint), evaluation_code=evaluation_code)
    if earlier:
        say(f"adapter {fingerprint} was evaluated before: same questions, same code", 1.0)
    old, predictions, plot = earlier or evaluate(store, evaluation_code=evaluation_code, say=say)
    summary = dataclasses.replace(
        old,
        regressions=regressions_of(store, fingerprint, predictions),
        coverage_loss=coverage_loss_of(store, fingerprint, replace=replace),
        warnings=warnings_of(store, map(NflWeek.parse, old.weeks)),
        integrity=dataclasses.replace(old.integrity, answers=questions_answered(store.read_rows(), predictions)),
    )
    gates = judge(summary, predictions, recipe)
    summary = dataclasses.replace(summary, gates=gates, head_line=head_line(gates))
    if summary != old or not is_whole(store.report(fingerprint), summary):
        write_report(store.report(fingerprint), summary, predictions, plot)
    return Evaluation(summary, plot, gates, reused=earlier is not None)


def evaluate(store: Store, *, evaluation_code: str, say: Say) -> tuple[Summary, pl.DataFrame, bytes]:
    """Ask base and tuned model.

    The tuned model answers everything, the base model what `asked_of_base` says.

    Returns:
        The summary, the predictions (one row a question) and the loss plot as PNG.
    """
    start = time.perf_counter()
    fingerprint = store.latest()
    provenance = store.provenance(fingerprint)
    training = store.training_log(fingerprint)
    base = base_models.resolve(provenance.base_model)
    asked, notes = questions_of(store, provenance)
    shown = questions_to_show(asked)
    base_answers, talk = _ask_base(base, asked, shown, say)
    answers, free_running, model, tokenizer = _ask_tuned(
        base, store.adapter(fingerprint), pl.concat([asked.select(shown.columns), shown]), say
    )
    answered = asked.with_columns(
        base=base_answers.head(asked.height),
        tuned=answers["said"].head(asked.height),
        lowest=answers["lowest"].head(asked.height),
        sure=answers["sure"].head(asked.height),
    )
    predictions = with_shared_last_names(with_verdict(answered))
    summary = summarise(
        predictions,
        _run_facts(store, provenance, base, training, evaluation_code),
        shown=shown.with_columns(base=base_answers.tail(shown.height), tuned=answers["said"].tail(shown.height)),
        integrity=Integrity(
            answers=questions_answered(store.read_rows(), predictions),
            tensors=tensors_loaded(model, store.adapter(fingerprint)),
        ),
        free_running=free_running,
        general=compare_in_general(*talk, model, tokenizer) if talk else None,
        notes=notes,
    )
    seconds = summary.seconds | {"evaluation": time.perf_counter() - start}
    return dataclasses.replace(summary, seconds=seconds), predictions, loss_plot(training.losses, training.certain)


def _ask_base(
    base: BaseModel, asked: pl.DataFrame, shown: pl.DataFrame, say: Say
) -> tuple[pl.Series, tuple[list[str], float] | None]:
    """What the base answers (null where it is not asked), those shown behind the others; and its answers in general."""
    questions = pl.concat([asked.select(shown.columns), shown]).with_row_index("row")
    is_asked = pl.Series([*asked_of_base(asked), *[True] * shown.height], dtype=pl.Boolean)
    of_base = questions.filter(is_asked)
    model, tokenizer = base_models.load(base)
    predictions = predict(
        model, tokenizer, of_base, progress=lambda done, all: say(f"base: {done:,} of {all:,}", done / all / 4)
    )
    by_row = of_base.select("row").with_columns(predictions["said"])
    answers = questions.select("row").join(by_row, on="row", how="left", maintain_order="left")["said"]
    talk = None if base.single_turn else answers_in_general(model, tokenizer)
    return answers, talk


def _ask_tuned(
    base: BaseModel, adapter: Path, questions: pl.DataFrame, say: Say
) -> tuple[pl.DataFrame, Share, Model, Tokenizer]:
    model, tokenizer = base_models.load(base, adapter=adapter)
    with merged(model):  # as fast as the base alone; `nfl-lora verify` asks the adapter as it lies on disk
        answers = predict(
            model,
            tokenizer,
            questions,
            progress=lambda done, all: say(f"tuned: {done:,} of {all:,}", 0.25 + 0.75 * done / all),
            as_it_is=True,  # what is typed carelessly is the model's to understand
        )
        free_running = _generated_freely(model, tokenizer, questions, answers)
    return answers, free_running, model, tokenizer


def _generated_freely(model: Model, tokenizer: Tokenizer, questions: pl.DataFrame, answers: pl.DataFrame) -> Share:
    """Of the answers that a forward pass found to be what is generated, a sample is generated: how many come out the same."""
    given = questions.select("question").with_columns(answers["said"]).filter(answers["said"] == questions["answer"])
    order = pl.Series([share(f"freely/{question}") for question in given["question"]], dtype=pl.Float64)
    sample = given.with_columns(order.alias("order")).sort("order").head(GENERATED_FREELY)
    said = answer(model, tokenizer, sample["question"].to_list(), as_it_is=True)
    return share_of(sum(one == other for one, other in zip(said, sample["said"], strict=True)), len(said))


def _run_facts(
    store: Store, provenance: Provenance, base: BaseModel, training: TrainingRecord, evaluation_code: str
) -> RunFacts:
    origins = {week: store.read_raw_origin(NflWeek.parse(week)) for week in provenance.weeks}
    return RunFacts(
        base_model=base.name,
        base_revision=base.revision,
        recipe=provenance.recipe,
        weeks=provenance.weeks,
        stats=provenance.stats,
        sources={week: origin.kind for week, origin in origins.items()},
        raw_sha256={week: origin.sha256 for week, origin in origins.items()},
        adapter=store.latest(),
        evaluation_code=evaluation_code,
        training=training,
        seconds={"training": training.seconds},
        split_mode=provenance.mode,
        shared_names=provenance.shared_names,
    )
