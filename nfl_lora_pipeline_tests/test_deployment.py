"""A deployment of many tenants: what a run does with one of them, and that every way to start it says the same."""

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner
from dagster._core.events import EngineEventData  # what Dagster itself logs of a process that it starts
from dagster._core.instance.config import validate_concurrency_config  # Dagster calls it when it loads an instance
from pydantic import ValidationError

from deploy import loopback
from deploy.loopback import wait_for
from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.definitions import defs
from nfl_lora_pipeline.defs.leases import PROCESS_TAG
from nfl_lora_pipeline.defs.tenants import (
    KEPT_VERSIONS,
    SERVER_TAG,
    Sometimes,
    Workplace,
    share_of,
    tenant_definitions,
    work_on,
)
from nfl_lora_pipeline.defs.update import Order
from nfl_lora_pipeline.files import locked
from nfl_lora_pipeline.interrupts import Interrupted
from nfl_lora_pipeline.processes import Process, exists
from nfl_lora_pipeline.settings import Settings
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.tenants.archive import Archive, Conflict
from nfl_lora_pipeline.tenants.entries import Tenant, read_tenants
from nfl_lora_pipeline.weeks.sources.github import UPSTREAM_URL
from nfl_lora_pipeline_tests.chart import ChartValues

DEPLOY = Path(__file__).parent.parent / "deploy"


@pytest.fixture
def acme(tmp_path, tiny_week_folder, tiny_recipe) -> Settings:
    """A deployment whose only tenant is taught the tiny week."""
    entry = {"source": "folder", "data_dir": str(tiny_week_folder), "recipe": tiny_recipe}
    file = tmp_path / "tenants.yaml"
    file.write_text(yaml.safe_dump({"acme": entry, "wide-receivers": False}), encoding="utf-8")
    return Settings.read(store=str(tmp_path / "deployment"), tenants=str(file))


@pytest.fixture
def taught(acme, trained_store) -> Settings:
    """The same, where somebody has trained that tenant already and published it."""
    copy = Path(acme.store) / "elsewhere"
    shutil.copytree(trained_store.store.root, copy, symlinks=True)
    Workplace.of(acme).archive_of("acme").publish(copy, after=0, by="somebody else", token="0")
    return acme


def test_a_run_goes_on_from_the_newest_version_and_publishes_the_next(taught, trained_store):
    definitions = tenant_definitions(taught)
    with dg.DagsterInstance.ephemeral() as instance:
        (asset,) = definitions.assets or ()
        result = dg.materialize([asset], partition_key="acme", instance=instance)
        made = result.asset_materializations_for_node("tenant_adapter")[0].metadata
        (check,) = result.get_asset_check_evaluations()
    assert made["adapter"].value == made["promoted"].value == trained_store.store.latest(), "nothing is trained again"
    assert (made["version"].value, made["facts"].value, made["certain"].value) == (2, 11, 11)
    assert check.passed
    manifest = Workplace.of(taught).archive_of("acme").manifest(2)
    assert (manifest.before, manifest.token, manifest.promoted) == (1, "1", trained_store.store.latest())


def test_whoever_was_overtaken_publishes_nothing(taught, monkeypatch):
    """A worker that was held up, and whose lease ran out, comes back after another has published."""
    place = Workplace.of(taught)
    (tenant,) = read_tenants(Path(taught.tenants), taught)

    def overtaken(_tenant: Tenant, store: Store, *_: object) -> list[object]:
        place.archive_of("acme").publish(store.root, after=1, by="another worker", token="2")
        return []

    monkeypatch.setattr("nfl_lora_pipeline.defs.tenants._update", overtaken)
    with pytest.raises(Conflict, match="another worker has published version 2"):
        work_on(tenant, place, lambda *_: None)
    assert place.archive_of("acme").newest() == 2
    assert place.leases.holder("acme") == "", "and the lease is given back"


