"""What is made week by week: the raw file, the players' frame, the questions and answers."""

import io
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import dagster as dg
import polars as pl

from nfl_lora_pipeline.dataset.qa_pairs import facts
from nfl_lora_pipeline.dataset.qa_pairs import qa_pairs as pairs_of
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.defs import versions
from nfl_lora_pipeline.defs.common import clear_failure, frame_version, nfl_week, on_change, on_failure, say, week_of
from nfl_lora_pipeline.defs.resources import DatasetResource, StoreResource, WeekSource
from nfl_lora_pipeline.files import replace_file
from nfl_lora_pipeline.markdown import escape
from nfl_lora_pipeline.season.checks import ACCEPT, CHECKS, ODD, Check, check_week
from nfl_lora_pipeline.season.oddities import SAMPLE_WARNING, write_record
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.players import parse_week
from nfl_lora_pipeline.weeks.sources import RawWeek, SourceUnreachable
from nfl_lora_pipeline.weeks.week import NflWeek

SAID_WHEN_PARSED = "names_are_unique"  # by name, and why it matters


@dg.asset(
    partitions_def=nfl_week,
    group_name="weeks",
    kinds={"json"},
    code_version=versions.RAW,
    automation_condition=on_failure(),
)
def raw_wr_json(
    context: dg.AssetExecutionContext, store: StoreResource, week_source: WeekSource
) -> dg.MaterializeResult[None]:
    """A week's wide receivers as published, byte for byte. A file that cannot be read replaces nothing."""
    week = week_of(context)
    with clear_failure():
        raw = _fetched(context, week_source, week, store.open())
        parse_week(raw.content, week=week, origin=raw.origin)
    if raw.kind == "sample":
        context.log.warning(SAMPLE_WARNING)
    origin = {"kind": raw.kind, "origin": raw.origin, "sha256": raw.sha256, "fetched_at": raw.fetched_at.isoformat()}
    replace_file(store.open().raw(week), raw.content)
    replace_file(store.open().raw_origin(week), (json.dumps(origin, indent=2) + "\n").encode())
    say(context, f"{week}: {raw.size:,} bytes from {raw.origin}")
    return dg.MaterializeResult(
        metadata={**origin, "size_bytes": raw.size}, data_version=dg.DataVersion(raw.sha256[:16])
    )


@dg.asset(
    partitions_def=nfl_week,
    deps=[raw_wr_json],
    group_name="weeks",
    kinds={"polars"},
    code_version=versions.PLAYERS,
    automation_condition=on_change(),
    check_specs=[
        dg.AssetCheckSpec(name, asset="players", blocking=severity == "error") for name, severity in CHECKS.items()
    ],
)
def players(
    context: dg.AssetExecutionContext, store: StoreResource, dataset: DatasetResource, week_source: WeekSource
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:  # type: ignore[type-arg]
    """A typed frame, one row a player-week, with a status: recorded, no_record, bye or free_agent.

    Its data version covers what is told of it: a correction of any other column changes the frame, and nothing after it. A
    week whose blocking check fails replaces nothing, and is not materialised, so that it is looked at again.
    """
    held, week = store.open(), week_of(context)
    raw, accept_odd = held.raw(week), week_source.accept_odd_weeks
    with clear_failure():
        frame, warnings = parse_week(held.read_raw(week), week=week, origin=str(raw))
        told = facts(frame.lazy(), dataset.chosen_stats()).drop("status").collect()
    checks = check_week(held, week, frame, accept_odd=accept_odd)
    yield from (_check_result(check) for check in checks)
    if blocking := [check for check in checks if check.blocks]:
        raise dg.Failure(_why_blocked(week, raw, blocking), allow_retries=False)
    failed = [check for check in checks if not check.passed]
    warnings = [warning.replace(str(raw), str(week), 1) for warning in warnings] + _lines(week, failed)
    for warning in warnings:
        context.log.warning(warning)
    replace_file(held.players(week), parquet(frame))
    write_record(held, week, warnings=warnings, accepted=any(check.name in ODD for check in failed))
    by_status = dict(frame["status"].cast(pl.String).value_counts(sort=True).iter_rows())
    say(
        context,
        f"{week}: {frame.height} players, " + ", ".join(f"{count} {status}" for status, count in by_status.items()),
    )
    yield dg.MaterializeResult(
        metadata={"dagster/row_count": frame.height, **by_status, "warnings": warnings or ["none"]},
        data_version=frame_version(told),
    )


@dg.asset(
    partitions_def=nfl_week,
    deps=[players],
    group_name="weeks",
    kinds={"polars"},
    code_version=versions.pairs_version(),
    automation_condition=on_change(),
)
def qa_pairs(
    context: dg.AssetExecutionContext, store: StoreResource, dataset: DatasetResource
) -> dg.MaterializeResult[None]:
    """Every fact of the week, of the stats in use, in every phrasing of `templates.yaml`."""
    week = week_of(context)
    with clear_failure():
        templates = load_templates()
        frame = store.open().read_players(week)
    spoken = pairs_of(facts(frame.lazy(), dataset.chosen_stats()), templates).collect()
    replace_file(store.open().qa_pairs(week), parquet(spoken))
    first = spoken.filter(pl.col("kind") == "recorded").head(3)
    say(context, f"{week}: {spoken['fact'].n_unique():,} facts in {len(templates.questions)} phrasings each")
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": spoken.height,
            "facts": spoken["fact"].n_unique(),
            "examples": dg.MetadataValue.md(
                "\n".join(
                    f"- *{escape(question)}* {escape(answer)}"
                    for question, answer in first.select("question", "answer").iter_rows()
                )
            ),
        },
        data_version=frame_version(spoken),
    )


def _fetched(context: dg.AssetExecutionContext, source: WeekSource, week: NflWeek, held: Store) -> RawWeek:
    """The week as published. Where a source may end at the sample and real weeks are held, it ends at what is held instead."""

    def waits(line: str) -> None:
        say(context, line)

    if not (source.sample_fallback and held.real_weeks()):
        return source.fetch(week, waits)
    try:
        return source.model_copy(update={"sample_fallback": False}).fetch(week, waits)
    except SourceUnreachable as error:
        if not held.source_kind(week) or held.is_invented(week):
            raise
        content, origin = held.read_raw(week), held.read_raw_origin(week)
        say(context, f"{error}; {week} stays as it is held")
        return RawWeek(week, content, origin.origin, origin.kind, datetime.fromisoformat(origin.fetched_at))


def _check_result(check: Check) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=check.name,
        passed=check.passed,
        description=check.description,
        severity=dg.AssetCheckSeverity.ERROR if check.severity == "error" else dg.AssetCheckSeverity.WARN,
    )


def _lines(week: NflWeek, checks: Sequence[Check]) -> list[str]:
    return [f"{week}: {check.description} ({check.name})" for check in checks if check.name != SAID_WHEN_PARSED]


def _why_blocked(week: NflWeek, raw: Path, checks: Sequence[Check]) -> str:
    found = "; ".join(f"{check.description} ({check.name})" for check in checks)
    mend = ACCEPT if all(check.name in ODD for check in checks) else "fetch the week again"
    return f"{raw}: {week} is not taken, and what was made of it before stays: {found}; {mend}"


def parquet(frame: pl.DataFrame) -> bytes:
    """A frame as the content of a Parquet file."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()
