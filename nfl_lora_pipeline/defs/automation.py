"""What runs by itself: a sensor for new weeks, a weekly schedule, and the conditions of the assets. All off until switched on.

Each does its job alone. Where the assets' own conditions (the sensor `automation`) are on, the others only fetch, and the
conditions carry on to the report; where they are off, the job `update_season` does all of it.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from nfl_lora_pipeline import progress
from nfl_lora_pipeline.defs.common import nfl_week
from nfl_lora_pipeline.defs.leases import assets_of, dead_and_wanted, end_dead_runs, in_words, lease_tags
from nfl_lora_pipeline.defs.resources import DatasetResource, StoreResource, Trainer, WeekSource
from nfl_lora_pipeline.defs.update import QUIET, Order, alone, is_damaged, is_stale, update
from nfl_lora_pipeline.defs.versions import SETTINGS
from nfl_lora_pipeline.defs.weeks import players, qa_pairs, raw_wr_json
from nfl_lora_pipeline.interrupts import Arrivals, noted
from nfl_lora_pipeline.season.watch import Look, Memory, Sighting, held_hashes, look, season_to_watch
from nfl_lora_pipeline.weeks.week import NflWeek

AUTOMATION = "automation"
WEDNESDAY_MORNING = "0 9 * 1,2,9-12 3"
WAITS_SECONDS = (600.0, 1200.0)  # how long an update waits for an upstream that gave no answer, before it asks again
AGAIN_SECONDS = 3600.0  # how long after a failed update the sensor asks for it again
ATTEMPT_TAG, MOST_ATTEMPTS = "nfl_lora/attempt", 3
PATIENT_LOOK_SECONDS = 600.0  # a run may wait longer for upstream than a sensor


class UpdateConfig(dg.Config):
    """What `update_season` is to fetch, before it makes everything that is not up to date.

    Attributes:
        weeks: partition keys.
        look: whether to look for new and corrected weeks, and fetch these too.
    """

    weeks: list[str] = []
    look: bool = False


@dg.op
def bring_up_to_date(
    context: dg.OpExecutionContext,
    config: UpdateConfig,
    store: StoreResource,
    week_source: WeekSource,
    dataset: DatasetResource,
    trainer: Trainer,
) -> None:
    """Fetch weeks, make what hangs on a change, then the season's assets, which reuse what is there already.

    A week that cannot be had does not keep the others back; it fails the run at the end. Where the assets' own
    conditions are on, only the fetching is done here.
    """
    order = Order(weeks=[], dataset=dataset, store=store.open(), source=week_source, trainer=trainer)
    origin = context.run.remote_job_origin
    automated = automation_runs(context.instance, origin.location_name if origin else None)
    purpose = f"{update_season.name}, run {context.run.run_id[:8]}"
    for seconds in (*WAITS_SECONDS, None):
        work = Update(order, context.instance, context.log)
        with (
            progress.listening(lambda step, line, share: context.log.info(f"{step}: {line}")),
            alone(order.store, purpose, context.log.info),
            noted() as arrivals,
        ):
            work.fetch([*config.weeks, *(work.changed() if config.look else [])], arrivals)
            if automated:
                context.log.info(f"the sensor {AUTOMATION!r} is on: it makes the rest")
            else:
                work.make(arrivals)
        if not work.problems:
            return
        if seconds is None or not work.worth_retrying:
            raise dg.Failure("; ".join(work.problems), allow_retries=False)
        context.log.warning(f"{'; '.join(work.problems)}; trying again in {seconds / 60:.0f} minutes")
        time.sleep(seconds)


@dataclass
class Update:
    """The steps of `update_season`, each in runs of its own on the same instance.

    Attributes:
        order: what with; its weeks are not used.
        instance: where the runs are kept.
        log: where to say what happens.
    """

    order: Order
    instance: dg.DagsterInstance
    log: dg.DagsterLogManager

    def __post_init__(self) -> None:
        self.problems: list[str] = []
        self.worth_retrying = False  # only where a source gave no answer; what a file holds stays as it is

    def changed(self) -> list[str]:
        """Look for new and corrected weeks without a memory: against what is held."""
        held = held_hashes(self.order.store)
        found = look(self.order.source, watched_season(self.order.source), {}, held, seconds=PATIENT_LOOK_SECONDS)
        self.log.info(found.in_short())
        for warning in found.warnings:
            self.log.warning(warning)
        unseen = [sighting.problem for sighting in found.sightings if sighting.problem]
        self.problems += unseen
        self.worth_retrying |= bool(unseen)
        return keys_of(found.changed)

    def fetch(self, keys: Iterable[str], arrivals: Arrivals | None = None) -> None:
        """Materialise the raw file of weeks; where a signal has come, raise `Interrupted`."""
        for key in sorted(set(keys)):
            self.instance.add_dynamic_partitions(str(nfl_week.name), [key])
            self._materialise(raw_wr_json, key)
            (arrivals or Arrivals()).check()

    def make(self, arrivals: Arrivals | None = None) -> None:
        """Materialise what is stale of the weeks held, and then the season's assets; where a signal has come, stop."""
        held = [NflWeek.parse(key) for key in held_hashes(self.order.store)]
        if not held:
            self.log.info("no week is held yet")
            return
        for key in [str(week) for week in sorted(held) if week.season == max(held).season]:
            for asset in (players, qa_pairs):
                stale = is_stale(asset, self.instance, partition_key=key) or is_damaged(asset, self.order, key)
                if stale and not self._materialise(asset, key):
                    break
            (arrivals or Arrivals()).check()
        try:
            update(self.order, self.instance, arrivals)
        except ValueError as error:
            self.problems.append(str(error))

    def _materialise(self, asset: dg.AssetsDefinition, key: str) -> bool:
        resources = {
            "store": StoreResource(root=str(self.order.store.root)),
            "week_source": self.order.source,
            "dataset": self.order.dataset,
            "trainer": self.order.trainer,
        }
        try:
            dg.materialize(
                [asset],
                instance=self.instance,
                partition_key=key,
                resources=resources,
                run_config={"loggers": QUIET},
                tags=lease_tags(),
            )
        except dg.Failure as failure:
            self.problems.append(f"{key}: {failure.description}")
            self.worth_retrying |= failure.allow_retries
            return False
        except dg.DagsterError as error:  # a check that blocks
            self.problems.append(f"{key}: {error}")
            return False
        return True