def test_an_interrupted_training_is_gone_on_with_on_another_machine(taught, monkeypatch):
    place = Workplace.of(taught)
    (tenant,) = read_tenants(Path(taught.tenants), taught)

    def interrupted(_tenant: Tenant, store: Store, *_: object) -> list[object]:
        store.unfinished("0123456789abcdef").mkdir(parents=True)
        (store.unfinished("0123456789abcdef") / "checkpoint.safetensors").write_bytes(b"as far as it came")
        raise Interrupted

    monkeypatch.setattr("nfl_lora_pipeline.defs.tenants._update", interrupted)
    with pytest.raises(Interrupted):
        work_on(tenant, place, lambda *_: None)
    elsewhere = Store(Path(taught.store) / "another machine")
    assert place.archive_of("acme").fetch(elsewhere.root) == 1
    assert (elsewhere.all_unfinished()[0] / "checkpoint.safetensors").read_bytes() == b"as far as it came"


def test_a_step_that_fails_fails_the_run_and_what_there_is_is_published(acme, tiny_week_folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = {"acme": {"source": "folder", "data_dir": str(empty), "weeks": ["2025-W01"]}, "wide-receivers": False}
    Path(acme.tenants).write_text(yaml.safe_dump(broken), encoding="utf-8")
    (asset,) = tenant_definitions(acme).assets or ()
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.Failure, match="2025-W01"):
        dg.materialize([asset], partition_key="acme", instance=instance)
    assert Workplace.of(acme).archive_of("acme").newest() == 1


def test_a_tenants_own_upstream_is_asked_and_dagster_is_not_told_of_it(acme, monkeypatch):
    entry = {"base_url": "http://u:secret@127.0.0.1:9/x", "source": "github", "weeks": ["2025-W01"]}
    Path(acme.tenants).write_text(yaml.safe_dump({"acme": entry, "wide-receivers": False}), encoding="utf-8")
    orders: list[tuple[str, Order]] = []

    def asked(order: Order, *_: object) -> SimpleNamespace:
        orders.append((order.resources.week_source.address, order))
        return SimpleNamespace(failures=[])

    monkeypatch.setattr("nfl_lora_pipeline.defs.tenants.update", asked)
    (tenant,) = read_tenants(Path(acme.tenants), acme)
    work_on(tenant, Workplace.of(acme), lambda *_: None)
    ((address, order),) = orders
    assert address == entry["base_url"]
    assert "secret" not in str(order.resources.week_source.model_dump())
    assert order.resources.week_source.address == UPSTREAM_URL, "for whoever comes after him in the same process"


def test_a_tenant_without_a_week_is_told_where_none_was(acme, tmp_path):
    (tmp_path / "empty").mkdir()
    nobody = {"acme": {"source": "folder", "data_dir": "empty"}, "wide-receivers": False}
    Path(acme.tenants).write_text(yaml.safe_dump(nobody), encoding="utf-8")
    (asset,) = tenant_definitions(acme).assets or ()
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.Failure, match=f"teach acme in {tmp_path}/empty"):
        dg.materialize([asset], partition_key="acme", instance=instance)
    done = CliRunner().invoke(main, ["tenants", "run", "acme", *options_of(acme)])
    assert done.exit_code == 3
    assert "acme: season" in done.stderr


def test_workers_of_a_code_server_take_turns_and_keep_checkpoints_and_tidy(taught, monkeypatch):
    place = Workplace.of(taught)
    (tenant,) = read_tenants(Path(taught.tenants), taught)
    archive, tidied = place.archive_of("acme"), list[int]()

    def training(_tenant: Tenant, store: Store, *_: object) -> list[object]:
        with locked(place.turn, wait=False) as is_free:
            assert not is_free, "another worker has to wait"
        store.unfinished("0123456789abcdef").mkdir(parents=True)
        (store.unfinished("0123456789abcdef") / "checkpoint.safetensors").write_bytes(b"as far as it came")
        wait_for(lambda: bool(archive.checkpoints()), "a checkpoint in the archive", 60.0)
        return []

    monkeypatch.setattr("nfl_lora_pipeline.defs.tenants._update", training)
    monkeypatch.setattr("nfl_lora_pipeline.defs.tenants.CHECKPOINT_SECONDS", 0.05)
    monkeypatch.setattr("nfl_lora_pipeline.defs.tenants.TIDY_EVERY", 2)
    monkeypatch.setattr(Archive, "tidy", lambda _, keep: tidied.append(keep))
    assert work_on(tenant, place, lambda *_: None).version == 2
    assert tidied == [KEPT_VERSIONS]


