"""From predictions to the figures of a report: recall, and what it is made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar

import polars as pl

from nfl_lora_pipeline.evaluation.gates import Gate, Integrity
from nfl_lora_pipeline.evaluation.grading import number_right, refusals
from nfl_lora_pipeline.evaluation.metrics import (
    Ability,
    CommonestNumber,
    GeneralPrompts,
    GroupRecall,
    OverRefusal,
    PhrasingMetrics,
    Share,
    Sureness,
    UnanswerableQuestions,
    commonest,
    counted,
    of_asked,
    over_refusal,
    phrasing,
    recall_by,
    retained,
    share_of,
    sureness,
    week_key,
    without_facts,
)
from nfl_lora_pipeline.evaluation.probes import ENOUGH, GROUPS, IN_WORDS, is_of_the_splits, wording_text
from nfl_lora_pipeline.evaluation.regressions import CoverageLoss, Regressions
from nfl_lora_pipeline.markdown import percent
from nfl_lora_pipeline.stored import TrainingRecord

ORIGINAL_QUESTIONS = [
    f"how many receiving yards did {player} have in week 1 of the 2025 NFL season?"
    for player in ("Nico Collins", "Ladd McConkey", "Rome Odunze")
]
SHOWN_COLUMNS = ["question", "answer", "refusal"]
MISSES_KEPT = 2000  # in report.json; `predictions.parquet` has all


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What was trained and evaluated, and on what.

    Attributes:
        weeks: partition keys.
        sources: the name of the source of each week ("sample": invented people), by partition key.
        raw_sha256: of each week's file as published, by partition key.
        evaluation_code: the version of the code that evaluates.
        adapter: its fingerprint.
        training: the log of the training.
        seconds: of training and evaluation.
        shared_names: by partition key, names of several people, of whom nothing is taught.
    """

    base_model: str
    base_revision: str
    recipe: str
    weeks: list[str]
    stats: list[str]
    sources: dict[str, str]
    raw_sha256: dict[str, str]
    split_mode: str
    adapter: str
    evaluation_code: str
    training: TrainingRecord
    seconds: dict[str, float]
    shared_names: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ShownAnswers:
    """A question that is shown with both answers to it; `base` is None where the base was not asked."""

    question: str
    base: str | None
    tuned: str
    expected: str


@dataclass(frozen=True)
class Exam:
    """How much was asked of the tuned model.

    Attributes:
        possible: questions that there are.
        asked: those that were.
        certified: those that were not, since the certificate of the same weights has them, but for those of `generated`.
        generated: of what the certificate has (or, where it has nothing, of what a forward pass found), those that were
            generated token by token, and how many came out to the letter.
        first: how many questions of a part were asked in any case.
    """

    possible: int
    asked: int
    certified: int
    generated: Share
    first: int = ENOUGH  # of the reports before this was said


@dataclass(frozen=True)
class BaseMetrics:
    """The base on the questions of the splits that it was asked: right numbers, and refusals in any words."""

    asked: int
    numbers: Share
    refusals: Share


@dataclass(frozen=True)
class WrongAnswer:
    """A question whose answer is wrong, and where it comes from."""

    question: str
    split: str
    group: str
    expected: str
    answer: str


@dataclass(frozen=True)
class Misses:
    """Wrong answers: how many, how many of them to questions of the splits, and the first `MISSES_KEPT`."""

    count: int
    of_the_splits: int
    worst: list[WrongAnswer]


