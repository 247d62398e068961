"""What is made of the data: week by week the raw file, the frame of players, questions and answers; of all weeks the splits."""

import io
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg
import polars as pl

from nfl_lora_pipeline.dataset.qa_pairs import facts
from nfl_lora_pipeline.dataset.qa_pairs import qa_pairs as pairs_of
from nfl_lora_pipeline.dataset.splits import shared_names, split_mode, split_rows, write_splits
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.defs.common import (
    CODE,
    OWNERS,
    clear_failure,
    frame_version,
    nfl_week,
    on_change,
    on_failure,
    say,
    week_of,
)
from nfl_lora_pipeline.defs.resources import DatasetResource, StoreResource, WeekSource
from nfl_lora_pipeline.files import replace_file, replacing_folder
from nfl_lora_pipeline.markdown import escape
from nfl_lora_pipeline.season.checks import (
    ACCEPT,
    CHECKS,
    ODD,
    SAMPLE_WARNING,
    Check,
    accept,
    check_week,
    odd_by_now,
    warnings_of,
    write_record,
)
from nfl_lora_pipeline.stats import Position, position_of
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.players import parse_week
from nfl_lora_pipeline.weeks.sources import RawWeek, SourceUnreachable
from nfl_lora_pipeline.weeks.week import NflWeek, choose_weeks

WARNED_OF_WHEN_PARSED = "names_are_unique"  # by name, and why it matters
ONE_WEEK_A_RUN = dg.BackfillPolicy.multi_run(1)  # a run of several weeks would give all of them one data version
CHECK_DESCRIPTIONS = {
    "schema_matches": "The week's frame has the columns and types that everything after it reads.",
    "has_rows": "The week's frame has players in it.",
    "ids_are_unique": "No two rows of the week are of one player id.",
    "only_recorded_have_stats": "Players without a game in the week (bye, free agent, no record) have no numbers.",
    "somebody_is_recorded": "Somebody played in the week: a file published before the games has no numbers.",
    "as_many_as_usual": "The week has at least 3/4 of the rows and half of the records of the weeks beside it.",
    "numbers_are_its_own": "The week's numbers are not those of another week, published again under its name.",
    "names_are_unique": "No two players of the week are called alike; nothing is taught of those who are.",
    "stats_are_plausible": "No player's numbers in the week are beyond what a game allows.",
    "catches_within_targets": "No player caught more passes in the week than were thrown to him.",
    "touchdowns_within_catches": "No player has more receiving touchdowns in the week than receptions.",
    "size_is_usual": "The week has about as many rows as full weeks of its position upstream, of wide receivers 300 to 700.",
}


@dg.asset(
    partitions_def=nfl_week,
    backfill_policy=ONE_WEEK_A_RUN,
    group_name="weeks",
    kinds={"json"},
    owners=OWNERS,
    tags={"stage": "source"},
    code_version=CODE["raw_wr_json"],
    automation_condition=on_failure(),
)
def raw_wr_json(
    context: dg.AssetExecutionContext, store: StoreResource, week_source: WeekSource
) -> dg.MaterializeResult[None]:
    """A week's players of the deployment's position (wide receivers, unless it says otherwise) as published, byte for byte.

    A file that cannot be read replaces nothing. The name of this asset is from when there were wide receivers alone.
    """
    week, data = week_of(context), store.open()
    with clear_failure():
        data.check_position(position := position_of(week_source.position))
        raw = fetch_or_keep(week, week_source, data, lambda line: say(context, line, 0.0))
        parse_week(raw.content, week=week, origin=raw.origin)
    if raw.kind == "sample":
        context.log.warning(SAMPLE_WARNING)
    origin = write_raw(data, raw, position)
    say(context, f"{week}: {raw.size:,} bytes from {raw.origin}")
    return dg.MaterializeResult(
        metadata={**origin, "size_bytes": raw.size}, data_version=dg.DataVersion(raw.sha256[:16])
    )