def test_one_tenant_that_cannot_be_worked_on_keeps_nobody_else_from_it(taught, monkeypatch):
    entries = yaml.safe_load(Path(taught.tenants).read_text(encoding="utf-8"))
    Path(taught.tenants).write_text(yaml.safe_dump(entries | {"abba": entries["acme"]}), encoding="utf-8")

    def work(tenant: Tenant, *_: object) -> SimpleNamespace:
        if tenant.name == "abba":
            raise Conflict("abba: somebody else has published")
        return SimpleNamespace(failures=[], version=7, store=SimpleNamespace(promoted=lambda: "a1b2"))

    monkeypatch.setattr("nfl_lora_pipeline.defs.tenants.work_on", work)
    done = CliRunner().invoke(main, ["tenants", "run", *options_of(taught)])
    assert (done.exit_code, done.stdout) == (3, "acme: version 7, a1b2 promoted\n")
    assert done.stderr == "abba: abba: somebody else has published\n"


def test_a_deployment_on_loopback_has_its_own_archive_and_database_whatever_the_shell_has(tmp_path, monkeypatch):
    monkeypatch.setenv("NFL_LORA_ARCHIVE", "s3://production/tenants")
    monkeypatch.setenv("NFL_LORA_DATABASE", "postgresql://production/nfl_lora")
    given = loopback._environment(tmp_path, tmp_path / "dagster", tmp_path / "tenants.yaml", watch=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    place = Workplace.of(Settings.read())
    assert place.archive == f"{tmp_path}/store/archive"
    assert (tmp_path / "store" / "leases.db").is_file()


def test_object_storage_that_has_forgotten_everything_is_not_started_anew(tmp_path):
    services = loopback.Services(tmp_path)
    services.start("s3", ["true"], {})
    wait_for(lambda: not exists(services.pids["s3"]) or bool(services._together.ended()), "its end", 30.0)
    with pytest.raises(ValueError, match="s3 has ended, and what it held is lost"):
        services.look()
    services.end()


def test_the_sensor_ends_a_run_by_its_own_tag_and_not_by_a_number_of_another_machine(acme):
    @dg.job
    def nothing() -> None: ...

    gone = Process.this().to_json() | {"pid": 2**22}
    (sensor,) = [each for each in tenant_definitions(acme).sensors or () if each.name == "dead_runs_0"]
    with dg.DagsterInstance.ephemeral() as instance:
        starting = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTING)
        named = EngineEventData(metadata={"pid": dg.MetadataValue.text(str(gone["pid"]))})
        instance.report_engine_event("Started process for run.", starting, named)
        tags = {PROCESS_TAG: json.dumps(gone)}
        killed = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED, tags=tags)
        assert "has ended: marked as failed" in str(sensor(dg.build_sensor_context(instance=instance)))
        statuses = [instance.get_run_by_id(run.run_id).status for run in (starting, killed)]
    assert statuses == [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.FAILURE]


def test_every_tenant_has_one_code_server():
    tenants = [Tenant(f"league-{number}", Settings.read()) for number in range(50)]
    shares = [share_of(tenants, f"{number}/3") for number in range(3)]
    assert sorted(tenant.name for share in shares for tenant in share) == sorted(tenant.name for tenant in tenants)
    assert all(shares)
    for wrong in ("", "1", "2/2", "a/2", "-1/2"):
        with pytest.raises(ValueError, match="NFL_LORA_SHARE"):
            share_of(tenants, wrong)


