"""Which process executes a run, and what becomes of a run whose process has ended without a word.

Dagster marks a run as failed when its process says so; one that is killed, or whose machine loses power, says nothing and
stays "started" for ever. So each run bears the process that executes it as a tag, and beside it the time, renewed for as long
as it lives. Whoever opens the storage can tell by the first on the same machine, and by the second on another one.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import dagster as dg

from nfl_lora_pipeline.processes import Process, exists, repeating

HIDDEN = ".dagster/nfl_lora"  # the UI does not list what begins with ".dagster/"
PROCESS_TAG, RENEWED_TAG = f"{HIDDEN}/process", f"{HIDDEN}/renewed"
DEAD_TAG, TO_BE_ASKED_FOR, ASKED_FOR = "nfl_lora/dead", "to be asked for again", "asked for again"
BY_DAEMON_TAG = ".dagster/grpc_info"  # a run that a code server was asked for, which can be asked to cancel it
RENEWED_EVERY_SECONDS = 30.0
LEASE_SECONDS = 4 * RENEWED_EVERY_SECONDS
LOOK_SECONDS = 1.0
UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def lease_tags() -> dict[str, str]:
    """The tags of a run that this process executes."""
    return {PROCESS_TAG: json.dumps(Process.this().to_json()), RENEWED_TAG: f"{time.time():.0f}"}


@contextmanager
def leased(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """In the block the run's tags say that this process executes it.

    A run of the command line that is terminated in the UI is asked to end here, since there is no code server to ask it.
    """
    run = instance.get_run_by_id(run_id)
    if run is None or instance.is_ephemeral:
        yield
        return
    instance.add_run_tags(run_id, lease_tags())
    keeps_up = _keeps_up(instance, run_id, ends_itself=BY_DAEMON_TAG not in run.tags)
    with repeating(keeps_up, LOOK_SECONDS, f"lease of {run_id}"):
        yield


def end_dead_runs(
    instance: dg.DagsterInstance, *, goes_on: bool = False, on_one_machine: bool = True
) -> list[dg.DagsterRun]:
    """Mark the runs as failed whose process has ended without a word, and free what they hold.

    A run that was being cancelled is marked as cancelled.

    Args:
        instance: where the runs are kept.
        goes_on: whether the caller does itself what they had been doing. Otherwise they are noted down for `dead_and_wanted`.
        on_one_machine: whether every run is one of this machine. Otherwise the process that Dagster's own events name says
            nothing, and a run that has not come as far as `leased` is left to Dagster's limit for what starts.

    Returns:
        These runs.
    """
    dead = [
        record.dagster_run
        for record in instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED))
        if _is_dead(instance, record.dagster_run, on_one_machine=on_one_machine)
    ]
    for run in dead:
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, "Cancelled; its process has ended.")
        else:
            instance.report_run_failed(run, f"{_process_of(run)} has ended without a word: killed, or a loss of power.")
            if not goes_on:
                instance.add_run_tags(run.run_id, {DEAD_TAG: TO_BE_ASKED_FOR})
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return dead


def runs_here(instance: dg.DagsterInstance) -> list[str]:
    """The runs under way that a code server was asked for; not those of the command line."""
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    return [run.run_id for run in runs if BY_DAEMON_TAG in run.tags]


def leave_for_later(instance: dg.DagsterInstance, run_ids: Collection[str]) -> list[str]:
    """Of runs whose code server was ended, note those down for `dead_and_wanted` that did not come to their end.

    Returns:
        A line for each.
    """
    end_dead_runs(instance)
    broken_off = [
        run
        for run in (instance.get_run_by_id(run_id) for run_id in run_ids)
        if run and run.status == dg.DagsterRunStatus.FAILURE
    ]
    for run in broken_off:
        instance.add_run_tags(run.run_id, {DEAD_TAG: TO_BE_ASKED_FOR})
    return [
        f"run {run.run_id[:8]} ({_assets_in_words(instance, run)}) was broken off; made anew, it goes on from there"
        for run in broken_off
    ]


def dead_and_wanted(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The dead runs whose work nobody has taken up yet; from now on it is taken up."""
    runs = instance.get_runs(dg.RunsFilter(tags={DEAD_TAG: TO_BE_ASKED_FOR}))
    for run in runs:
        instance.add_run_tags(run.run_id, {DEAD_TAG: ASKED_FOR})
    return list(runs)


def assets_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[dg.AssetKey]:
    """What a run was to materialise, sorted; by its log, since runs of the command line bear no selection."""
    planned = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
    keys = {record.dagster_event.asset_key for record in planned if record.dagster_event}
    return sorted(key for key in keys if key)


def in_words(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """A dead run, for people."""
    assets = _assets_in_words(instance, run)
    return (
        f"run {run.run_id[:8]} ({assets}) had been left behind by {_process_of(run)}, which has ended: marked as failed"
    )


def _assets_in_words(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    return ", ".join(key.to_user_string() for key in assets_of(instance, run)) or run.job_name


def _keeps_up(instance: dg.DagsterInstance, run_id: str, *, ends_itself: bool) -> Callable[[], bool]:
    """What looks whether the run was terminated, renews its time, and says whether to go on."""
    renewed = time.monotonic()

    def keep_up() -> bool:
        nonlocal renewed
        with contextlib.suppress(Exception):  # a storage that is busy now is there again the next time
            if ends_itself and (run := instance.get_run_by_id(run_id)) and run.status == dg.DagsterRunStatus.CANCELING:
                os.kill(os.getpid(), signal.SIGTERM)
                return False
            if time.monotonic() - renewed > RENEWED_EVERY_SECONDS:
                instance.add_run_tags(run_id, {RENEWED_TAG: f"{time.time():.0f}"})
                renewed = time.monotonic()
        return True

    return keep_up


def _is_dead(instance: dg.DagsterInstance, run: dg.DagsterRun, *, on_one_machine: bool) -> bool:
    process = None if _has_tags_of_its_parent(instance, run) else _tagged(run)
    if process is None:
        pid = _pid_in_log(instance, run.run_id) if on_one_machine else None
        return pid is not None and not exists(pid)
    if process.is_here:
        return not process.is_alive
    return time.time() - float(run.tags.get(RENEWED_TAG, "0")) > LEASE_SECONDS


def _has_tags_of_its_parent(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a run that is made anew still bears the tags of the one before, whose process has ended."""
    parent = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    return parent is not None and parent.tags.get(PROCESS_TAG) == run.tags.get(PROCESS_TAG)


def _tagged(run: dg.DagsterRun) -> Process | None:
    with contextlib.suppress(KeyError, ValueError):
        return Process.from_json(json.loads(run.tags[PROCESS_TAG]))
    return None


def _pid_in_log(instance: dg.DagsterInstance, run_id: str) -> int | None:
    """The process that Dagster's own events name: all that there is before the first resource, and of earlier versions."""
    for record in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = record.dagster_event
        pid = event.engine_event_data.metadata.get("pid") if event and event.is_engine_event else None
        if pid is not None and str(pid.value).isdecimal():
            return int(str(pid.value))
    return None


def _process_of(run: dg.DagsterRun) -> str:
    process = _tagged(run)
    return str(process) if process else "its process"
