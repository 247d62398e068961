"""The main job, run in this process on the same Dagster instance as the UI's."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from nfl_lora_pipeline import progress
from nfl_lora_pipeline.assets.common import nfl_week
from nfl_lora_pipeline.assets.dataset import dataset_splits
from nfl_lora_pipeline.assets.model import adapter, base_model
from nfl_lora_pipeline.assets.report import evaluation_report
from nfl_lora_pipeline.assets.week import players, qa_pairs, raw_wr_json
from nfl_lora_pipeline.instance import dagster_home
from nfl_lora_pipeline.recipe import load_recipe
from nfl_lora_pipeline.resources import StoreResource, Trainer, WeekSource
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.week import NflWeek, parse_weeks
from nfl_lora_pipeline.wording import Stat, choose_stats

QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
WEEK_ASSETS = [raw_wr_json, players, qa_pairs]
SEASON_ASSETS = [dataset_splits, base_model, adapter, evaluation_report]


@dataclass(frozen=True)
class Order:
    """What is to be done, checked."""

    weeks: list[NflWeek]
    stats: list[Stat]
    store: Store
    source: WeekSource
    trainer: Trainer

    @classmethod
    def from_options(
        cls,
        *,
        season: int,
        weeks: str,
        stats: str,
        source: str,
        data_dir: Path | None,
        recipe: str,
        base_model: str,
        store: Path,
    ) -> "Order":
        """Check the command line's options.

        Raises:
            ValueError: an option has a value that nothing can be done with.
        """
        chosen = choose_stats([stat.strip() for stat in stats.split(",")])
        if data_dir is not None and not data_dir.is_dir():
            raise ValueError(f"--data-dir {data_dir}: no such folder")
        load_recipe(recipe)
        return cls(
            weeks=[NflWeek(season, week) for week in parse_weeks(weeks)],
            stats=chosen,
            store=Store(store),
            source=WeekSource(
                kind=source,
                folder=str(data_dir or store / "raw"),
                sample_fallback=source == "auto" and data_dir is None,
            ),
            trainer=Trainer(recipe=recipe, base_model=base_model),
        )


@dataclass
class Outcome:
    """The report's summary with the report's path, and the seconds of each step."""

    summary: dict[str, Any]
    steps: dict[str, float] = field(default_factory=dict)


def run_job(order: Order, *, listener: progress.Listener) -> Outcome:
    """Materialise everything for the order's weeks: one run a week, then one for the season.

    Raises:
        ValueError: a step failed; the text is the step's.
    """
    keys = [str(week) for week in order.weeks]
    steps: dict[str, float] = {}
    with dg.DagsterInstance.from_config(str(dagster_home(order.store.root))) as instance, progress.listening(listener):
        instance.add_dynamic_partitions(str(nfl_week.name), keys)
        for key in keys:
            _materialise(WEEK_ASSETS, order, instance, steps, partition_key=key)
        _materialise(SEASON_ASSETS, order, instance, steps)
    report = order.store.report(order.store.latest())
    summary = json.loads((report / "report.json").read_text(encoding="utf-8"))
    return Outcome(summary | {"report": str((report / "report.md").resolve())}, steps)


def _materialise(
    assets: Sequence[Any],
    order: Order,
    instance: dg.DagsterInstance,
    steps: dict[str, float],
    *,
    partition_key: str | None = None,
) -> None:
    config: dict[str, Any] = {"loggers": QUIET}
    if partition_key is None:
        chosen = {"weeks": [str(week) for week in order.weeks], "stats": order.stats}
        config["ops"] = {"dataset_splits": {"config": chosen}}
    try:
        result = dg.materialize(
            assets,
            instance=instance,
            partition_key=partition_key,
            run_config=config,
            resources={
                "store": StoreResource(root=str(order.store.root)),
                "week_source": order.source,
                "trainer": order.trainer,
            },
        )
    except dg.Failure as failure:
        raise ValueError(failure.description) from failure
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_SUCCESS and event.step_key:
            seconds = (event.step_success_data.duration_ms or 0) / 1000
            steps[event.step_key] = steps.get(event.step_key, 0.0) + seconds
