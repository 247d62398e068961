"""What an adapter no longer answers that the one before it did, and what it was not taught at all."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from nfl_lora_pipeline.adapters.lineage import knows_invented_people, read_taught_facts
from nfl_lora_pipeline.adapters.promotion import before
from nfl_lora_pipeline.evaluation.grading import exact_or_refused
from nfl_lora_pipeline.evaluation.metrics import week_key
from nfl_lora_pipeline.evaluation.probes import KNOWN, is_of_the_splits
from nfl_lora_pipeline.files import DamagedFile
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import read_predictions
from nfl_lora_pipeline.weeks.week import NflWeek, spoken_weeks

SAME = ["fact", "phrasing", "answer"]


@dataclass(frozen=True)
class Lost:
    """How many questions were compared, and how many of them were right before and are wrong now."""

    questions: int
    lost: int


@dataclass(frozen=True)
class Regression:
    """A question that was answered right before and is not now."""

    question: str
    split: str
    expected: str
    answer: str


@dataclass(frozen=True)
class WeekChange:
    """What changed in a week, over the questions of the splits that both adapters were asked and that have the same answer.

    Attributes:
        week: its partition key.
        questions: how many there are.
        right_before, right_now: how many of them were right, and are.
        lost, gained: how many were right and are wrong now, and the other way round.
    """

    week: str
    questions: int
    right_before: int
    right_now: int
    lost: int
    gained: int


@dataclass(frozen=True)
class Regressions:
    """What an update lost of what the adapter before it answered right.

    Attributes:
        every: over all questions of the splits that both were asked and that have the same answer in both.
        trained: over those in trained phrasings alone.
        worst: every lost question, trained phrasings first.
        against: the fingerprint of the adapter before.
        promoted: whether that one is or was promoted.
        by_week: the same as `every`, week by week; empty in reports of earlier code.
    """

    every: Lost
    trained: Lost
    worst: list[Regression]
    against: str = ""
    promoted: bool = False
    by_week: list[WeekChange] = field(default_factory=list)


def regressions_between(old: pl.DataFrame, new: pl.DataFrame) -> Regressions:
    """Compare two adapters on the questions of the splits that both were asked and that have the same answer in both.

    Args:
        old: predictions of the adapter before, one row a question: `fact`, `phrasing`, `kind`, `answer` and `tuned`.
        new: those of the adapter after it, with `split`, `question`, `season` and `week` besides.
    """
    old, new = _of_the_splits(old), _of_the_splits(new)
    was_right = old.select(SAME).with_columns(exact_or_refused(old).alias("was_right"))
    both = new.with_columns(exact_or_refused(new)).join(was_right, on=SAME, how="inner", maintain_order="left")
    losses = both.filter("was_right", ~pl.col("right")).sort(pl.col("split") != "train", "fact", "phrasing")
    is_trained = pl.col("split") == "train"
    return Regressions(
        every=Lost(both.height, losses.height),
        trained=Lost(both.filter(is_trained).height, losses.filter(is_trained).height),
        worst=[Regression(*row) for row in losses.select("question", "split", "answer", "tuned").iter_rows()],
        by_week=_by_week(both),
    )


def _by_week(both: pl.DataFrame) -> list[WeekChange]:
    counts = (
        both.group_by(key=week_key())
        .agg(
            questions=pl.len(),
            right_before=pl.col("was_right").sum(),
            right_now=pl.col("right").sum(),
            lost=(pl.col("was_right") & ~pl.col("right")).sum(),
            gained=(pl.col("right") & ~pl.col("was_right")).sum(),
        )
        .sort("key")
    )
    return [WeekChange(*row) for row in counts.iter_rows()]


def regressions_of(store: Store, fingerprint: str, predictions: pl.DataFrame) -> Regressions | None:
    """What an adapter lost against the one before it: the promoted one, or else the newest one before.

    Returns:
        None where there was no adapter before, or its predictions cannot be read.
    """
    promoted = before(store, fingerprint)
    against = promoted or store.previous_latest()
    if against is None:
        return None
    try:
        old = read_predictions(store.report(against), [*SAME, "kind", "tuned"])
    except DamagedFile:
        return None
    return replace(regressions_between(old, predictions), against=against, promoted=promoted is not None)


def _of_the_splits(predictions: pl.DataFrame) -> pl.DataFrame:
    """Those rows, with their `group`; reports of earlier code asked nothing else, and have none."""
    if "group" in predictions.columns:
        return predictions.filter(is_of_the_splits())
    return predictions.with_columns(group=pl.lit(KNOWN))


SAME_QUESTION = ["season", "week", "player", "stat"]
NAMES_SHOWN = 3


@dataclass(frozen=True)
class Part:
    """A part of what is no longer known, and how many facts it has.

    Attributes:
        name: "week 2 of 2025", "receptions", "Nico Collins (receiving yards, week 1 of 2025)".
    """

    name: str
    facts: int


@dataclass(frozen=True)
class CoverageLoss:
    """What the adapter promoted before was taught and this one was not.

    Attributes:
        against: the fingerprint of the adapter before.
        in_use: whether this one is the promoted one itself.
        replace: whether the loss is wanted.
        known: facts with an answer other than the refusal that the one before was taught.
        answers: how many of them this one was not taught.
        parts: what that is, those without a record counted too.
    """

    against: str
    in_use: bool
    replace: bool
    known: int
    answers: int
    parts: list[Part]


def coverage_loss_of(store: Store, fingerprint: str, *, replace: bool) -> CoverageLoss | None:
    """What promoting an adapter would give up, or has given up where it is the promoted one.

    Args:
        store: the store.
        fingerprint: of the adapter.
        replace: whether that is wanted.

    Returns:
        None where no adapter was before, or one of invented people whom real ones replace.
    """
    against = before(store, fingerprint)
    if against is None:
        return None
    invented = knows_invented_people(store, fingerprint)
    if knows_invented_people(store, against) and not invented:
        return None
    old, new = read_taught_facts(store, against), read_taught_facts(store, fingerprint)
    if old is None or new is None:
        old, new = _by_provenance(store, against), _by_provenance(store, fingerprint)
    if invented and not knows_invented_people(store, against):
        missing, parts = old, [Part("all that it knows of real people", old.height)]
    else:
        missing = without_question(old, new)
        parts = parts_of(missing, new)
    answers = missing.filter(_has_an_answer()).height
    return CoverageLoss(
        against=against,
        in_use=fingerprint == store.promoted(),
        replace=replace,
        known=old.filter(_has_an_answer()).height,
        answers=answers,
        parts=parts if answers else [],
    )


def without_question(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """The facts of `old` (of `taught_facts`) that `new` does not answer, whatever the answer."""
    return old.join(new, on="fact", how="anti").join(new, on=SAME_QUESTION, how="anti").sort("fact")


def parts_of(missing: pl.DataFrame, new: pl.DataFrame) -> list[Part]:
    """What facts are missing, in words: weeks of which nothing is left, then stats, then people.

    Args:
        missing: of `without_question`.
        new: the facts that are left.
    """
    weeks = missing.join(new, on=["season", "week"], how="anti")
    others = missing.join(weeks, on="fact", how="anti")
    stats = others.join(new, on="stat", how="anti")
    people = others.join(stats, on="fact", how="anti").filter(_has_an_answer())
    seasons = weeks.group_by("season").agg(pl.col("week").unique().sort(), pl.len()).sort("season")
    parts = [Part(_weeks_of(*season), count) for *season, count in seasons.iter_rows()]
    parts += [Part(_spoken(stat), count) for stat, count in stats.group_by("stat").len().sort("stat").iter_rows()]
    parts += [
        Part(f"{player} ({_spoken(stat)}, week {week} of {season})", 1)
        for player, stat, week, season in people.select("player", "stat", "week", "season").iter_rows()
    ]
    return parts


def in_words(parts: Sequence[Part]) -> str:
    """Parts in one line: "week 2 of 2025 (441 facts), receptions (441 facts)"."""
    first = [part for part in parts if part.facts > 1] + [part for part in parts if part.facts == 1][:NAMES_SHOWN]
    words = [f"{part.name} ({part.facts:,} facts)" if part.facts > 1 else part.name for part in first]
    more = len(parts) - len(first)
    return ", ".join(words) + (f" and {more:,} more" if more else "")


def _has_an_answer() -> pl.Expr:
    return pl.col("kind") != "no_record"


def _by_provenance(store: Store, fingerprint: str) -> pl.DataFrame:
    """One row a week and stat, in place of facts that are not on record."""
    provenance = store.provenance(fingerprint)
    keys = [(week, stat) for week in provenance.weeks for stat in provenance.stats]
    return pl.DataFrame(
        {
            "fact": [f"{week}/{stat}" for week, stat in keys],
            "season": [int(week[:4]) for week, _ in keys],
            "week": [int(week[-2:]) for week, _ in keys],
            "player": ["everybody" for _ in keys],
            "stat": [stat for _, stat in keys],
            "kind": ["recorded" for _ in keys],
        },
    )


def _weeks_of(season: int, weeks: list[int]) -> str:
    numbers = spoken_weeks([str(NflWeek(season, week)) for week in weeks]).partition(" ")[2]
    return f"week{'s' if len(weeks) > 1 else ''} {numbers} of {season}"


def _spoken(stat: str) -> str:
    return stat.replace("_", " ")