def test_definitions_are_those_of_tenants_where_there_is_a_file_of_them(acme, monkeypatch):
    for name, value in acme.to_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NFL_LORA_SHARE", "0/1")
    repository = defs().get_repository_def()
    assert [key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()] == ["tenant_adapter"]
    assert {sensor.name for sensor in repository.sensor_defs} == {"automation_0", "dead_runs_0"}


def test_runs_are_limited_to_one_a_code_server_and_watching_is_switched_on_by_the_settings(acme):
    for watch, status in ((False, dg.DefaultSensorStatus.STOPPED), (True, dg.DefaultSensorStatus.RUNNING)):
        definitions = tenant_definitions(acme.model_copy(update={"share": "0/1", "watch": watch}))
        (asset,) = definitions.assets or ()
        assert isinstance(asset, dg.AssetsDefinition)
        assert asset.op.pool == "training"
        sensors = {sensor.name: sensor for sensor in definitions.sensors or ()}
        assert {sensor.default_status for sensor in sensors.values()} == {status}
        conditions = sensors["automation_0"]
        assert isinstance(conditions, dg.AutomationConditionSensorDefinition)
        assert conditions.run_tags == {SERVER_TAG: "0"}
    settings = yaml.safe_load((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))
    (limit,) = settings["concurrency"]["runs"]["tag_concurrency_limits"]
    assert (limit["key"], limit["limit"], limit["value"]) == (SERVER_TAG, 1, {"applyLimitPerUniqueValue": True})
    assert settings["run_retries"]["enabled"] and settings["run_monitoring"]["max_runtime_seconds"]
    assert settings["run_coordinator"]["config"]["max_user_code_failure_retries"]


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")  # of what Dagster's own tester calls
def test_who_was_made_is_asked_for_again_on_wednesday_of_the_season(acme):
    definitions, cursor, asked = tenant_definitions(acme), None, []
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("tenant_adapter", partition="acme"))
        for day in (1, 1, 2, 2, 3):  # of December 2026, of which the second is a Wednesday
            now = datetime(2026, 12, day, 18, tzinfo=UTC)
            found = dg.evaluate_automation_conditions(definitions, instance, cursor=cursor, evaluation_time=now)
            cursor = found.cursor
            asked.append(found.total_requested)
    assert asked == [0, 0, 1, 0, 0]


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")  # of what Dagster's own tester calls
def test_the_conditions_ask_for_who_was_never_made(acme):
    """The first look at an asset takes everything as handled; whoever is asked for is under way before the third."""
    definitions, cursor, asked = tenant_definitions(acme), None, []
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            found = dg.evaluate_automation_conditions(definitions, instance, cursor=cursor)
            cursor = found.cursor
            asked.append(found.total_requested)
    assert asked == [0, 1]


def test_a_deployments_record_gets_a_line_of_a_step_now_and_then():
    told: list[str] = []
    listener = Sometimes(lambda step, line, share: told.append(line))
    for number in range(100):
        listener("adapter", f"iteration {number}", number / 100)
    listener("adapter", "all certain", 1.0)
    listener("storage", "version 1 is published", None)
    assert told == ["iteration 0", "iteration 1", "all certain", "version 1 is published"]


def options_of(settings: Settings) -> list[str]:
    return ["--tenants", settings.tenants, "--store", settings.store]


def test_the_command_line_lists_and_copies_tenants(taught, trained_store, tmp_path):
    listed = CliRunner().invoke(main, ["tenants", "list", *options_of(taught)])
    assert re.fullmatch(rf"acme +version 1, {trained_store.store.latest()} promoted\n", listed.stdout)
    fetched = CliRunner().invoke(main, ["tenants", "fetch", str(tmp_path / "copies"), *options_of(taught)])
    assert "version 1" in fetched.stdout
    assert Store(tmp_path / "copies" / "acme").promoted() == trained_store.store.latest()
    wrong = CliRunner().invoke(main, ["tenants", "run", "acmee", *options_of(taught)])
    assert (wrong.exit_code, wrong.stderr) == (1, "Error: tenant 'acmee': no such tenant; use acme\n")


