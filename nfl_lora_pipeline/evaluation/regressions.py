"""What an adapter no longer answers that the one before it did, and what it was not taught at all."""

from typing import Any

import polars as pl

from nfl_lora_pipeline.adapters.lineage import knows_invented_people, read_taught_facts
from nfl_lora_pipeline.adapters.promotion import before
from nfl_lora_pipeline.evaluation.grading import exact_or_refused
from nfl_lora_pipeline.evaluation.probes import is_of_the_splits
from nfl_lora_pipeline.files import DamagedFile
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import read_predictions
from nfl_lora_pipeline.weeks.week import NflWeek, spoken_weeks

SAME = ["fact", "phrasing", "answer"]


def regressions_between(old: pl.DataFrame, new: pl.DataFrame) -> dict[str, Any]:
    """Compare two adapters on the questions of the splits that both were asked and that have the same answer in both.

    Args:
        old: predictions of the adapter before, one row a question: `fact`, `phrasing`, `kind`, `answer` and `tuned`.
        new: those of the adapter after it, with `split` and `question` besides.

    Returns:
        `questions` (compared), `lost` (right before, wrong now), `trained` (both numbers over trained phrasings alone) and
        `worst` (every lost question with what was expected and said, trained phrasings first).
    """
    old, new = _of_the_splits(old), _of_the_splits(new)
    was_right = old.select(SAME).with_columns(exact_or_refused(old).alias("was_right"))
    both = new.with_columns(exact_or_refused(new)).join(was_right, on=SAME, how="inner", maintain_order="left")
    lost = both.filter("was_right", ~pl.col("right")).sort(pl.col("split") != "train", "fact", "phrasing")
    is_trained = pl.col("split") == "train"
    return {
        "questions": both.height,
        "lost": lost.height,
        "trained": {"questions": both.filter(is_trained).height, "lost": lost.filter(is_trained).height},
        "worst": lost.select("question", "split", expected="answer", said="tuned").to_dicts(),
    }


def regressions_of(store: Store, fingerprint: str, predictions: pl.DataFrame) -> dict[str, Any] | None:
    """What an adapter lost against the one before it: the promoted one, or else the newest one before.

    Returns:
        The figures of `regressions_between`, with `against` (a fingerprint) and `promoted` (whether that one is or was
        promoted); None where there was no adapter before, or its predictions cannot be read.
    """
    promoted = before(store, fingerprint)
    against = promoted or store.previous_latest()
    if against is None:
        return None
    try:
        old = read_predictions(store.report(against), [*SAME, "kind", "tuned"])
    except DamagedFile:
        return None
    return {"against": against, "promoted": promoted is not None, **regressions_between(old, predictions)}


def _of_the_splits(predictions: pl.DataFrame) -> pl.DataFrame:
    """Reports of earlier code asked nothing else, and have no `group`."""
    return predictions.filter(is_of_the_splits()) if "group" in predictions.columns else predictions


SAME_QUESTION = ["season", "week", "player", "stat"]
NAMES_SHOWN = 3


def coverage_loss_of(store: Store, fingerprint: str, *, replace: bool) -> dict[str, Any] | None:
    """What promoting an adapter would give up, or has given up where it is the promoted one.

    Args:
        store: the store.
        fingerprint: of the adapter.
        replace: whether that is wanted.

    Returns:
        `against` (the fingerprint of the adapter promoted before it), `in_use` (whether it is the promoted one itself),
        `replace`, `known` (facts with an answer other than the refusal that the one before was taught), `answers` (how many
        of them this one was not taught) and `parts` (what that is, each with `name` and `facts`, those without a record
        counted too). None where no adapter was before, or one of invented people whom real ones replace.
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
        missing, parts = old, [{"name": "all that it knows of real people", "facts": old.height}]
    else:
        missing = without_question(old, new)
        parts = parts_of(missing, new)
    answers = missing.filter(_has_an_answer()).height
    return {
        "against": against,
        "in_use": fingerprint == store.promoted(),
        "replace": replace,
        "known": old.filter(_has_an_answer()).height,
        "answers": answers,
        "parts": parts if answers else [],
    }


def without_question(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """The facts of `old` (of `taught_facts`) that `new` does not answer, whatever the answer."""
    return old.join(new, on="fact", how="anti").join(new, on=SAME_QUESTION, how="anti").sort("fact")


def parts_of(missing: pl.DataFrame, new: pl.DataFrame) -> list[dict[str, Any]]:
    """What facts are missing, in words: weeks of which nothing is left, then stats, then people.

    Args:
        missing: of `without_question`.
        new: the facts that are left.

    Returns:
        `name` ("week 2 of 2025", "receptions", "Nico Collins (receiving yards, week 1 of 2025)") and `facts`.
    """
    weeks = missing.join(new, on=["season", "week"], how="anti")
    others = missing.join(weeks, on="fact", how="anti")
    stats = others.join(new, on="stat", how="anti")
    people = others.join(stats, on="fact", how="anti").filter(_has_an_answer())
    seasons = weeks.group_by("season").agg(pl.col("week").unique().sort(), pl.len()).sort("season")
    parts = [{"name": _weeks_of(*season), "facts": count} for *season, count in seasons.iter_rows()]
    parts += [
        {"name": _spoken(stat), "facts": count} for stat, count in stats.group_by("stat").len().sort("stat").iter_rows()
    ]
    parts += [
        {"name": f"{player} ({_spoken(stat)}, week {week} of {season})", "facts": 1}
        for player, stat, week, season in people.select("player", "stat", "week", "season").iter_rows()
    ]
    return parts


def in_words(parts: list[dict[str, Any]]) -> str:
    """Parts in one line: "week 2 of 2025 (441 facts), receptions (441 facts)"."""
    shown = [part for part in parts if part["facts"] > 1] + [part for part in parts if part["facts"] == 1][:NAMES_SHOWN]
    words = [f"{part['name']} ({part['facts']:,} facts)" if part["facts"] > 1 else part["name"] for part in shown]
    more = len(parts) - len(shown)
    return ", ".join(words) + (f" and {more:,} more" if more else "")


def _has_an_answer() -> pl.Expr:
    return pl.col("kind") != "no_record"


def _by_provenance(store: Store, fingerprint: str) -> pl.DataFrame:
    """One row a week and stat, in place of facts that are not on record."""
    made_of = store.provenance(fingerprint)
    keys = [(week, stat) for week in made_of["weeks"] for stat in made_of["stats"]]
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
