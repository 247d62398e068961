"""What runs by itself: a sensor for new weeks, a weekly schedule, and the conditions of the assets. All off until switched on.

Each does its job alone. Where the assets' own conditions (the sensor `automation`) are on, the others only fetch, and the
conditions carry on to the report; where they are off, the job `update_season` does all of it.
"""

import hashlib
import inspect
import json
import logging
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from nfl_lora_pipeline import progress
from nfl_lora_pipeline.defs.common import OWNERS, clear_failure, nfl_week
from nfl_lora_pipeline.defs.leases import assets_of, dead_and_wanted, end_dead_runs, in_words
from nfl_lora_pipeline.defs.resources import DatasetResource, Resources, StoreResource, Trainer, Watch, WeekSource
from nfl_lora_pipeline.defs.update import Order, StepFailed, alone, look_patiently, unreachable, update
from nfl_lora_pipeline.interrupts import noted
from nfl_lora_pipeline.season.watch import Look, Memory, Sighting, held_hashes, look
from nfl_lora_pipeline.settings import Settings
from nfl_lora_pipeline.weeks.week import NflWeek, is_key

TAGS = {"does": "update"}
AUTOMATION = "automation"
WEDNESDAY_MORNING = "0 9 * 1,2,9-12 3"
WAITS_SECONDS = (600.0, 1200.0)  # how long an update waits for an upstream that gave no answer, before it asks again
AGAIN_SECONDS = 3600.0  # how long after a failed update the sensor asks for it again
ATTEMPT_TAG, MOST_ATTEMPTS = "nfl_lora/attempt", 3


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
    watch: Watch,
) -> None:
    """Fetch weeks, make what hangs on a change, then the season's assets, which reuse what is there already.

    A week that cannot be had does not keep the others back; it fails the run at the end. Where the assets' own
    conditions are on, only the fetching is done here.
    """
    resources = Resources(store, week_source, dataset, trainer, watch)
    origin = context.run.remote_job_origin
    automated = automation_runs(context.instance, origin.location_name if origin else None, default=watch.on)
    for seconds in (*WAITS_SECONDS, None):
        failures = look_and_update(context, resources, config, fetch_only=automated)
        if not failures:
            return
        text = "; ".join(map(str, failures))
        if seconds is None or not any(failure.worth_retrying for failure in failures):
            raise dg.Failure(text, allow_retries=False)
        context.log.warning(f"{text}; trying again in {seconds / 60:.0f} minutes")
        time.sleep(seconds)


def look_and_update(
    context: dg.OpExecutionContext, resources: Resources, config: UpdateConfig, *, fetch_only: bool
) -> list[StepFailed]:
    """One try of `update_season`.

    Returns:
        What did not work.
    """
    data, purpose = resources.store.open(), f"{update_season.name}, run {context.run.run_id[:8]}"
    with clear_failure():
        weeks = {NflWeek.parse(key) for key in config.weeks}
    failures: list[StepFailed] = []
    with (
        progress.listening(lambda step, line, share: context.log.info(f"{step}: {line}")),
        alone(data, purpose, context.log.info),
        noted() as arrivals,
    ):
        if config.look:
            found = look_without_memory(resources, context.log)
            weeks |= {sighting.week for sighting in found.changed}
            failures += unreachable(found)
        order = Order(resources, weeks, fetch_only=fetch_only, patient=True, purpose=f"part of {update_season.name}")
        failures += update(order, context.instance, arrivals).failures
    if fetch_only:
        context.log.info(f"the sensor {AUTOMATION!r} is on: it makes the rest")
    return failures


def look_without_memory(resources: Resources, log: logging.Logger) -> Look:
    """Look for new and corrected weeks, against what the store holds."""
    found = look_patiently(resources)
    log.info(found.in_short())
    for warning in found.warnings:
        log.warning(warning)
    return found


@dg.job(executor_def=dg.in_process_executor, owners=OWNERS, tags=TAGS)
def update_season() -> None:
    """Fetch weeks and bring everything up to date, up to the report and the promoted adapter."""
    bring_up_to_date()


fetch_week = dg.define_asset_job(
    "fetch_week",
    selection=["raw_wr_json"],
    description="Fetch one week; the assets' own conditions carry on from there.",
    owners=OWNERS,
    tags=TAGS,
)