@dg.asset(
    partitions_def=nfl_week,
    backfill_policy=ONE_WEEK_A_RUN,
    deps=[raw_wr_json],
    group_name="weeks",
    kinds={"polars", "parquet"},
    owners=OWNERS,
    tags={"stage": "source"},
    code_version=CODE["players"],
    automation_condition=on_change(),
    check_specs=[
        dg.AssetCheckSpec(name, asset="players", blocking=severity == "error", description=CHECK_DESCRIPTIONS[name])
        for name, severity in CHECKS.items()
    ],
)
def players(
    context: dg.AssetExecutionContext, store: StoreResource, dataset: DatasetResource, week_source: WeekSource
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:  # type: ignore[type-arg]
    """A typed frame, one row a player-week, with a status: recorded, no_record, bye or free_agent.

    Its data version covers what is told of it: a correction of any other column changes the frame, and nothing after it. A
    week whose blocking check fails replaces nothing, and is not materialised, so that it is looked at again.
    """
    data = store.open()
    with clear_failure():
        data.check_position(position_of(dataset.position))
        result = read_week(data, week_of(context), dataset.chosen_stats(), accept_odd=week_source.accept_odd_weeks)
    yield from (_check_result(check) for check in result.checks)
    if reason := result.why_blocked(data):
        raise dg.Failure(reason, allow_retries=False)
    write_players(data, result, context.log)
    counts = result.count_by_status()
    spoken = ", ".join(f"{count} {status}" for status, count in counts.items())
    say(context, f"{result.week}: {result.frame.height} players, {spoken}")
    yield dg.MaterializeResult(
        metadata={"dagster/row_count": result.frame.height, **counts, "warnings": result.warnings or ["none"]},
        data_version=dg.DataVersion(result.version),
    )


@dg.asset(
    partitions_def=nfl_week,
    backfill_policy=ONE_WEEK_A_RUN,
    deps=[players],
    group_name="weeks",
    kinds={"polars", "parquet"},
    owners=OWNERS,
    tags={"stage": "dataset"},
    code_version=CODE["qa_pairs"],
    automation_condition=on_change(),
)
def qa_pairs(
    context: dg.AssetExecutionContext, store: StoreResource, dataset: DatasetResource
) -> dg.MaterializeResult[None]:
    """Every fact of the week, of the stats in use, in every phrasing of `templates.yaml`, as question and answer."""
    week, data = week_of(context), store.open()
    with clear_failure():
        data.check_position(position_of(dataset.position))
        pairs = write_pairs(data, week, dataset.chosen_stats())
    fact_count = pairs["fact"].n_unique()
    say(context, f"{week}: {fact_count:,} facts in {len(load_templates().questions)} phrasings each")
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": pairs.height,
            "facts": fact_count,
            "examples": dg.MetadataValue.md(three_examples(pairs)),
        },
        data_version=dg.DataVersion(frame_version(pairs)),
    )


def stored_version(name: str, data: Store, week: NflWeek, stats: Sequence[str]) -> str:
    """The data version of the `players` or `qa_pairs` that the store holds of a week.

    Raises:
        DamagedFile: they are lost or damaged.
    """
    if name == "qa_pairs":
        return frame_version(data.read_qa_pairs(week))
    data.read_players_record(week)
    return players_version(data.read_players(week), stats)


def players_version(frame: pl.DataFrame, stats: Sequence[str]) -> str:
    """A hash of what is told of the players, and of nothing else."""
    return frame_version(facts(frame.lazy(), stats).drop("status").collect())


def fetch_or_keep(week: NflWeek, source: WeekSource, data: Store, tell: Callable[[str], None]) -> RawWeek:
    """The week as published. Where a source may end at the sample and real weeks are held, it ends at what is held instead."""
    if not (source.sample_fallback and data.real_weeks()):
        return source.fetch(week, tell)
    try:
        return source.model_copy(update={"sample_fallback": False}).fetch(week, tell)
    except SourceUnreachable as error:
        if not data.source_kind(week) or data.is_invented(week):
            raise
        content, origin = data.read_raw(week), data.read_raw_origin(week)
        tell(f"{error}; {week} stays as it is held")
        return RawWeek(week, content, origin.origin, origin.kind, datetime.fromisoformat(origin.fetched_at))


