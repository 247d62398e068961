"""Many tenants in one deployment: an asset with a partition a tenant, each brought up to date by a run of its own.

The weeks are inside a tenant: his store has the whole graph of a season, with its own record of runs, so that the deployment
counts tenants and not tenants times weeks. What a run does it does on a copy of that store on its machine, under a lease, and
what came of it is published as the next version (`archive`). A machine that dies leaves a checkpoint, and another goes on.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import dagster as dg

from nfl_lora_pipeline import progress
from nfl_lora_pipeline.defs.common import OWNERS, clear_failure, failed_an_hour_ago
from nfl_lora_pipeline.defs.instance import opened
from nfl_lora_pipeline.defs.leases import end_dead_runs, in_words, leased
from nfl_lora_pipeline.defs.resources import Resources
from nfl_lora_pipeline.defs.update import Order, StepFailed, alone, look_patiently, unreachable, update
from nfl_lora_pipeline.files import locked
from nfl_lora_pipeline.interrupts import Arrivals, noted
from nfl_lora_pipeline.processes import Process, repeating
from nfl_lora_pipeline.settings import Settings
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import CertificateRecord, read_json, read_overview
from nfl_lora_pipeline.tenants.archive import Archive
from nfl_lora_pipeline.tenants.entries import Tenant, read_tenants
from nfl_lora_pipeline.tenants.leases import Leases
from nfl_lora_pipeline.weeks.week import NflWeek, spoken_weeks

PURPOSE = "tenants"
KEPT_VERSIONS, TIDY_EVERY = 30, 10  # of a tenant, the newest; it is tidied once in so many
CHECKPOINT_SECONDS = 20.0  # between two looks at whether a training has a newer checkpoint
SAY_SECONDS = 20.0  # between two lines of a step that are kept in the deployment's record of runs
SERVER_TAG = "nfl_lora/server"  # a limit on it is one on the trainings of a machine at a time
WEEKLY, TIMEZONE = "0 9 * 1,2,9-12 3", "America/New_York"


@dataclass(frozen=True)
class Workplace:
    """Where tenants are worked on.

    Attributes:
        archive: a folder or an address of object storage, which has an archive for each tenant's name.
        leases: who works on whom.
        copies: the folder of this machine's copies of their stores.
        turn: the file that says whose turn it is among the workers of this code server: a training uses every core.
    """

    archive: str
    leases: Leases
    copies: Path
    turn: Path

    @classmethod
    def of(cls, settings: Settings) -> "Workplace":
        """That of a deployment; where it says nothing all of it is in the deployment's own folder."""
        root = Path(settings.store).resolve()
        root.mkdir(parents=True, exist_ok=True)
        return cls(
            archive=settings.archive or str(root / "archive"),
            leases=Leases(settings.database or f"sqlite:///{root / 'leases.db'}"),
            copies=root / "copies",
            turn=root / "locks" / f"worker-{settings.share.replace('/', '-of-')}",
        )

    def archive_of(self, tenant: str) -> Archive:
        """The versions of a tenant's store."""
        return Archive.at(f"{self.archive.rstrip('/')}/{tenant}")


@dataclass(frozen=True)
class Worked:
    """What came of a run.

    Attributes:
        version: of the tenant's store, in his archive.
        token: of the lease.
        store: this machine's copy.
        failures: what did not work.
    """

    version: int
    token: int
    store: Store
    failures: list[StepFailed]


