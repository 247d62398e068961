"""The main job, run in this process on the same Dagster instance as the UI's."""

import signal
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterAssetCheckFailedError

from nfl_lora_pipeline import progress
from nfl_lora_pipeline.dataset.splits import split_mode
from nfl_lora_pipeline.dataset.templates import choose_stats
from nfl_lora_pipeline.defs.adapter import adapter, base_model
from nfl_lora_pipeline.defs.common import nfl_week
from nfl_lora_pipeline.defs.dataset import dataset_splits
from nfl_lora_pipeline.defs.instance import opened
from nfl_lora_pipeline.defs.leases import lease_tags
from nfl_lora_pipeline.defs.report import evaluation_report, promoted_adapter
from nfl_lora_pipeline.defs.resources import DatasetResource, StoreResource, Trainer, WeekSource
from nfl_lora_pipeline.defs.weeks import players, qa_pairs, raw_wr_json
from nfl_lora_pipeline.files import DamagedFile, lasting_base, lasting_recipe, locked
from nfl_lora_pipeline.interrupts import Arrivals, Interrupted, heard
from nfl_lora_pipeline.reports.report import read_summary
from nfl_lora_pipeline.settings import as_list
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import to_json
from nfl_lora_pipeline.tuning.recipe import load_recipe
from nfl_lora_pipeline.weeks.week import NflWeek, parse_weeks

CODE_VERSION_TAG, DATA_VERSION_TAG = "dagster/code_version", "dagster/data_version"
INPUT_VERSION_TAG = "dagster/input_data_version"
ORDER_TAG = ".dagster/nfl_lora/order"
ENDS = (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE)
QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
SEASON_ASSETS = [dataset_splits, base_model, adapter, evaluation_report, promoted_adapter]


@dataclass(frozen=True)
class Order:
    """What is to be done, checked."""

    weeks: list[NflWeek]
    dataset: DatasetResource
    store: Store
    source: WeekSource
    trainer: Trainer

    @classmethod
    def from_options(
        cls,
        *,
        season: int,
        weeks: str | None,
        stats: str,
        source: str,
        data_dir: Path | None,
        mode: str,
        recipe: str,
        base_model: str,
        store: Path,
        replace: bool = False,
        accept_odd_weeks: bool = False,
    ) -> "Order":
        """Check the command line's options; those of `nfl-lora run`, where `weeks` may be None for all that are held.

        Raises:
            ValueError: an option has a value that nothing can be done with.
        """
        chosen = choose_stats(as_list(stats))
        if data_dir is not None and not data_dir.is_dir():
            raise ValueError(f"--data-dir {data_dir}: no such folder")
        load_recipe(recipe)
        fallback = source == "auto" and data_dir is None
        if weeks is None:
            numbered = _weeks_held(Store(store), season, sample=fallback or source == "sample")
        else:
            numbered = [NflWeek(season, week) for week in parse_weeks(weeks)]
        return cls(
            weeks=numbered,
            dataset=DatasetResource(weeks=[str(week) for week in numbered], stats=list(chosen), mode=split_mode(mode)),
            store=Store(store),
            source=WeekSource(
                kind=source,
                folder=str((data_dir or store / "raw").resolve()),
                sample_fallback=fallback,
                accept_odd_weeks=accept_odd_weeks,
            ),
            trainer=Trainer(recipe=lasting_recipe(recipe), base_model=lasting_base(base_model), replace=replace),
        )


def _weeks_held(held: Store, season: int, *, sample: bool) -> list[NflWeek]:
    """Every real week of a season in the store; else, where `sample` may serve, those of the sample; else week 1."""
    taken = held.weeks_taken()
    kept = [week for week in taken if not held.is_invented(week)] or (taken if sample else [])
    return [week for week in kept if week.season == season] or [NflWeek(season, 1)]


@dataclass
class Outcome:
    """The report's summary with the report's path, and the seconds of each step."""

    summary: dict[str, Any]
    steps: dict[str, float] = field(default_factory=dict)


def run_job(order: Order, *, listener: progress.Listener) -> Outcome:
    """Bring everything up to date for the order's weeks, on the instance beside the store.

    Raises:
        ValueError: a step failed; the text is the step's.
        Interrupted: a signal asked for an end; `kept` says what the next run goes on with.
    """
    newest: dict[str, str] = {}

    def listen(step: str, line: str, share: float | None) -> None:
        newest[step] = line
        listener(step, line, share)

    def say(line: str) -> None:
        listener("storage", line, None)

    with heard() as arrivals:
        try:
            with (
                opened(order.store, say) as instance,
                progress.listening(listen),
                alone(order.store, "nfl-lora run", say),
            ):
                steps = update(order, instance, arrivals)
        except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError) as interrupt:
            step, line = list(newest.items())[-1] if newest else ("", "")
            kept = f"{step} is {line}" if line.startswith("kept") else f"what was made before {step or 'it'} is kept"
            raise Interrupted(arrivals.first() or signal.SIGINT, kept) from interrupt
    fingerprint = order.store.latest()
    page = order.store.report(fingerprint) / "report.md"
    return Outcome(to_json(read_summary(order.store.report(fingerprint))) | {"report": str(page.resolve())}, steps)