@dg.job(executor_def=dg.in_process_executor)
def update_season() -> None:
    """Fetch weeks and bring everything up to date, up to the report and the promoted adapter."""
    bring_up_to_date()


fetch_week = dg.define_asset_job(
    "fetch_week", selection=[raw_wr_json], description="Fetch one week; the assets' own conditions carry on from there."
)


@dg.sensor(
    jobs=[update_season, fetch_week],
    minimum_interval_seconds=SETTINGS.watch_seconds,
    default_status=dg.DefaultSensorStatus.RUNNING if SETTINGS.watch else dg.DefaultSensorStatus.STOPPED,
)
def new_weeks(context: dg.SensorEvaluationContext, store: StoreResource, week_source: WeekSource) -> dg.SensorResult:
    """Look for new and corrected weeks, and have them fetched; its cursor is the memory of the last look."""
    memory: Memory = json.loads(context.cursor or "{}")
    found = look(week_source, watched_season(week_source), memory, held_hashes(store.open()))
    for warning in found.warnings:
        context.log.warning(warning)
    origin = context.code_location_origin
    automated = automation_runs(context.instance, origin.location_name if origin else None)
    requests = _fetches(found) if automated else _updates(found, context.instance)
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else dg.SkipReason(found.in_short()),
        dynamic_partitions_requests=[nfl_week.build_add_request(keys_of(found.changed))] if found.changed else [],
        cursor=json.dumps(found.memory),
    )