def work_on(tenant: Tenant, place: Workplace, say: progress.Listener, arrivals: Arrivals | None = None) -> Worked:
    """Bring a tenant up to date: on the newest version of his store, which the next one follows.

    Args:
        tenant: whom.
        place: where.
        say: told how far it is.
        arrivals: the signals that have come.

    Raises:
        ValueError: the archive or the database cannot be used, or somebody else has published in the meantime.
    """
    archive, store = place.archive_of(tenant.name), Store(place.copies / tenant.name)
    by = str(Process.this())

    def tell(line: str) -> None:
        say("storage", line, None)

    with (
        place.leases.held(tenant.name, by, tell) as lease,
        locked(place.turn, purpose=tenant.name, on_wait=tell),
        alone(store, PURPOSE, tell),
    ):
        before = archive.fetch(store.root)
        with _checkpoints_kept(archive, store), tenant.settings.upstream_known():
            failures = _update(tenant, store, say, arrivals or Arrivals())
        version = archive.publish(store.root, after=before, by=by, token=str(lease.token))
        if version % TIDY_EVERY == 0:
            archive.tidy(KEPT_VERSIONS)
    tell(f"version {version} of {tenant.name} is published")
    return Worked(version, lease.token, store, failures)


def _update(tenant: Tenant, store: Store, say: progress.Listener, arrivals: Arrivals) -> list[StepFailed]:
    """Fetch what is new of the source's season, or the weeks that the entry names, and make what hangs on it."""
    settings, failures = tenant.at(store.root), list[StepFailed]()
    resources = Resources.of(settings)
    weeks = {NflWeek.parse(key) for key in settings.weeks}
    if not weeks:
        found = look_patiently(resources)
        for line in (found.in_short(), *found.warnings):
            say("weeks", line, None)
        weeks, failures = {sighting.week for sighting in found.changed}, unreachable(found)
        if not (weeks or failures or store.weeks_taken()):
            where = f" in {settings.folder}" if settings.source == "folder" else ""
            failures = [StepFailed(f"{found.in_short()}: there is nothing to teach {tenant.name}{where}")]
    order = Order(resources, weeks, patient=True, purpose=PURPOSE)
    with progress.listening(say), opened(store, lambda line: say("storage", line, None), goes_on=True) as instance:
        return failures + update(order, instance, arrivals).failures


@contextmanager
def _checkpoints_kept(archive: Archive, store: Store) -> Iterator[None]:
    """In the block, and at its end, the newest checkpoint of a training is kept in the archive, for whoever goes on with it."""

    def keep() -> bool:
        with contextlib.suppress(OSError, ValueError):  # it is tried again, and a training does not end of it
            archive.keep_checkpoint(store.root)
        return True

    try:
        with repeating(keep, CHECKPOINT_SECONDS, "checkpoints"):
            yield
    finally:
        archive.keep_checkpoint(store.root)


class Sometimes:
    """Passes on what tells how far a step is every so often, and all else; the record of a deployment is one for all."""

    def __init__(self, listener: progress.Listener):
        self._listener, self._told = listener, dict[str, float]()

    def __call__(self, step: str, line: str, share: float | None) -> None:
        """As a listener is told."""
        now, in_between = time.monotonic(), share is not None and 0.0 < share < 1.0
        if in_between and now - self._told.get(step, -SAY_SECONDS) < SAY_SECONDS:
            return
        if in_between:
            self._told[step] = now
        self._listener(step, line, share)


def share_of(tenants: Sequence[Tenant], share: str) -> list[Tenant]:
    """The tenants of one of several code servers: "1/3" for the second of three.

    Raises:
        ValueError: it is no such share.
    """
    part, slash, parts = share.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise ValueError(f"NFL_LORA_SHARE={share!r}: write 0/1, or 0/2 and 1/2 for two code servers")
    return [tenant for tenant in tenants if crc32(tenant.name.encode()) % int(parts) == int(part)]