def write_raw(data: Store, raw: RawWeek, position: Position) -> dict[str, str]:
    """Keep a week's file of a position, and beside it where it came from.

    Returns:
        The latter.
    """
    origin = {"kind": raw.kind, "origin": raw.origin, "sha256": raw.sha256, "fetched_at": raw.fetched_at.isoformat()}
    origin["position"] = position
    replace_file(data.raw(raw.week, position), raw.content)
    replace_file(data.raw_origin(raw.week), (json.dumps(origin, indent=2) + "\n").encode())
    return origin


@dataclass(frozen=True)
class WeekOfPlayers:
    """A week that was read and checked.

    Attributes:
        week: which.
        frame: one row a player, as `parse_week` returns it.
        version: its data version.
        checks: one finding for each of `CHECKS`.
        warnings: for people.
    """

    week: NflWeek
    frame: pl.DataFrame
    version: str
    checks: Sequence[Check]
    warnings: list[str]

    def why_blocked(self, data: Store) -> str:
        """Why nothing may be made of it, and what to do; empty where something may."""
        blocking = [check for check in self.checks if check.blocks]
        if not blocking:
            return ""
        found = "; ".join(f"{check.description} ({check.name})" for check in blocking)
        mend = ACCEPT if all(check.name in ODD for check in blocking) else "fetch the week again"
        file = data.raw(self.week)
        return f"{file}: {self.week} is not taken, and what was made of it before stays: {found}; {mend}"

    def count_by_status(self) -> dict[str, int]:
        """How many players have each status, the most frequent first."""
        return dict(self.frame["status"].cast(pl.String).value_counts(sort=True).iter_rows())


def read_week(data: Store, week: NflWeek, stats: Sequence[str], *, accept_odd: bool) -> WeekOfPlayers:
    """Parse and check the week's raw file.

    Raises:
        ValueError: it cannot be read.
    """
    origin = str(data.raw(week))
    frame, warnings = parse_week(data.read_raw(week), week=week, origin=origin)
    checks = check_week(data, week, frame, accept_odd=accept_odd)
    lines = [warning.replace(origin, str(week), 1) for warning in warnings]
    lines += [
        f"{week}: {check.description} ({check.name})"
        for check in checks
        if not check.passed and check.name != WARNED_OF_WHEN_PARSED
    ]
    return WeekOfPlayers(week, frame, players_version(frame, stats), checks, lines)


def write_players(data: Store, result: WeekOfPlayers, log: logging.Logger) -> None:
    """Keep the frame, and beside it what people should know of it."""
    for warning in result.warnings:
        log.warning(warning)
    replace_file(data.players(result.week), parquet(result.frame))
    accepted = any(not check.passed and check.name in ODD for check in result.checks)
    write_record(data, result.week, warnings=result.warnings, accepted=accepted)


def write_pairs(data: Store, week: NflWeek, stats: Sequence[str]) -> pl.DataFrame:
    """Make the questions and answers of a week's players, and keep them."""
    templates, frame = load_templates(), data.read_players(week)
    pairs = pairs_of(facts(frame.lazy(), stats), templates).collect()
    replace_file(data.qa_pairs(week), parquet(pairs))
    return pairs


def three_examples(pairs: pl.DataFrame) -> str:
    """The first questions with a number for an answer, as a list in Markdown."""
    first = pairs.filter(pl.col("kind") == "recorded").head(3).select("question", "answer")
    return "\n".join(f"- *{escape(question)}* {escape(answer)}" for question, answer in first.iter_rows())