@dataclass(frozen=True, kw_only=True)
class Summary(RunFacts):
    """All figures of a report: the content of `report.json`.

    An answer is right when it is the reference answer to the letter.

    Attributes:
        questions: three, to show.
        recall: shares: `trained` over all facts in trained phrasings; `heldout_phrasings` over recorded facts and byes in
            phrasings that were not trained; `nonzero` over trained phrasings of numbers other than 0; `refused_strangers` of
            questions about invented people that are refused. None where there was nothing to ask.
        exact: the same four with their intervals.
        numbers: the first three where the right number in any words counts.
        asked: how many questions of `trained`, `heldout_phrasings` and `strangers` there were.
        facts: of all kinds.
        recorded_facts: those with a number.
        by_stat, by_kind, by_status, by_week: over trained phrasings.
        recall_by_week: by partition key.
        by_phrasing: over all facts, by the phrasings' texts.
        phrasing, unknown, over_refusal, retained, sureness, general: see `metrics`; `general` is None where a base says
            nothing in general.
        notes: what could not be asked, one line each.
        integrity: whether all was asked, of the whole adapter.
        exam: how much was asked.
        regressions, coverage_loss, warnings, gates, head_line: filled in by who knows the adapter before this one, the weeks
            and the thresholds.
    """

    OLDEST_SCHEMA: ClassVar[int] = 4
    SCHEMA: ClassVar[int] = 4

    schema_version: int = SCHEMA
    questions: list[ShownAnswers]
    recall: dict[str, float | None]
    exact: dict[str, Share]
    numbers: dict[str, Share]
    asked: dict[str, int]
    facts: int
    recorded_facts: int
    base: BaseMetrics
    commonest: list[CommonestNumber]
    by_stat: list[GroupRecall]
    by_kind: list[GroupRecall]
    by_status: list[GroupRecall]
    by_week: list[GroupRecall]
    recall_by_week: dict[str, float | None]
    by_phrasing: list[GroupRecall]
    phrasing: PhrasingMetrics
    unknown: list[UnanswerableQuestions]
    over_refusal: OverRefusal
    retained: list[Ability]
    general: GeneralPrompts | None
    notes: list[str]
    integrity: Integrity
    misses: Misses
    sureness: Sureness
    exam: Exam
    regressions: Regressions | None = None
    coverage_loss: CoverageLoss | None = None
    warnings: list[str] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    head_line: str = ""


@dataclass(frozen=True)
class KeyFigure:
    """One of the few figures that a report begins with.

    Attributes:
        name: what it is of, in a few words.
        text: the figure for people: "99.0%", "441 of 441"; "-" where there is none.
        share: the figure as a number, from 0 to 1; None where there is none.
        meaning: of what it is counted, as a sentence without its end.
    """

    name: str
    text: str
    share: float | None
    meaning: str


def key_figures(summary: Summary) -> list[KeyFigure]:
    """Five figures: what was taught, in its words, in others and as people type; what cannot be known; what was known before.

    Of several groups of questions the worst one speaks.
    """
    training, right = summary.training, "of {asked} questions in "
    certain = share_of(training.facts - len(training.uncertain), training.facts)
    typed = {group.name: group.numbers for group in summary.phrasing.altered}
    unknown = {group.name: group.refused for group in summary.unknown}
    return [
        _figure(
            "right as taught",
            summary.exact["trained"],
            f"{right}trained phrasings, to the letter; {of_asked(certain)} facts are certain",
        ),
        _figure(
            "right in other words",
            summary.exact["heldout_phrasings"],
            f"{right}phrasings never trained, to the letter",
        ),
        _worst("right as people type", typed, "of {asked} questions with "),
        _worst("refused where it cannot know", unknown, "of {asked} questions about "),
        _lost(summary.regressions),
    ]


def _figure(name: str, share: Share, meaning: str) -> KeyFigure:
    if not share.asked:
        return KeyFigure(name, "-", None, "nothing of the kind was asked")
    return KeyFigure(name, percent(share.share), share.share, meaning.format(asked=f"{share.asked:,}"))


def _worst(name: str, groups: dict[str, Share], meaning: str) -> KeyFigure:
    asked = {group: share for group, share in groups.items() if share.asked}
    if not asked:
        return _figure(name, share_of(0, 0), "")
    worst = min(asked, key=lambda group: asked[group].fraction)
    which = f", the worst of {len(asked)} groups" if len(asked) > 1 else ""
    return _figure(name, asked[worst], f"{meaning}{IN_WORDS[worst]}{which}")


def _lost(regressions: Regressions | None) -> KeyFigure:
    name = "lost in the update"
    if regressions is None or not regressions.trained.questions:
        return KeyFigure(name, "-", None, "there is no adapter before this one to compare it with")
    counts = regressions.trained
    meaning = f"questions in trained phrasings that adapter {regressions.against} had right and that are wrong now"
    return KeyFigure(name, f"{counts.lost:,} of {counts.questions:,}", counts.lost / counts.questions, meaning)