def tenant_definitions(settings: Settings) -> dg.Definitions:
    """The asset, its check, what asks for it and what repairs it, for a code server's share of the tenants."""
    everybody = read_tenants(Path(settings.tenants), settings)
    tenants = {tenant.name: tenant for tenant in share_of(everybody, settings.share)}
    part, _, parts = settings.share.partition("/")
    asset = _asset_of(tenants, settings, "tenant_adapter" if parts == "1" else f"tenant_adapter_{part}")
    switch = dg.DefaultSensorStatus.RUNNING if settings.watch else dg.DefaultSensorStatus.STOPPED
    conditions = dg.AutomationConditionSensorDefinition(
        f"automation_{part}",
        target=dg.AssetSelection.assets(asset.key),
        minimum_interval_seconds=30,
        default_status=switch,
        run_tags={SERVER_TAG: part},
        description="Asks for tenants that were never made, each week for all, and an hour later for what failed.",
    )
    return dg.Definitions(
        assets=[asset], sensors=[conditions, _dead_runs(asset, part, switch)], executor=dg.in_process_executor
    )


def _asset_of(tenants: dict[str, Tenant], settings: Settings, name: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        partitions_def=dg.StaticPartitionsDefinition(list(tenants)),
        check_specs=[
            dg.AssetCheckSpec("certified", asset=name, description="Every fact is certain, and it is promoted.")
        ],
        group_name="tenants",
        kinds={"mlx", "safetensors"},
        owners=OWNERS,
        pool="training",
        automation_condition=_condition(),
    )
    def tenant_adapter(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
        """A tenant's store brought up to date: his weeks, his adapter, its report, and its promotion."""
        tenant = tenants[context.partition_key]
        say = Sometimes(lambda step, line, share: context.log.info(f"{step}: {line}"))
        with clear_failure(), leased(context.instance, context.run.run_id), noted() as arrivals:
            worked = work_on(tenant, Workplace.of(settings), say, arrivals)
        if worked.failures:
            text = "; ".join(map(str, worked.failures))
            raise dg.Failure(text, allow_retries=any(each.worth_retrying for each in worked.failures))
        with clear_failure():
            results = list(_results(tenant, worked))
        yield from results

    return tenant_adapter


def _results(tenant: Tenant, worked: Worked) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
    store, newest = worked.store, worked.store.latest()
    certificate = read_json(store.adapter(newest) / "certificate.json", CertificateRecord, mend="train it anew")
    gates = read_overview(store.report(newest)).gates or []
    missed = [gate.name for gate in gates if gate.passed is False]
    promoted = store.promoted()
    yield dg.MaterializeResult(
        metadata={
            "tenant": tenant.name,
            "version": worked.version,
            "lease": worked.token,
            "adapter": newest,
            "promoted": promoted or "none",
            "weeks": spoken_weeks(store.provenance(newest).weeks),
            "facts": certificate.facts,
            "certain": certificate.certain,
            "limits_missed": len(missed),
            "training_seconds": round(store.training(newest).seconds, 1),
        },
        data_version=dg.DataVersion(newest),
    )
    yield dg.AssetCheckResult(
        check_name="certified",
        passed=certificate.certain == certificate.facts and promoted == newest,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"facts": certificate.facts, "certain": certificate.certain, "missed": ", ".join(missed) or "none"},
    )


def _condition() -> dg.AutomationCondition:  # type: ignore[type-arg]
    condition = dg.AutomationCondition
    never_made = condition.missing() & ~condition.execution_failed()
    trigger: dg.AutomationCondition = never_made | condition.cron_tick_passed(WEEKLY, TIMEZONE) | failed_an_hour_ago()  # type: ignore[type-arg]
    return (trigger.since_last_handled() & ~condition.in_progress()).with_label("never made, a week later, or failed")


def _dead_runs(asset: dg.AssetsDefinition, part: str, switch: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    @dg.sensor(name=f"dead_runs_{part}", target=[asset], minimum_interval_seconds=15, default_status=switch)
    def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        """Marks the runs as failed whose process or machine has died; Dagster's own retries ask for them again."""
        dead = end_dead_runs(context.instance, goes_on=True, on_one_machine=False)
        return dg.SkipReason(
            "; ".join(in_words(context.instance, run) for run in dead) or "every run has a living process"
        )

    return dead_runs
