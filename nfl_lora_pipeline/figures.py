"""From predictions to the figures of a report: recall, and what it is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from nfl_lora_pipeline.exam_questions import ALTERED, KNOWN, is_of_the_splits
from nfl_lora_pipeline.intervals import counted, share_of
from nfl_lora_pipeline.making_up import over_refusal, without_facts
from nfl_lora_pipeline.retention import retained
from nfl_lora_pipeline.verdicts import number_right, refusals

ORIGINAL_QUESTIONS = [
    f"how many receiving yards did {player} have in week 1 of the 2025 NFL season?"
    for player in ("Nico Collins", "Ladd McConkey", "Rome Odunze")
]
SHOWN_COLUMNS = ["question", "answer", "refusal"]
MISSES_KEPT = 2000  # in report.json; `predictions.parquet` has all
MISSED_FACTS = 10


@dataclass(frozen=True)
class RunFacts:
    """What was trained and evaluated, and on what.

    Attributes:
        weeks: partition keys.
        sources: where each week came from ("folder", "github" or "sample"), by partition key.
        raw_sha256: of each week's file as published, by partition key.
        evaluation_code: the version of the code that evaluates.
        adapter: its fingerprint.
        training: the fields of `curriculum.TrainingLog`.
        seconds: of training and evaluation.
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
    training: dict[str, Any]
    seconds: dict[str, float]


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
    general: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    integrity: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All figures of a report.

    Args:
        predictions: of `verdicts.with_verdict`, one row a question: also the columns of `questions.qa_pairs`, `group`,
            `base` (what the base model said, null where it was not asked) and `lowest`.
        facts: what was trained.
        shown: `question`, `answer`, `base` and `tuned` of the questions to show.
        general: what `general_prompts.compare` found; None where a base can say nothing in general.
        notes: what could not be asked, one line each.
        integrity: what `integrity.integrity_of` found.

    Returns:
        A JSON-serialisable dict. An answer is right when it is the reference answer to the letter. `recall.trained` is over
        all facts in trained phrasings; `heldout_phrasings` over recorded facts and byes in phrasings that were not
        trained; `nonzero` over trained phrasings of numbers other than 0; `refused_strangers` the share of questions
        about invented people that are refused. A share is null where there was nothing to ask. `exact` has the same four
        with Wilson intervals, `numbers` the first three where the right number in any words counts. `recall_by_week` is
        over trained phrasings, by partition key. `lost` and `gates` are left for who knows the adapter before this one
        and the thresholds.
    """
    asked = predictions.filter(is_of_the_splits())
    real, strangers = asked.filter(pl.col("kind") != "stranger"), asked.filter(pl.col("kind") == "stranger")
    trained = real.filter(pl.col("split") == "train")
    held_out = real.filter(pl.col("split") != "train", pl.col("kind") != "no_record")
    told = {"trained": trained, "heldout_phrasings": held_out, "nonzero": trained.filter(pl.col("value") != 0)}
    exact = {name: counted(rows["right"]) for name, rows in (told | {"refused_strangers": strangers}).items()}
    numbers = {name: counted(rows["number_right"].drop_nulls()) for name, rows in told.items()}
    by_week = _recall_by(trained.with_columns(week=week_key()), "week")
    return {
        **asdict(facts),
        "questions": shown.select("question", "base", "tuned", expected="answer").to_dicts(),
        "recall": {name: share["share"] for name, share in exact.items()},
        "exact": exact,
        "numbers": numbers,
        "asked": {"trained": trained.height, "heldout_phrasings": held_out.height, "strangers": strangers.height},
        "facts": real["fact"].n_unique(),
        "recorded_facts": real.filter(pl.col("kind") == "recorded")["fact"].n_unique(),
        "base": _of_base(asked.filter(pl.col("base").is_not_null())),
        "commonest": commonest(trained),
        "by_stat": _recall_by(trained.sort("stat"), "stat"),
        "by_kind": _recall_by(trained, "kind"),
        "by_status": _recall_by(trained, "status"),
        "by_week": by_week,
        "recall_by_week": {group["name"]: group["recall"] for group in by_week},
        "by_phrasing": _recall_by(real, "phrasing", "split"),
        "phrasing": phrasing(predictions),
        "unknown": without_facts(predictions),
        "over_refusal": over_refusal(predictions),
        "retained": retained(predictions, general),
        "general": general,
        "notes": list(notes),
        "integrity": dict(integrity) if integrity else None,
        "misses": _misses(predictions),
        "lost": None,
        "gates": [],
    }


def week_key() -> pl.Expr:
    """The partition key of a row's `season` and `week`."""
    return pl.format("{}-W{}", "season", pl.col("week").cast(pl.String).str.zfill(2))


