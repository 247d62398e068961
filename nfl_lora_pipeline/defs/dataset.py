"""The splits of all weeks together."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import polars as pl

from nfl_lora_pipeline.dataset.splits import shared_names, split_mode, split_rows, write_splits
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.defs.common import CODE, OWNERS, clear_failure, on_change, say
from nfl_lora_pipeline.defs.resources import DatasetResource, StoreResource, WeekSource
from nfl_lora_pipeline.defs.weeks import qa_pairs
from nfl_lora_pipeline.files import replacing_folder
from nfl_lora_pipeline.season.checks import ACCEPT, accept, odd_by_now, warnings_of
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.week import NflWeek, choose_weeks


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
        ValueError: a week is not held, or is odd and not accepted; there is no such stat or mode.
    """
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
