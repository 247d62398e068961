"""Bringing everything up to date, for the command line and for the job of sensor and schedule: in runs of this process."""

import logging
import re
import shutil
import signal
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import dagster as dg

from nfl_lora_pipeline import progress
from nfl_lora_pipeline.adapters.lineage import choose_parent
from nfl_lora_pipeline.defs.adapter import (
    adapter,
    base_model,
    damage_of,
    fingerprint_of,
    fresh_of,
    provenance_of,
    taught_by,
)
from nfl_lora_pipeline.defs.common import code_versions, nfl_week
from nfl_lora_pipeline.defs.dataset import (
    dataset_splits,
    fetch_or_keep,
    make_splits,
    players,
    qa_pairs,
    raw_wr_json,
    read_week,
    stored_version,
    write_pairs,
    write_players,
    write_raw,
    write_with_record,
)
from nfl_lora_pipeline.defs.instance import opened
from nfl_lora_pipeline.defs.leases import lease_tags
from nfl_lora_pipeline.defs.report import evaluation_report_of, promoted_adapter
from nfl_lora_pipeline.defs.resources import Resources
from nfl_lora_pipeline.files import DamagedFile, locked
from nfl_lora_pipeline.interrupts import Arrivals, Interrupted, heard
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.season.watch import Look, held_hashes, look
from nfl_lora_pipeline.stats import position_of
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import to_json
from nfl_lora_pipeline.weeks.players import parse_week
from nfl_lora_pipeline.weeks.sources import RawWeek
from nfl_lora_pipeline.weeks.week import NflWeek

if TYPE_CHECKING:
    from nfl_lora_pipeline.tuning.learn import Forecast

CODE_VERSION_TAG, DATA_VERSION_TAG = "dagster/code_version", "dagster/data_version"
INPUT_VERSION_TAG = "dagster/input_data_version"
ORDER_TAG = ".dagster/nfl_lora/order"
BY_TAG, MAKES_TAG = "nfl_lora/by", "nfl_lora/makes"  # shown in the list of runs
COMMAND = "nfl-lora run"
ENDS = (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE)
QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
SEASON_ASSETS = ("dataset_splits", "base_model", "adapter", "evaluation_report", "promoted_adapter")
NEVER_MADE = "it was never made"
PATIENT_LOOK_SECONDS = 600.0


