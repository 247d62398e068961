"""The evaluation of the newest adapter: what base and tuned model answer to the questions of the splits and to the probes."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

import polars as pl

from nfl_lora_pipeline.dataset.templates import only_if_sure
from nfl_lora_pipeline.evaluation.gates import Count, Gate, Integrity, head_line, judge, undecided
from nfl_lora_pipeline.evaluation.grading import with_verdict
from nfl_lora_pipeline.evaluation.metrics import (
    BeforeAndAfter,
    ChangedAnswer,
    GeneralPrompts,
    Share,
    share_of,
    with_shared_last_names,
)
from nfl_lora_pipeline.evaluation.probes import (
    ENOUGH,
    FIRST,
    FIRST_OF_LARGE_BASE,
    TRAINED,
    asked_of_base,
    comes_first,
    in_turn,
    of_the_splits,
    questions_of,
)
from nfl_lora_pipeline.evaluation.regressions import coverage_loss_of, regressions_of
from nfl_lora_pipeline.evaluation.summary import Exam, RunFacts, Summary, questions_to_show, summarise
from nfl_lora_pipeline.files import DamagedFile
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.base_model import BaseModel, Model, answer
from nfl_lora_pipeline.models.prompt import ANSWER_TOKENS, Tokenizer, general_prompts
from nfl_lora_pipeline.models.scoring import generated, merged, perplexity, predict
from nfl_lora_pipeline.recipes.recipe import Recipe
from nfl_lora_pipeline.reports.report import is_whole, read_report, write_report
from nfl_lora_pipeline.season.checks import warnings_of
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import CertificateRecord, Provenance, TrainingRecord, check_weights, read_json
from nfl_lora_pipeline.weeks.week import NflWeek

GENERATED_FREELY = 100  # answers, of those that the certificate has or a forward pass found


def questions_answered(rows: pl.DataFrame, predictions: pl.DataFrame, first: int = FIRST) -> Count:
    """How many of the rows of the splits that have to be answered, which are those that `comes_first`, are."""
    same = ["fact", "phrasing", "question", "answer"]
    wanted = in_turn(rows.with_columns(of_the_splits())).filter(comes_first(first))
    with_answer = predictions.filter(pl.col("tuned").is_not_null()).select(same)
    return Count(found=wanted.join(with_answer.unique(), on=same, how="semi").height, wanted=wanted.height)


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
    answers = answer(model, tokenizer, general_prompts("asked"))
    return answers, perplexity(model, tokenizer, general_prompts("asked"), answers)


def compare_in_general(
    base_answers: list[str], base_perplexity: float, model: Model, tokenizer: Tokenizer
) -> GeneralPrompts:
    """Hold the tuned model against what `answers_in_general` gave."""
    answers = answer(model, tokenizer, general_prompts("asked"))
    changed = [
        ChangedAnswer(question, base, tuned)
        for question, base, tuned in zip(general_prompts("asked"), base_answers, answers, strict=True)
        if base != tuned
    ]
    return GeneralPrompts(
        prompts=len(answers),
        perplexity=BeforeAndAfter(
            base_perplexity, perplexity(model, tokenizer, general_prompts("asked"), base_answers)
        ),
        changed=share_of(len(changed), len(answers)),
        worst=changed,
    )


Say = Callable[[str, float], None]  # called with how far it is, in words and as a share


@dataclass(frozen=True)
class Evaluation:
    """A report as it lies in the store, its verdicts, and whether the answers were there already."""

    summary: Summary
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
    old, predictions = earlier or evaluate(store, recipe, evaluation_code=evaluation_code, say=say)
    summary = dataclasses.replace(
        old,
        regressions=regressions_of(store, fingerprint, predictions),
        coverage_loss=coverage_loss_of(store, fingerprint, replace=replace),
        warnings=warnings_of(store, map(NflWeek.parse, old.weeks)),
        integrity=dataclasses.replace(
            old.integrity, answers=questions_answered(store.read_rows(), predictions, old.exam.first)
        ),
    )
    gates = judge(summary, predictions, recipe)
    summary = dataclasses.replace(summary, gates=gates, head_line=head_line(gates))
    if summary != old or not is_whole(store.report(fingerprint), summary):
        write_report(store.report(fingerprint), summary, predictions)
    return Evaluation(summary, gates, reused=earlier is not None)


def evaluate(store: Store, recipe: Recipe, *, evaluation_code: str, say: Say) -> tuple[Summary, pl.DataFrame]:
    """Ask base and tuned model.

    What the base answered in the report of an adapter before is not asked again, and neither is what the certificate of the
    tuned model's weights has, but for a sample that is generated and has to come out to the letter. Of all else the tuned
    model answers what `comes_first`, and the rest of the groups whose figure may lie on either side of the recipe's limit;
    the base model answers what `asked_of_base` says.

    Returns:
        The summary and the predictions (one row a question that was asked or is certified).
    """
    start = time.perf_counter()
    fingerprint = store.latest()
    provenance = store.provenance(fingerprint)
    training = store.training_log(fingerprint)
    base = base_models.resolve(provenance.base_model)
    questions, notes = questions_of(store, provenance)
    shown = questions_to_show(questions)
    before = _base_answers_before(store, base, evaluation_code)
    base_answers, base_shown, talk = _ask_base(base, questions, shown, before, say)
    model, tokenizer = base_models.load(base, adapter=store.adapter(fingerprint))
    with merged(model):  # as fast as the base alone; `nfl-lora verify` asks the adapter as it lies on disk
        examination = Examination(model, tokenizer, recipe, say)
        predictions, exam = examination.of(questions.with_columns(base=base_answers), _margins(store, fingerprint))
        tuned_shown = _told(predict(model, tokenizer, shown, as_it_is=True))
    summary = summarise(
        predictions,
        _run_facts(store, provenance, base, training, evaluation_code),
        shown=shown.with_columns(base=base_shown, tuned=tuned_shown),
        integrity=Integrity(
            answers=questions_answered(store.read_rows(), predictions),
            tensors=tensors_loaded(model, store.adapter(fingerprint)),
        ),
        exam=exam,
        general=compare_in_general(*talk, model, tokenizer) if talk else None,
        notes=notes,
    )
    seconds = summary.seconds | {"evaluation": time.perf_counter() - start}
    return dataclasses.replace(summary, seconds=seconds), predictions


MARGINS = {"fact": pl.String, "lowest": pl.Float64, "sure": pl.Float64}


def _margins(store: Store, fingerprint: str) -> pl.DataFrame:
    """Of each certain fact the lowest probabilities in any trained phrasing, as the certificate of these very weights says.

    Nothing where the weights are not those that were certified, or where that cannot be told.

    Returns:
        `MARGINS`: `lowest` is of a token, `sure` of the whole answer.
    """
    nothing = pl.DataFrame(schema=MARGINS)
    folder, provenance = store.adapter(fingerprint), store.provenance(fingerprint)
    if provenance.weights_sha256 is None:
        return nothing
    try:
        check_weights(folder, provenance, mend="")
        certificate = read_json(folder / "certificate.json", CertificateRecord, mend="")
    except DamagedFile:
        return nothing
    whole = certificate.answer_margins
    known = ((fact, lowest) for fact, lowest in certificate.margins.items() if certificate.is_certain(fact))
    return pl.DataFrame([(fact, lowest, whole[fact]) for fact, lowest in known if fact in whole], MARGINS, orient="row")


def _base_answers_before(store: Store, base: BaseModel, evaluation_code: str) -> dict[str, str]:
    """What this base, asked by this code, answered in the reports of the promoted adapter and of the newest before this one."""
    answers: dict[str, str] = {}
    for fingerprint in filter(None, {store.promoted(), store.previous_latest()}):
        report = read_report(store.report(fingerprint), evaluation_code=evaluation_code)
        if report and report[0].base_revision == base.revision:
            answers |= dict(report[1].select("question", "base").drop_nulls().iter_rows())
    return answers


def _ask_base(
    base: BaseModel, questions: pl.DataFrame, shown: pl.DataFrame, before: dict[str, str], say: Say
) -> tuple[pl.Series, pl.Series, tuple[list[str], float] | None]:
    """What the base answers (null where it is not asked); what it answers to those shown; and its answers in general.

    `before` has answers by their questions.
    """
    most = FIRST if base.is_small else FIRST_OF_LARGE_BASE
    is_asked = pl.Series(asked_of_base(questions, most=most), dtype=pl.Boolean)
    both = pl.concat([questions.filter(is_asked).select(shown.columns), shown]).unique("question", maintain_order=True)
    new = both.filter(~pl.col("question").is_in(list(before)))
    if new.height < both.height:
        say(f"base: {both.height - new.height:,} of {both.height:,} have its answer from an earlier report", 0.0)
    answers, talk = dict(before), None
    if new.height or not base.single_turn:
        model, tokenizer = base_models.load(base)
        answers |= dict(zip(new["question"], _said_by_base(base, model, tokenizer, new, say), strict=True))
        talk = None if base.single_turn else answers_in_general(model, tokenizer)
    found = pl.col("question").replace_strict(answers, default=None, return_dtype=pl.String)
    return (
        questions.select(said=pl.when(is_asked).then(found))["said"],
        shown.select(said=found)["said"],
        talk,
    )


def _said_by_base(base: BaseModel, model: Model, tokenizer: Tokenizer, asked: pl.DataFrame, say: Say) -> list[str]:
    """A small base is guessed to refuse, as the embedded one does; what a large one says nobody guesses."""

    def tell(done: int, total: int) -> None:
        if total:
            say(f"base: {done:,} of {total:,}", done / total / 4)

    if base.is_small:
        return predict(model, tokenizer, asked, progress=tell)["said"].to_list()
    return generated(model, tokenizer, asked["question"].to_list(), progress=tell)


@dataclass(frozen=True)
class Examination:
    """The tuned model in its exam."""

    model: Model
    tokenizer: Tokenizer
    recipe: Recipe
    say: Say

    def of(self, questions: pl.DataFrame, margins: pl.DataFrame) -> tuple[pl.DataFrame, Exam]:
        """Ask what has to be asked.

        Args:
            questions: of `questions_of`, with `base`.
            margins: of `_margins`.

        Returns:
            The predictions, in the order of the questions, and how much was asked. They have `generated` (what the model
            answers), `sure` (how probable that is as a whole) and `tuned` (what somebody is told of it).
        """
        numbered = questions.with_row_index("row").join(margins, on="fact", how="left", maintain_order="left")
        is_certified = (
            (pl.col("part") == TRAINED) & pl.col("lowest").is_not_null() & self._are_short(numbered["answer"])
        )
        certified = numbered.filter(is_certified).with_columns(generated="answer")
        certified = certified.with_columns(_told(certified.select("sure", said="generated")))
        generated = self._generated(certified)
        if generated.right < generated.asked:  # the certificate is not to be trusted
            certified = certified.clear()
        others = numbered.join(certified, on="row", how="anti", maintain_order="left").drop("lowest", "sure")
        answered = [certified, self._asked(others.filter(comes_first()))]
        for after, last in pairwise(sorted({FIRST, ENOUGH, others.height})):
            untaught = pl.concat(answered[1:]).filter(pl.col("part") != TRAINED)
            more = pl.col("group").is_in(list(undecided(_graded(untaught), self.recipe)))
            answered.append(self._asked(others.filter(~comes_first(after), comes_first(last), more)))
        columns = [*questions.columns, "generated", "tuned", "lowest", "sure"]
        predictions = _graded(pl.concat([part.select("row", *columns) for part in answered]).sort("row").drop("row"))
        if not generated.asked:
            generated = self._generated(predictions.filter(pl.col("generated") == pl.col("answer")))
        return predictions.drop("part", "turn"), Exam(
            possible=questions.height,
            asked=predictions.height - certified.height,
            certified=certified.height,
            generated=generated,
            first=FIRST,
        )

    def _are_short(self, answers: pl.Series) -> pl.Series:
        """Whether each answer, with its end, is one that generation gives whole."""
        texts = answers.unique()
        short = [text for text in texts if len(self.tokenizer.encode(text)) < ANSWER_TOKENS]
        return answers.is_in(short)

    def _asked(self, questions: pl.DataFrame) -> pl.DataFrame:
        answers = predict(
            self.model,
            self.tokenizer,
            questions,
            progress=self._tell,
            as_it_is=True,  # what is typed carelessly is the model's to understand
        )
        return questions.with_columns(
            _told(answers), generated=answers["said"], lowest=answers["lowest"], sure=answers["sure"]
        )

    def _tell(self, done: int, total: int) -> None:
        if total:
            self.say(f"tuned: {done:,} of {total:,}", 0.25 + 0.75 * done / total)

    def _generated(self, found: pl.DataFrame) -> Share:
        """Of answers that nobody has generated a sample is generated: how many come out the same."""
        sample = found.sort("turn").head(GENERATED_FREELY)
        said = answer(self.model, self.tokenizer, sample["question"].to_list(), as_it_is=True)
        return share_of(sum(one == other for one, other in zip(said, sample["generated"], strict=True)), len(said))


def _told(answers: pl.DataFrame) -> pl.Series:
    """`tuned`: what somebody is told of `said`, by how `sure` it is."""
    told = [only_if_sure(said, sure) for said, sure in answers.select("said", "sure").iter_rows()]
    return pl.Series("tuned", told, dtype=pl.String)


def _graded(answered: pl.DataFrame) -> pl.DataFrame:
    return with_shared_last_names(with_verdict(answered))


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