def parquet(frame: pl.DataFrame) -> bytes:
    """A frame as the content of a Parquet file."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _check_result(check: Check) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=check.name,
        passed=check.passed,
        description=check.description,
        severity=dg.AssetCheckSeverity.ERROR if check.severity == "error" else dg.AssetCheckSeverity.WARN,
    )


@dg.asset(
    deps=[qa_pairs],
    group_name="season",
    kinds={"polars", "jsonl"},
    owners=OWNERS,
    tags={"stage": "dataset"},
    code_version=CODE["dataset_splits"],
    automation_condition=on_change(),
)
def dataset_splits(
    context: dg.AssetExecutionContext, store: StoreResource, dataset: DatasetResource, week_source: WeekSource
) -> dg.MaterializeResult[None]:
    """`train.jsonl`, `valid.jsonl` and `test.jsonl`, as `mlx_lm.lora --data` takes them. Every fact is in train."""
    data = store.open()
    with clear_failure():
        splits = make_splits(data, dataset, accept_odd=week_source.accept_odd_weeks)
    counts = write_with_record(data, splits, context.log)
    facts = splits.rows.filter(pl.col("kind") != "stranger")["fact"].n_unique()
    say(context, f"{facts:,} facts: " + ", ".join(f"{count:,} {split}" for split, count in counts.items()))
    warnings = warnings_of(data, splits.weeks) or ["none"]
    return dg.MaterializeResult(
        metadata={**splits.record, **counts, "folder": str(data.splits), "warnings": warnings},
        data_version=dg.DataVersion(data.rows_hash()),
    )


@dataclass(frozen=True)
class Splits:
    """All rows, and what they were made of.

    Attributes:
        weeks: whose facts are in the rows.
        rows: as `split_rows` returns them.
        record: the content of `splits.json`.
    """

    weeks: Sequence[NflWeek]
    rows: pl.DataFrame
    record: dict[str, Any]


def make_splits(data: Store, dataset: DatasetResource, *, accept_odd: bool) -> Splits:
    """The rows of the weeks and stats that are wanted.

    Raises:
        ValueError: a week is not held, or is odd and not accepted; there is no such stat or mode; the store is of another
            position.
    """
    data.check_position(position_of(dataset.position))
    weeks_held = data.weeks()
    invented = [week for week in weeks_held if data.is_invented(week)]
    weeks = choose_weeks(dataset.weeks, weeks_held, invented=invented)
    refuse_odd_weeks(data, weeks, accept_odd=accept_odd)
    stats = dataset.chosen_stats()
    pairs = pl.concat([data.read_qa_pairs(week) for week in weeks])
    rows = split_rows(pairs, load_templates(), stats=stats, mode=split_mode(dataset.mode))
    record: dict[str, Any] = {
        "weeks": [str(week) for week in weeks],
        "stats": list(stats),
        "mode": dataset.mode,
        "sources": {str(week): data.source_kind(week) for week in weeks},
        "shared_names": shared_names(pairs, stats=stats),
    }
    return Splits(weeks, rows, record)


def write_with_record(data: Store, splits: Splits, log: logging.Logger) -> dict[str, int]:
    """Write the splits and their record in place of those that are there.

    Returns:
        The number of rows by split.
    """
    for week, names in splits.record["shared_names"].items():
        log.warning(f"{week}: several players are called so, and nothing is taught of them: {', '.join(names)}")
    with replacing_folder(data.splits) as folder:
        counts = write_splits(splits.rows, folder)
        (folder / "splits.json").write_text(json.dumps(splits.record, indent=2) + "\n", encoding="utf-8")
    return {str(split): count for split, count in counts.items()}


def refuse_odd_weeks(data: Store, weeks: Sequence[NflWeek], *, accept_odd: bool) -> None:
    """Note down that weeks that are odd beside those that came after them were accepted.

    Raises:
        ValueError: they were not.
    """
    odd = odd_by_now(data, weeks)
    if odd and not accept_odd:
        raise ValueError(f"{'; '.join(line for lines in odd.values() for line in lines)}; {ACCEPT}")
    for week, lines in odd.items():
        accept(data, week, lines)