def test_the_command_line_brings_a_tenant_up_to_date_without_dagsters_services(taught):
    done = CliRunner().invoke(main, ["tenants", "run", "acme", *options_of(taught)])
    assert done.exit_code == 0, done.output
    assert "acme: version 2" in done.stdout
    assert Archive.at(Path(taught.store) / "archive" / "acme").newest() == 2


def names_in(text: str) -> set[str]:
    return set(re.findall(r"NFL_LORA_[A-Z0-9_]+", text))


def test_every_way_to_start_it_sets_what_the_code_reads():
    read = {f"NFL_LORA_{name.upper()}" for name in Settings.model_fields}
    hosts = {f"NFL_LORA_CODE_{number}_{what}" for number in (0, 1) for what in ("HOST", "PORT")}
    for name in ("docker-compose.yaml", "values.yaml", "Dockerfile", "dagster.yaml", "workspace.yaml"):
        assert names_in((DEPLOY / name).read_text(encoding="utf-8")) <= read | hosts, name
    wanted = {"NFL_LORA_TENANTS", "NFL_LORA_DATABASE", "NFL_LORA_ARCHIVE", "NFL_LORA_WATCH", "NFL_LORA_SHARE"}
    for name in ("docker-compose.yaml", "values.yaml", "loopback.py"):
        assert wanted <= names_in((DEPLOY / name).read_text(encoding="utf-8")), name
    assert hosts == names_in((DEPLOY / "workspace.yaml").read_text(encoding="utf-8"))


def test_compose_accepts_its_file():
    compose = shutil.which("docker-compose")
    if compose is None:
        pytest.skip("no docker-compose on this machine: `apt-get install docker-compose`")
    environment = {"POSTGRES_PASSWORD": "x", "NFL_LORA_ARCHIVE": "s3://bucket/prefix", "PATH": "/usr/bin:/bin"}
    command = [compose, "-f", str(DEPLOY / "docker-compose.yaml"), "config"]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert found.returncode == 0, found.stderr
    services = yaml.safe_load(found.stdout)["services"]
    assert {services[f"code-{number}"]["environment"]["NFL_LORA_SHARE"] for number in (0, 1)} == {"0/2", "1/2"}


def test_the_values_are_such_as_dagsters_chart_takes():
    content = yaml.safe_load((DEPLOY / "values.yaml").read_text(encoding="utf-8"))
    values = ChartValues.model_validate(content)
    shares = [(one.env or {})["NFL_LORA_SHARE"] for one in values.code_servers.deployments]
    assert shares == ["0/2", "1/2"]
    mounted = {mount["name"] for one in values.code_servers.deployments for mount in one.volumeMounts or ()}
    assert mounted == {volume["name"] for one in values.code_servers.deployments for volume in one.volumes or ()}
    limits, queue = values.concurrency, values.dagsterDaemon.runCoordinator.config.queuedRunCoordinator
    made = {
        "run_coordinator": {
            "class": "QueuedRunCoordinator",
            "config": {"max_concurrent_runs": queue.maxConcurrentRuns},
        },
        "concurrency": {
            "pools": {"granularity": limits.pools.granularity, "default_limit": limits.pools.defaultLimit},
            "runs": {"max_concurrent_runs": limits.runs.maxConcurrentRuns},
        },
    }  # as the chart's templates write them
    validate_concurrency_config(made)
    dagster = yaml.safe_load((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))["concurrency"]
    assert made["concurrency"]["pools"] == dagster["pools"]
    assert limits.runs.maxConcurrentRuns == dagster["runs"]["max_concurrent_runs"]
    for section, key in ((content["dagsterDaemon"], "runRetry"), (content["runLauncher"]["config"], "k8sLauncher")):
        section[key] = {}
        with pytest.raises(ValidationError, match=key):
            ChartValues.model_validate(content)
        del section[key]


def test_the_tenants_that_are_shown_can_be_read(monkeypatch):
    names = [tenant.name for tenant in read_tenants(DEPLOY / "tenants.yaml", Settings.read())]
    assert names == ["quarterbacks", "running-backs", "tight-ends", "wide-receivers"]
