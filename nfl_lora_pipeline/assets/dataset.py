"""The splits of all weeks together."""

import json
from typing import Any

import dagster as dg
import polars as pl

from nfl_lora_pipeline.assets.common import clear_failure, say
from nfl_lora_pipeline.assets.week import qa_pairs
from nfl_lora_pipeline.files import replacing_folder
from nfl_lora_pipeline.resources import StoreResource
from nfl_lora_pipeline.splits import split_mode, split_rows, write_splits
from nfl_lora_pipeline.week import choose_weeks
from nfl_lora_pipeline.wording import choose_stats, load_templates


class SplitsConfig(dg.Config):
    """Which questions to train on.

    Attributes:
        weeks: partition keys; empty for every week held of the newest season.
        stats: columns of the players frame that `templates.yaml` has words for.
        mode: "every_fact", or "random_facts" for the split of the original experiment.
    """

    weeks: list[str] = []
    stats: list[str] = ["receiving_yards"]
    mode: str = "every_fact"


@dg.asset(deps=[qa_pairs], group_name="season", kinds={"jsonl"}, code_version="1")
def dataset_splits(
    context: dg.AssetExecutionContext, store: StoreResource, config: SplitsConfig
) -> dg.MaterializeResult[None]:
    """`train.jsonl`, `valid.jsonl` and `test.jsonl`, as `mlx_lm.lora --data` takes them. Every fact is in train."""
    held = store.open()
    with clear_failure():
        weeks = choose_weeks(config.weeks, held.weeks())
        stats = choose_stats(config.stats)
        pairs = pl.concat([pl.read_parquet(held.qa_pairs(week)) for week in weeks])
        rows = split_rows(pairs, load_templates(), stats=stats, mode=split_mode(config.mode))
    made_of: dict[str, Any] = {"weeks": [str(week) for week in weeks], "stats": list(stats), "mode": config.mode}
    with replacing_folder(held.splits) as folder:
        counts = write_splits(rows, folder)
        (folder / "splits.json").write_text(json.dumps(made_of, indent=2) + "\n", encoding="utf-8")
    counted = {str(split): count for split, count in counts.items()}
    facts = rows.filter(pl.col("kind") != "stranger")["fact"].n_unique()
    say(context, f"{facts:,} facts: " + ", ".join(f"{n:,} {split}" for split, n in counted.items()))
    return dg.MaterializeResult(
        metadata={**made_of, **counted, "folder": str(held.splits)},
        data_version=dg.DataVersion(held.rows_hash()),
    )