def questions_to_show(rows: pl.DataFrame) -> pl.DataFrame:
    """Three questions to show before and after: the original ones, and where they are not among the rows, those about
    the largest numbers, asked in lower case.

    Returns:
        `question`, `answer` and `refusal`, three rows where there are so many.
    """
    originals = rows.filter(pl.col("question").is_in(ORIGINAL_QUESTIONS))
    original = originals.sort("fact").unique("question", keep="first").select(SHOWN_COLUMNS)
    asked = pl.DataFrame({"question": ORIGINAL_QUESTIONS}).join(original, on="question", maintain_order="left")
    lower_case = pl.col("question").str.contains("^[a-z]")
    others = (
        rows.filter(pl.col("kind") == "recorded", pl.col("split") == "train")
        .sort(lower_case, "value", "fact", "phrasing", descending=[True, True, False, False])
        .unique("fact", keep="first", maintain_order=True)
        .join(originals, on="fact", how="anti", maintain_order="left")
        .select(SHOWN_COLUMNS)
    )
    return pl.concat([asked, others]).head(len(ORIGINAL_QUESTIONS))


def summarise(
    predictions: pl.DataFrame,
    facts: RunFacts,
    *,
    shown: pl.DataFrame,
    integrity: Integrity,
    exam: Exam,
    general: GeneralPrompts | None = None,
    notes: Sequence[str] = (),
) -> Summary:
    """All figures of a report.

    Args:
        predictions: of `grading.with_verdict`, one row a question, with `base` (null where the base was not asked).
        shown: `question`, `answer`, `base` and `tuned` of the questions to show.
        facts, integrity, exam, general, notes: as in `Summary`, and what was trained.
    """
    asked = predictions.filter(is_of_the_splits())
    real, strangers = asked.filter(pl.col("kind") != "stranger"), asked.filter(pl.col("kind") == "stranger")
    known, trained = _known(real), real.filter(pl.col("split") == "train")
    by_week = recall_by(trained.with_columns(week=week_key()), "week")
    exact = {name: counted(rows["right"]) for name, rows in (known | {"refused_strangers": strangers}).items()}
    return Summary(
        **{each.name: getattr(facts, each.name) for each in fields(RunFacts)},
        questions=[ShownAnswers(*row) for row in shown.select("question", "base", "tuned", "answer").iter_rows()],
        recall={name: share.share for name, share in exact.items()},
        exact=exact,
        numbers={name: counted(rows["number_right"].drop_nulls()) for name, rows in known.items()},
        asked={name: known[name].height for name in ("trained", "heldout_phrasings")} | {"strangers": strangers.height},
        facts=real["fact"].n_unique(),
        recorded_facts=real.filter(pl.col("kind") == "recorded")["fact"].n_unique(),
        base=_of_base(asked.filter(pl.col("base").is_not_null())),
        commonest=commonest(trained),
        by_stat=recall_by(trained.sort("stat"), "stat"),
        by_kind=recall_by(trained, "kind"),
        by_status=recall_by(trained, "status"),
        by_week=by_week,
        recall_by_week={group.name: group.exact.share for group in by_week},
        by_phrasing=recall_by(real.with_columns(wording_text()), "phrasing", "split"),
        phrasing=phrasing(predictions),
        unknown=without_facts(predictions),
        over_refusal=over_refusal(predictions),
        retained=retained(predictions, general),
        general=general,
        notes=list(notes),
        integrity=integrity,
        misses=_misses(predictions),
        sureness=sureness(predictions),
        exam=exam,
    )


def _known(real: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The questions of the splits about real people that recall is counted over; see `Summary`."""
    trained = real.filter(pl.col("split") == "train")
    held_out = real.filter(pl.col("split") != "train", pl.col("kind") != "no_record")
    return {"trained": trained, "heldout_phrasings": held_out, "nonzero": trained.filter(pl.col("value") != 0)}


def _misses(predictions: pl.DataFrame) -> Misses:
    """What is known first, the trained phrasings before the others; then the other groups in their order."""
    order = {group: place for place, group in enumerate(GROUPS)}
    wrong = predictions.filter(~pl.col("right")).sort(
        pl.col("group").replace_strict(order), pl.col("split") != "train", "fact", "phrasing"
    )
    first = wrong.head(MISSES_KEPT).select("question", "split", "group", "answer", "tuned")
    return Misses(
        count=wrong.height,
        of_the_splits=wrong.filter(is_of_the_splits()).height,
        worst=[WrongAnswer(*row) for row in first.iter_rows()],
    )


def _of_base(asked: pl.DataFrame) -> BaseMetrics:
    return BaseMetrics(
        asked=asked.height,
        numbers=counted(number_right(asked, "base").drop_nulls()),
        refusals=counted(refusals(asked, "base")),
    )