def assets_of(resources: Resources, *, weeks: Sequence[str] = ()) -> dict[str, dg.AssetsDefinition]:
    """All assets by name, in the order of the graph, with the code versions that stats and recipe give them.

    Args:
        resources: what the assets are given.
        weeks: the weeks that a deployment trains on, as `code_versions` takes them.
    """
    versions = code_versions(resources.dataset, resources.trainer, weeks=weeks)
    of_weeks, of_season = [raw_wr_json, players, qa_pairs], [dataset_splits, base_model, adapter]
    report = evaluation_report_of(resources.trainer.load_or_none())

    def versioned(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(code_version=versions[spec.key.to_user_string()])

    assets = [asset.map_asset_specs(versioned) for asset in (*of_weeks, *of_season, report, promoted_adapter)]
    return {asset.key.to_user_string(): asset for asset in assets}


class StepFailed(ValueError):
    """A step of an update failed; the text is the step's.

    Attributes:
        worth_retrying: whether it may work later with nothing changed: a source gave no answer.
    """

    def __init__(self, text: str, *, worth_retrying: bool = False):
        super().__init__(text)
        self.worth_retrying = worth_retrying


def look_patiently(resources: Resources) -> Look:
    """Look for new and corrected weeks, against what the store holds, in a run, which may wait longer than a sensor."""
    source = resources.week_source
    held = held_hashes(resources.store.open())
    return look(source, resources.watch.season_of(source), {}, held, seconds=PATIENT_LOOK_SECONDS)


def unreachable(found: Look) -> list[StepFailed]:
    """What a look could not see, each worth another look."""
    return [StepFailed(sighting.problem, worth_retrying=True) for sighting in found.sightings if sighting.problem]


@dataclass(frozen=True)
class Order:
    """What an update is to do.

    Attributes:
        resources: what with.
        weeks: to be fetched.
        fetch_only: whether somebody else makes the rest: the assets' own conditions.
        patient: whether a step that fails keeps the others from nothing; otherwise it ends the update.
        purpose: who wants it, as its runs say.
    """

    resources: Resources
    weeks: Collection[NflWeek] = ()
    fetch_only: bool = False
    patient: bool = False
    purpose: str = COMMAND

    @property
    def store(self) -> Store:
        """The store that is brought up to date."""
        return self.resources.store.open()


@dataclass
class Outcome:
    """The seconds that each step took, and what failed on the way of a patient order."""

    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[StepFailed] = field(default_factory=list)


def update(order: Order, instance: dg.DagsterInstance, arrivals: Arrivals | None = None) -> Outcome:
    """Fetch the order's weeks, make what is stale of all that are trained on, then the season's assets.

    These reuse what is there already.

    Args:
        order: what to do.
        instance: where the runs are kept.
        arrivals: the signals that have come; looked at between two runs, since Dagster loses some.

    Raises:
        StepFailed: a step failed, and the order is not patient.
        Interrupted: a signal has come.
    """
    work, done = _Work(order, instance, arrivals or Arrivals()), set()
    instance.add_dynamic_partitions(str(nfl_week.name), [str(week) for week in sorted(order.weeks)])
    for week in sorted(order.weeks):
        if work.materialise(["raw_wr_json"], week) and not order.fetch_only:
            work.make_week(week)
            done.add(week)
    weeks = [] if order.fetch_only else trained_on(order)
    for week in weeks:
        if week not in done:
            work.make_week(week)
    if weeks:
        work.make_season()
    return work.outcome


def plan(order: Order, say: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """What `update` would do and what it would take; it is tried on a copy of the weeks, and the store stays as it is.

    Args:
        order: what to do.
        say: told what is waited for.

    Yields:
        A subject, and a line about it.

    Raises:
        ValueError: something that `update` would end at: a week that cannot be had or taken, too little memory.
    """
    data, recipe = order.store, order.resources.trainer.load()
    base = recipe.base_model
    data.check_position(position_of(order.resources.week_source.position))
    with TemporaryDirectory(prefix="nfl-lora-plan-") as folder:
        draft = Store(Path(folder))
        if (data.root / "weeks").is_dir():
            shutil.copytree(data.root / "weeks", draft.root / "weeks")
        for week in sorted(order.weeks):
            yield str(week), _draft_week(order, draft, week, say)
        splits = make_splits(draft, order.resources.dataset, accept_odd=order.resources.week_source.accept_odd_weeks)
        write_with_record(draft, splits, _unheard())
        examples = taught_by(splits.rows, draft.read_splits_record().shared_names, recipe)
        yield "dataset", f"{len({one.fact for one in examples}):,} facts in {len(examples):,} rows to train on"
        if base_models.would_be_downloaded(base):
            yield "base", f"{base} would be downloaded; what the training takes can be told when it is here"
            return
        yield from _plan_of_training(order, draft, say)


def _plan_of_training(order: Order, draft: Store, say: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """What `adapter` would do with the splits of a copy of the store."""
    from nfl_lora_pipeline.tuning.learn import forecast

    data, trainer, rows = order.store, order.resources.trainer, draft.read_rows()
    recipe, provenance = trainer.load(), provenance_of(draft, trainer)
    yield "base", f"{provenance.base_model}, which is on this machine"
    fingerprint = fingerprint_of(provenance)
    if data.adapter(fingerprint).is_dir() and not damage_of(data, fingerprint):
        yield "adapter", f"{fingerprint} is made of just that and would be reused: nothing would be trained"
        return
    parent, why = choose_parent(data, provenance, rows, but=fingerprint) if recipe.warm_start else (None, [])
    yield "adapter", "; ".join(_how_begun(data, fingerprint, why, parent))
    say("two steps of the training are tried")
    yield from _in_lines(
        forecast(
            taught_by(rows, provenance.shared_names, recipe),
            recipe=recipe,
            base=base_models.resolve(recipe.base_model),
            fresh=fresh_of(rows, provenance, recipe),
            start=data.adapter(parent) if parent else None,
        )
    )


def _draft_week(order: Order, draft: Store, week: NflWeek, say: Callable[[str], None]) -> str:
    """Make all that is made of a week in a copy of the store; where the week comes from, and what is new about it."""
    source, stats = order.resources.week_source, order.resources.dataset.chosen_stats()
    held = held_hashes(draft).get(str(week))
    raw = fetch_or_keep(week, source, draft, say)
    parse_week(raw.content, week=week, origin=raw.origin)
    write_raw(draft, raw, position_of(source.position))
    result = read_week(draft, week, stats, accept_odd=source.accept_odd_weeks)
    if reason := result.why_blocked(order.store):
        raise ValueError(reason)
    write_players(draft, result, _unheard())
    write_pairs(draft, week, stats)
    return f"{_news(raw, held)}, from {raw.origin}"


def _news(raw: RawWeek, held: str | None) -> str:
    if held == raw.sha256:
        return "held already, and unchanged"
    how = "downloaded" if raw.kind == "github" else "read"
    return f"{'new' if held is None else 'corrected'}, {raw.size:,} bytes would be {how}"


def _how_begun(data: Store, fingerprint: str, why: Sequence[str], parent: str | None) -> Iterator[str]:
    """What a training would begin with."""
    if data.unfinished(fingerprint).is_dir():
        yield f"{fingerprint} would be trained on, from where its training was broken off"
    elif parent is None:
        yield f"{fingerprint} would be trained from nothing"
    else:
        yield f"{fingerprint} would be trained, in fewer steps than from nothing"
    yield from why


def _in_lines(found: "Forecast") -> Iterator[tuple[str, str]]:
    yield "tokens", f"{found.tokens:,} in {found.rows:,} rows"
    yield "memory", found.memory
    yield (
        "steps",
        f"about {found.steps:,}" + (f", {found.most_steps:,} at most" if found.most_steps > found.steps else ""),
    )
    if found.step_seconds is None:
        yield "time", "its trainer is mlx-lm's, of which no step is tried"
    else:
        seconds = [count * found.step_seconds for count in (found.steps, found.most_steps)]
        spoken = [progress.spoken_time(each) for each in seconds]
        yield (
            "time",
            f"about {spoken[0]} of training ({spoken[1]} at most), by a trial step of {found.step_seconds:.2g} s",
        )


def _unheard() -> logging.Logger:
    """A log for what is said again when it is done."""
    log = logging.getLogger(f"{__name__}.plan")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    return log


def trained_on(order: Order) -> list[NflWeek]:
    """Of the weeks whose raw file is held those that the splits take: the ones that were named, or the newest season's."""
    weeks = sorted(NflWeek.parse(key) for key in held_hashes(order.store))
    named = order.resources.dataset.weeks
    return [week for week in weeks if (str(week) in named if named else week.season == weeks[-1].season)]


def why_stale(
    asset: dg.AssetsDefinition, week: NflWeek, resources: Resources, instance: dg.DagsterInstance
) -> str | None:
    """Why a week's asset is to be made anew; None where it is up to date.

    Dagster's records say what it was made from, by which code; the store says what is there now. Files may be lost, damaged
    or replaced without a run, and records may be of another store's content. Whether the raw file is upstream's is not asked
    here: whoever looks for new weeks holds the store's against it.
    """
    name, key = asset.key.to_user_string(), str(week)
    record = _newest_tags(asset.key, instance, key)
    if record is None:
        return NEVER_MADE
    if record.get(CODE_VERSION_TAG) != asset.code_versions_by_key[asset.key]:
        return "its code, its wordings or the stats in use have changed"
    data, stats = resources.store.open(), resources.dataset.chosen_stats()
    try:
        version = stored_version(name, data, week, stats)
    except DamagedFile as error:
        return f"{error.path} {error.wrong}"
    if version != record.get(DATA_VERSION_TAG):
        return "the store holds another one than was made"
    for input_key in asset.dependency_keys:
        used = record.get(f"{INPUT_VERSION_TAG}/{input_key.to_user_string()}")
        if (_newest_tags(input_key, instance, key) or {}).get(DATA_VERSION_TAG) != used:
            return f"{input_key.to_user_string()} has changed"
    return None


@dataclass
class _Work:
    """An update under way."""

    order: Order
    instance: dg.DagsterInstance
    arrivals: Arrivals
    outcome: Outcome = field(default_factory=Outcome)

    def __post_init__(self) -> None:
        self.assets = assets_of(self.order.resources)

    def make_week(self, week: NflWeek) -> None:
        """Make what is stale of a week; what comes after a failure is left as it is."""
        for name in ("players", "qa_pairs"):
            reason = why_stale(self.assets[name], week, self.order.resources, self.instance)
            if reason not in (None, NEVER_MADE):
                progress.tell(name, f"{week} is made anew, since {reason}", None)
            if reason and not self.materialise([name], week):
                return

    def make_season(self) -> None:
        """Make what is made of all weeks together."""
        self.materialise(SEASON_ASSETS)

    def materialise(self, names: Sequence[str], week: NflWeek | None = None) -> bool:
        """Materialise in one run, and then look for signals.

        Returns:
            Whether that worked.
        """
        try:
            self._run([self.assets[name] for name in names], str(week) if week else None)
        except StepFailed as failure:
            if not self.order.patient:
                raise
            text = f"{week}: {failure}" if week else str(failure)
            self.outcome.failures.append(StepFailed(text, worth_retrying=failure.worth_retrying))
            return False
        self.arrivals.check()
        return True

    def _run(self, assets: Sequence[dg.AssetsDefinition], partition_key: str | None) -> None:
        mark = {ORDER_TAG: uuid.uuid4().hex}
        try:
            in_one_run(
                assets, self.instance, self.order.resources, partition_key, purpose=self.order.purpose, tags=mark
            )
        except dg.DagsterError as error:
            if not any(_checks_blocked(self.instance, run.run_id) for run in self._runs(mark)):
                raise
            if partition_key is not None:
                raise StepFailed(f"{' '.join(str(error).split())}; what hangs on it was not made") from error
            # else the report is there, and says which check keeps the adapter from being promoted
        for run in self._runs(mark):
            for name, seconds in _seconds(self.instance, run.run_id):
                self.outcome.seconds[name] = self.outcome.seconds.get(name, 0.0) + seconds

    def _runs(self, mark: Mapping[str, str]) -> Sequence[dg.DagsterRun]:
        return self.instance.get_runs(dg.RunsFilter(tags=mark))


def in_one_run(
    assets: Sequence[dg.AssetsDefinition],
    instance: dg.DagsterInstance,
    resources: Resources,
    partition_key: str | None,
    *,
    purpose: str,
    tags: Mapping[str, str],
) -> None:
    """Materialise assets in a run of this process, which is cancelled where a signal ends it.

    Args:
        assets: what is made.
        instance: where the run is kept.
        resources: what with.
        partition_key: of the assets; None where they have none.
        purpose: whose run it is; its name in the UI.
        tags: of the run, by which it is found again.

    Raises:
        StepFailed: a step failed.
    """
    makes = [*(asset.key.to_user_string() for asset in assets), *([partition_key] if partition_key else [])]
    name = re.sub(r"\W+", "_", purpose)
    job = dg.define_asset_job(
        name, description=f"Part of {purpose}."
    )  # what `dagster.materialize` executes has no name
    defs = dg.Definitions(assets=assets, jobs=[job], resources=resources.by_name())
    try:
        defs.resolve_job_def(name).execute_in_process(
            instance=instance,
            partition_key=partition_key,
            run_config={"loggers": QUIET},
            tags={**tags, **lease_tags(), BY_TAG: purpose, MAKES_TAG: ", ".join(makes)},
        )
    except dg.Failure as failure:
        raise StepFailed(failure.description or str(failure), worth_retrying=failure.allow_retries) from failure
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        for run in instance.get_runs(dg.RunsFilter(tags=dict(tags))):
            if run.status != dg.DagsterRunStatus.CANCELED:
                instance.report_run_canceled(run, "Interrupted on the command line.")
        raise


@contextmanager
def told_what_is_kept(listener: progress.Listener) -> Iterator[tuple[Arrivals, progress.Listener]]:
    """In the block signals are heard; one that ends it says what is kept, by what the listener was told last.

    Raises:
        Interrupted: a signal has come.
    """
    newest: dict[str, str] = {}

    def listen(step: str, line: str, share: float | None) -> None:
        newest[step] = line
        listener(step, line, share)

    with heard() as arrivals:
        try:
            with progress.listening(listen):
                yield arrivals, listen
        except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError) as interrupt:
            step, line = list(newest.items())[-1] if newest else ("", "")
            kept = f"{step} is {line}" if line.startswith("kept") else f"what was made before {step or 'it'} is kept"
            raise Interrupted(arrivals.first() or signal.SIGINT, kept) from interrupt


def run_job(order: Order, *, listener: progress.Listener) -> tuple[dict[str, Any], dict[str, float]]:
    """Bring everything up to date on the instance beside the store, for somebody who waits for it.

    Returns:
        The report's summary with the report's path, and the seconds of each step.

    Raises:
        ValueError: a step failed; the text is the step's.
        Interrupted: a signal asked for an end; `kept` says what the next run goes on with.
    """
    from nfl_lora_pipeline.reports.report import read_summary

    data = order.store
    with told_what_is_kept(listener) as (arrivals, listen):

        def say(line: str) -> None:
            listen("storage", line, None)

        with opened(data, say) as instance, alone(data, COMMAND, say):
            outcome = update(order, instance, arrivals)
    report = data.report(data.latest())
    return to_json(read_summary(report)) | {"report": str((report / "report.md").resolve())}, outcome.seconds


def alone(store: Store, purpose: str, say: Callable[[str], None]) -> AbstractContextManager[bool]:
    """One update of a store at a time: two would make each other's splits anew while the other trains on them."""
    return locked(store.lock("season"), purpose=purpose, on_wait=say)


def _newest_tags(key: dg.AssetKey, instance: dg.DagsterInstance, partition_key: str) -> Mapping[str, str] | None:
    """The tags of the newest materialisation of a partition."""
    wanted = dg.AssetRecordsFilter(key, asset_partitions=[partition_key])
    for record in instance.fetch_materializations(wanted, limit=1).records:
        materialization = record.asset_materialization
        return materialization.tags if materialization else None
    return None


def _checks_blocked(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a check of a run failed that keeps what comes after from being made.

    The exception that Dagster raises then is not among its public names (`DagsterAssetCheckFailedError`, looked for in
    `dagster` of 1.13); what the run has on record is.
    """
    events = [record.dagster_event for record in instance.all_logs(run_id)]
    found = [event.event_specific_data for event in events if event]
    return any(
        isinstance(check, dg.AssetCheckEvaluation)
        and check.blocking
        and not check.passed
        and check.severity == dg.AssetCheckSeverity.ERROR
        for check in found
    )


def _seconds(instance: dg.DagsterInstance, run_id: str) -> Iterator[tuple[str, float]]:
    """What each step of a run took, that of a report whose check failed included."""
    began: dict[str, float] = {}
    for record in instance.all_logs(run_id):
        event = record.dagster_event
        if event and event.step_key and event.event_type == dg.DagsterEventType.STEP_START:
            began[event.step_key] = record.timestamp
        elif event and event.step_key in began and event.event_type in ENDS:
            yield event.step_key, record.timestamp - began[event.step_key]