def alone(store: Store, purpose: str, say: Callable[[str], None]) -> AbstractContextManager[bool]:
    """One update of a store at a time: two would make each other's splits anew while the other trains on them."""
    return locked(store.lock("season"), purpose=purpose, on_wait=say)


def update(order: Order, instance: dg.DagsterInstance, arrivals: Arrivals | None = None) -> dict[str, float]:
    """Fetch the order's weeks, make what hangs on a change, then the season's assets, which reuse what is there already.

    Args:
        order: what to do.
        instance: where the runs are kept.
        arrivals: the signals that have come; looked at between two runs, since Dagster loses some.

    Returns:
        The seconds that each asset took.

    Raises:
        ValueError: a step failed; the text is the step's.
        Interrupted: a signal has come.
    """
    arrivals = arrivals or Arrivals()
    keys = [str(week) for week in order.weeks]
    steps: dict[str, float] = {}
    instance.add_dynamic_partitions(str(nfl_week.name), keys)
    for key in keys:
        _materialise([raw_wr_json], order, instance, steps, partition_key=key)
        arrivals.check()
        for asset in (players, qa_pairs):
            if is_stale(asset, instance, partition_key=key) or is_damaged(asset, order, key):
                _materialise([asset], order, instance, steps, partition_key=key)
                arrivals.check()
    _materialise(SEASON_ASSETS, order, instance, steps)
    arrivals.check()
    return steps


def is_stale(asset: dg.AssetsDefinition, instance: dg.DagsterInstance, *, partition_key: str) -> bool:
    """Whether a week's asset was never made, or its code or the data version of what it is made from has changed since."""
    made = _newest(asset.key, instance, partition_key)
    if made is None or made.get(CODE_VERSION_TAG) != asset.code_versions_by_key[asset.key]:
        return True
    return any(
        (_newest(key, instance, partition_key) or {}).get(DATA_VERSION_TAG)
        != made.get(f"{INPUT_VERSION_TAG}/{key.to_user_string()}")
        for key in asset.dependency_keys
    )


def is_damaged(asset: dg.AssetsDefinition, order: Order, key: str) -> bool:
    """Whether a week's asset is not in the store as Dagster has it on record: lost, or damaged."""
    week = NflWeek.parse(key)
    try:
        if asset is players:
            order.store.read_players(week)
            order.store.read_players_record(week)
        else:
            order.store.read_qa_pairs(week)
    except DamagedFile as error:
        progress.tell(asset.key.to_user_string(), f"made anew, since {error.path} {error.wrong}", None)
        return True
    return False


def _newest(key: dg.AssetKey, instance: dg.DagsterInstance, partition_key: str) -> Mapping[str, str] | None:
    """The tags of the newest materialisation of a partition."""
    wanted = dg.AssetRecordsFilter(key, asset_partitions=[partition_key])
    for record in instance.fetch_materializations(wanted, limit=1).records:
        materialization = record.asset_materialization
        return materialization.tags if materialization else None
    return None


def _materialise(
    assets: Sequence[dg.AssetsDefinition],
    order: Order,
    instance: dg.DagsterInstance,
    steps: dict[str, float],
    *,
    partition_key: str | None = None,
) -> None:
    mark = {ORDER_TAG: uuid.uuid4().hex}
    try:
        dg.materialize(
            assets,
            instance=instance,
            partition_key=partition_key,
            run_config={"loggers": QUIET},
            tags=mark | lease_tags(),
            resources={
                "store": StoreResource(root=str(order.store.root)),
                "week_source": order.source,
                "dataset": order.dataset,
                "trainer": order.trainer,
            },
        )
    except dg.Failure as failure:
        raise ValueError(failure.description) from failure
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        for run in instance.get_runs(dg.RunsFilter(tags=mark)):
            if run.status != dg.DagsterRunStatus.CANCELED:
                instance.report_run_canceled(run, "Interrupted on the command line.")
        raise
    except DagsterAssetCheckFailedError as failure:
        if partition_key is not None:
            raise ValueError(f"{' '.join(str(failure).split())}; what hangs on it was not made") from failure
        # else the report is there, and says which check keeps the adapter from being promoted
    for run in instance.get_runs(dg.RunsFilter(tags=mark)):
        for name, seconds in _seconds(instance, run.run_id):
            steps[name] = steps.get(name, 0.0) + seconds


def _seconds(instance: dg.DagsterInstance, run_id: str) -> Iterator[tuple[str, float]]:
    """What each step of a run took, that of a report whose check failed included."""
    began: dict[str, float] = {}
    for record in instance.all_logs(run_id):
        event = record.dagster_event
        if event and event.step_key and event.event_type == dg.DagsterEventType.STEP_START:
            began[event.step_key] = record.timestamp
        elif event and event.step_key in began and event.event_type in ENDS:
            yield event.step_key, record.timestamp - began[event.step_key]
