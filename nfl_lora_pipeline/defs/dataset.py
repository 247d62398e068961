"""The splits of all weeks together."""

import json
from collections.abc import Sequence
from typing import Any

import dagster as dg
import polars as pl

from nfl_lora_pipeline.dataset.splits import shared_names, split_mode, split_rows, write_splits
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.defs import versions
from nfl_lora_pipeline.defs.common import clear_failure, on_change, say
from nfl_lora_pipeline.defs.resources import DatasetResource, StoreResource, WeekSource
from nfl_lora_pipeline.defs.weeks import qa_pairs
from nfl_lora_pipeline.files import replacing_folder
from nfl_lora_pipeline.season.checks import ACCEPT, odd_by_now
from nfl_lora_pipeline.season.oddities import accept, warnings_of
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.week import NflWeek, choose_weeks


@dg.asset(
    deps=[qa_pairs],
    group_name="season",
    kinds={"jsonl"},
    code_version=versions.splits_version(),
    automation_condition=on_change(),
)
def dataset_splits(
    context: dg.AssetExecutionContext, store: StoreResource, dataset: DatasetResource, week_source: WeekSource
) -> dg.MaterializeResult[None]:
    """`train.jsonl`, `valid.jsonl` and `test.jsonl`, as `mlx_lm.lora --data` takes them. Every fact is in train."""
    held = store.open()
    with clear_failure():
        kept = held.weeks()
        weeks = choose_weeks(dataset.weeks, kept, invented=[week for week in kept if held.is_invented(week)])
        _refuse_odd_weeks(held, weeks, accept_odd=week_source.accept_odd_weeks)
        stats = dataset.chosen_stats()
        pairs = pl.concat([held.read_qa_pairs(week) for week in weeks])
        rows = split_rows(pairs, load_templates(), stats=stats, mode=split_mode(dataset.mode))
        shared = shared_names(pairs, stats=stats)
    for week_key, names in shared.items():
        context.log.warning(
            f"{week_key}: several players are called so, and nothing is taught of them: {', '.join(names)}"
        )
    made_of: dict[str, Any] = {
        "weeks": [str(week) for week in weeks],
        "stats": list(stats),
        "mode": dataset.mode,
        "sources": {str(week): held.source_kind(week) for week in weeks},
        "shared_names": shared,
    }
    with replacing_folder(held.splits) as folder:
        counts = write_splits(rows, folder)
        (folder / "splits.json").write_text(json.dumps(made_of, indent=2) + "\n", encoding="utf-8")
    counted = {str(split): count for split, count in counts.items()}
    facts = rows.filter(pl.col("kind") != "stranger")["fact"].n_unique()
    say(context, f"{facts:,} facts: " + ", ".join(f"{n:,} {split}" for split, n in counted.items()))
    return dg.MaterializeResult(
        metadata={**made_of, **counted, "folder": str(held.splits), "warnings": warnings_of(held, weeks) or ["none"]},
        data_version=dg.DataVersion(held.rows_hash()),
    )


def _refuse_odd_weeks(held: Store, weeks: Sequence[NflWeek], *, accept_odd: bool) -> None:
    """Raise ValueError where a week is odd beside those that came after it, or note that it was accepted."""
    odd = odd_by_now(held, weeks)
    if odd and not accept_odd:
        raise ValueError(f"{'; '.join(line for lines in odd.values() for line in lines)}; {ACCEPT}")
    for week, lines in odd.items():
        accept(held, week, lines)