def look_for_new_weeks(
    context: dg.SensorEvaluationContext, store: StoreResource, week_source: WeekSource, watch: Watch
) -> dg.SensorResult:
    """Look for new and corrected weeks, and have them fetched; its cursor is the memory of the last look."""
    memory: Memory = json.loads(context.cursor or "{}")
    found = look(week_source, watch.season_of(week_source), memory, held_hashes(store.open()))
    for warning in found.warnings:
        context.log.warning(warning)
    origin = context.code_location_origin
    automated = automation_runs(context.instance, origin.location_name if origin else None, default=watch.on)
    requests = _fetches(found) if automated else _updates(found, context.instance)
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else dg.SkipReason(found.in_short()),
        dynamic_partitions_requests=[nfl_week.build_add_request(keys_of(found.changed))] if found.changed else [],
        cursor=json.dumps(found.memory),
    )


def look_for_dead_runs(context: dg.SensorEvaluationContext, store: StoreResource, watch: Watch) -> dg.SensorResult:
    """Ends the runs whose process has died, so that nothing waits for them; where the conditions are on, asks for them anew.

    A run that dies again and again is asked for no more than three times: what kills it (too little memory, say) stays.
    """
    dead = end_dead_runs(context.instance)
    store.open().sweep()
    origin = context.code_location_origin
    wanted: list[dg.DagsterRun] = []
    if automation_runs(context.instance, origin.location_name if origin else None, default=watch.on):
        wanted = dead_and_wanted(context.instance)
    requests = [_again(context.instance, run) for run in wanted if _attempt(run) < MOST_ATTEMPTS]
    summary = "; ".join(in_words(context.instance, run) for run in dead) or "every run has a living process"
    return dg.SensorResult(
        run_requests=[request for request in requests if request.asset_selection],
        skip_reason=None if requests else dg.SkipReason(summary),
    )


def ask_for_an_update(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Wednesday morning, September to February: look upstream in a run that can wait, and bring everything up to date."""
    return dg.RunRequest(run_key=context.scheduled_execution_time.isoformat(), run_config=update_config(look_too=True))


def build_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensors of a deployment: `new_weeks` and `automation`, which run from the start if it watches, and `dead_runs`."""
    running, stopped = dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED
    switch = running if settings.watch else stopped
    return [
        dg.sensor(
            name="new_weeks",
            jobs=[update_season, fetch_week],
            minimum_interval_seconds=settings.watch_seconds,
            default_status=switch,
            description=inspect.getdoc(look_for_new_weeks),
            owners=OWNERS,
            tags=TAGS,
        )(look_for_new_weeks),
        dg.AutomationConditionSensorDefinition(
            AUTOMATION,
            target=dg.AssetSelection.groups("weeks", "season"),
            minimum_interval_seconds=10,
            default_status=switch,
            description="Carries a change of any asset on to the report, by the assets' own conditions.",
            tags=TAGS,
            metadata={"owner": OWNERS[0]},  # Dagster 1.13 gives this kind of sensor no owners
        ),
        dg.sensor(
            name="dead_runs",
            target=dg.AssetSelection.groups("weeks", "season"),
            minimum_interval_seconds=15,
            default_status=running,
            description=inspect.getdoc(look_for_dead_runs),
            owners=OWNERS,
            tags={"does": "repair"},
        )(look_for_dead_runs),
    ]


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedule of a deployment, `weekly_retraining`, which runs from the start if it watches."""
    running, stopped = dg.DefaultScheduleStatus.RUNNING, dg.DefaultScheduleStatus.STOPPED
    return [
        dg.schedule(
            name="weekly_retraining",
            job=update_season,
            cron_schedule=WEDNESDAY_MORNING,
            execution_timezone="America/New_York",
            default_status=running if settings.watch else stopped,
            description=inspect.getdoc(ask_for_an_update),
            owners=OWNERS,
            tags=TAGS,
        )(ask_for_an_update)
    ]


def keys_of(sightings: Iterable[Sighting]) -> list[str]:
    """The partition keys of weeks seen."""
    return [str(sighting.week) for sighting in sightings]


def update_config(weeks: Iterable[str] = (), *, look_too: bool = False) -> dict[str, Any]:
    """The run config of `update_season`."""
    return {"ops": {bring_up_to_date.name: {"config": {"weeks": list(weeks), "look": look_too}}}}


def automation_runs(instance: dg.DagsterInstance, location: str | None = None, *, default: bool) -> bool:
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
    weeks = sorted({*filter(is_key, asked.get("weeks", [])), *keys_of(found.changed)})
    if not weeks and asked.get("weeks") and not asked.get("look"):
        return []  # it asked for nothing that is a week, and can never work
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