@dg.sensor(
    target=dg.AssetSelection.all(),
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def dead_runs(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult:
    """Ends the runs whose process has died, so that nothing waits for them; where the conditions are on, asks for them anew.

    A run that dies again and again is asked for no more than three times: what kills it (too little memory, say) stays.
    """
    dead = end_dead_runs(context.instance)
    store.open().sweep()
    origin = context.code_location_origin
    wanted: list[dg.DagsterRun] = []
    if automation_runs(context.instance, origin.location_name if origin else None):
        wanted = dead_and_wanted(context.instance)
    requests = [_again(context.instance, run) for run in wanted if _attempt(run) < MOST_ATTEMPTS]
    said = "; ".join(in_words(context.instance, run) for run in dead) or "every run has a living process"
    return dg.SensorResult(
        run_requests=[request for request in requests if request.asset_selection],
        skip_reason=None if requests else dg.SkipReason(said),
    )


automation = dg.AutomationConditionSensorDefinition(
    AUTOMATION,
    target=dg.AssetSelection.all(),
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING if SETTINGS.watch else dg.DefaultSensorStatus.STOPPED,
    description="Carries a change of any asset on to the report, by the assets' own conditions.",
)


@dg.schedule(
    job=update_season,
    cron_schedule=WEDNESDAY_MORNING,
    execution_timezone="America/New_York",
    default_status=dg.DefaultScheduleStatus.RUNNING if SETTINGS.watch else dg.DefaultScheduleStatus.STOPPED,
)
def weekly_retraining(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Wednesday morning, September to February: look upstream in a run that can wait, and bring everything up to date."""
    return dg.RunRequest(run_key=context.scheduled_execution_time.isoformat(), run_config=update_config(look_too=True))


def watched_season(source: WeekSource) -> int:
    """The season of the settings, or the one that is there to be seen."""
    return SETTINGS.season or season_to_watch(source, datetime.now(UTC).date())


def keys_of(sightings: Iterable[Sighting]) -> list[str]:
    """The partition keys of weeks seen."""
    return [str(sighting.week) for sighting in sightings]


def update_config(weeks: Iterable[str] = (), *, look_too: bool = False) -> dict[str, Any]:
    """The run config of `update_season`."""
    return {"ops": {bring_up_to_date.name: {"config": {"weeks": list(weeks), "look": look_too}}}}


def automation_runs(
    instance: dg.DagsterInstance, location: str | None = None, *, default: bool = SETTINGS.watch
) -> bool:
    """Whether the assets' own conditions are evaluated.

    Args:
        instance: where it is kept who switched what on or off.
        location: the code location that is asked about; None for any.
        default: whether the code switches the sensor on, where nobody did otherwise.
    """
    kept = [
        state.status.name
        for state in (instance.all_instigator_state() if instance.schedule_storage else [])
        if state.name == AUTOMATION and location in (None, state.repository_selector.location_name)
    ]
    if "RUNNING" in kept:
        return True
    return default and "STOPPED" not in kept


def _fetches(found: Look) -> list[dg.RunRequest]:
    return [
        dg.RunRequest(run_key=_run_key(sighting), job_name=fetch_week.name, partition_key=str(sighting.week))
        for sighting in found.changed
    ]


def _updates(found: Look, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """One update for all that is new; with it, or an hour later without, what the last update failed to do."""
    failed = _failed_update(instance)
    if not found.changed and (failed is None or time.time() - (failed.end_time or 0) < AGAIN_SECONDS):
        return []
    asked = _asked_of(failed.dagster_run) if failed else {}
    weeks = sorted({*asked.get("weeks", []), *keys_of(found.changed)})
    parts = [_run_key(sighting) for sighting in found.changed] or [failed.dagster_run.run_id if failed else ""]
    run_key = parts[0] if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    config = update_config(weeks, look_too=bool(asked.get("look")))
    return [dg.RunRequest(run_key=run_key, job_name=update_season.name, run_config=config)]


def _run_key(sighting: Sighting) -> str:
    """By the content; a week that was seen before may have the content of a time before that, and is told apart by the time."""
    key = f"{sighting.week}-{sighting.sha256[:16]}"
    return f"{key}-{datetime.now(UTC):%Y%m%d%H%M%S}" if sighting.again else key


def _attempt(run: dg.DagsterRun) -> int:
    """How often a run was asked for, the first time included."""
    return int(run.tags.get(ATTEMPT_TAG, "1"))


def _again(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.RunRequest:
    """The same assets of the same week once more; what was finished is there already, and a training goes on."""
    return dg.RunRequest(
        run_key=f"after-{run.run_id}",
        asset_selection=assets_of(instance, run),
        partition_key=run.tags.get("dagster/partition"),
        tags={ATTEMPT_TAG: str(_attempt(run) + 1)},
    )


def _failed_update(instance: dg.DagsterInstance) -> dg.RunRecord | None:
    """The newest update, if it failed; one that somebody cancelled is left alone."""
    records = instance.get_run_records(dg.RunsFilter(job_name=update_season.name), limit=1)
    return next((record for record in records if record.dagster_run.status == dg.DagsterRunStatus.FAILURE), None)


def _asked_of(run: dg.DagsterRun) -> Mapping[str, Any]:
    config: Mapping[str, Any] = run.run_config
    return config.get("ops", {}).get(bring_up_to_date.name, {}).get("config", {})