def commonest(trained: pl.DataFrame) -> list[dict[str, Any]]:
    """What who knows nothing but the commonest number gets: it is said of everybody recorded.

    Returns:
        For each stat, and last for all of them ("all"), `name`, `number` (None for "all"), the counted share of facts that
        have it, and `tuned`, the share of the same facts' questions to which the tuned model gave the right number.
    """
    recorded = trained.filter(pl.col("kind") == "recorded")
    found: list[dict[str, Any]] = []
    for (stat,), rows in recorded.sort("stat").group_by("stat", maintain_order=True):
        values = rows.unique("fact")["value"].value_counts().sort("count", "value", descending=[True, False])
        number, hits = values.row(0)
        tuned = counted(rows["number_right"])["share"]
        found.append({"name": stat, "number": number, **share_of(hits, int(values["count"].sum())), "tuned": tuned})
    if found:
        right, asked = sum(row["right"] for row in found), sum(row["asked"] for row in found)
        tuned = counted(recorded["number_right"])["share"]
        found.append({"name": "all", "number": None, **share_of(right, asked), "tuned": tuned})
    return found


def phrasing(predictions: pl.DataFrame) -> dict[str, Any]:
    """How recorded facts fare in each phrasing, in altered words, and in all phrasings at once.

    Returns:
        `of_facts`: recorded facts by phrasing, `name`, `split`, `exact` and `numbers` (counted). `altered`: the same of
        each altered group, with `refused` and up to ten misses (`worst`). `worst`: the name of the phrasing with the
        fewest right numbers. `in_all`: the counted share of recorded facts that are right to the letter in every trained
        and held-out phrasing, and `not_in_all`: the facts that fail most often, with `wrong`.
    """
    recorded = predictions.filter(pl.col("kind") == "recorded", pl.col("group") == KNOWN)
    of_facts = [
        {
            "name": name,
            "split": split,
            "exact": counted(rows["right"]),
            "numbers": counted(rows["number_right"]),
        }
        for (split, name), rows in sorted(recorded.group_by("split", "phrasing"), key=lambda group: group[0])
    ]
    facts = recorded.group_by("fact").agg(wrong=(~pl.col("right")).sum(), asked=pl.len())
    failing = facts.filter(pl.col("wrong") > 0).sort(-pl.col("wrong").cast(pl.Int64), "fact")
    return {
        "of_facts": of_facts,
        "altered": [_altered(predictions, group) for group in ALTERED],
        "worst": min(of_facts, key=lambda row: row["numbers"]["share"])["name"] if of_facts else None,
        "in_all": counted(facts["wrong"] == 0),
        "not_in_all": failing.head(MISSED_FACTS).to_dicts(),
    }


def misses_of(wrong: pl.DataFrame) -> list[dict[str, str]]:
    """`question`, `expected` and `said` of wrong answers, as a report lists them."""
    return wrong.select("question", expected="answer", said="tuned").to_dicts()


def _altered(predictions: pl.DataFrame, group: str) -> dict[str, Any]:
    rows = predictions.filter(pl.col("group") == group)
    return {
        "name": group,
        "numbers": counted(rows["number_right"]),
        "refused": counted(rows["refused"]),
        "worst": misses_of(rows.filter(~pl.col("right")).sort("refused", "fact").head(MISSED_FACTS)),
    }


def _misses(predictions: pl.DataFrame) -> dict[str, Any]:
    """Trained phrasings first, then held-out ones, then the other groups."""
    order = {"train": 0, "valid": 1, "test": 1}
    wrong = predictions.filter(~pl.col("right")).sort(
        ~is_of_the_splits(), pl.col("split").replace_strict(order), "group", "fact", "phrasing"
    )
    listed = wrong.head(MISSES_KEPT).select("question", "split", "group", expected="answer", said="tuned")
    return {
        "count": wrong.height,
        "of_the_splits": wrong.filter(is_of_the_splits()).height,
        "worst": listed.to_dicts(),
    }


def _of_base(asked: pl.DataFrame) -> dict[str, Any]:
    numbers = counted(number_right(asked, "base").drop_nulls())
    refused = counted(refusals(asked, "base"))
    return {
        "numbers_right": numbers["share"],
        "refused": refused["share"],
        "asked": asked.height,
        "numbers": numbers,
        "refusals": refused,
    }


def _recall_by(scored: pl.DataFrame, *names: str) -> list[dict[str, Any]]:
    """`name` (and `split`), `right`, `asked`, `recall` with its interval, and `numbers`: of those with a number, counted."""
    found = []
    for keys, rows in sorted(scored.group_by(names), key=lambda group: group[0][::-1]):
        exact, numbers = counted(rows["right"]), counted(rows["number_right"].drop_nulls())
        named = dict(zip(("name", *names[1:]), keys, strict=True))
        found.append(named | exact | {"recall": exact["share"], "numbers": numbers})
    return found
