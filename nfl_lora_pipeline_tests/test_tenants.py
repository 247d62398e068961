"""Tenants: what a file of them may say, and who works on one of them at a time."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.schema import CreateTable

from deploy.loopback import Services, start_postgres
from nfl_lora_pipeline.settings import Settings
from nfl_lora_pipeline.tenants.entries import WIDE_RECEIVERS, read_tenants
from nfl_lora_pipeline.tenants.leases import TABLE, Leases


def tenants_of(folder: Path, text: str):
    file = folder / "tenants.yaml"
    file.write_text(text, encoding="utf-8")
    return {tenant.name: tenant for tenant in read_tenants(file, Settings.read(stats=("targets",)))}


def test_wide_receivers_are_there_without_a_word(tmp_path):
    assert [tenant.name for tenant in read_tenants(None, Settings.read())] == [WIDE_RECEIVERS]
    assert list(tenants_of(tmp_path, "")) == [WIDE_RECEIVERS]
    assert list(tenants_of(tmp_path, "acme: {stats: receptions}")) == ["acme", WIDE_RECEIVERS]
    assert list(tenants_of(tmp_path, "acme:\nwide-receivers: false")) == ["acme"]


def test_an_entry_stands_before_the_deployment_and_paths_are_beside_the_file(tmp_path):
    (tmp_path / "leagues").mkdir()
    found = tenants_of(tmp_path, "acme: {source: folder, data_dir: leagues, stats: [receptions, fantasy_points]}\nb:")
    acme, other = found["acme"], found["b"]
    assert acme.settings.data_dir == str(tmp_path / "leagues")
    assert acme.settings.stats == ("receptions", "fantasy_points")
    assert other.settings.stats == ("targets",)
    assert acme.at(tmp_path / "x").store == str(tmp_path / "x")


def test_what_is_empty_or_comes_along_is_no_path_beside_the_file(tmp_path):
    (tmp_path / "embedded").mkdir()
    found = tenants_of(tmp_path, "acme: {recipe: embedded, base_model: '', data_dir: ''}\nb: {base_model: embedded}")
    assert (found["acme"].settings.recipe, found["b"].settings.base_model) == ("embedded", "embedded")
    assert (found["acme"].settings.base_model, found["acme"].settings.data_dir) == ("", "")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Acme: {}", "'Acme': cannot be a tenant's name; use small letters, digits and hyphens"),
        ("a/b: {}", "cannot be a tenant's name"),
        ("acme: [1]", "acme: expected keys and values, found [1]"),
        ("- acme", "expected a mapping of tenants' names"),
        ("acme: {stat: all}", "acme: stat: no such key; did you mean stats?"),
        ("acme: {stats: yards}", "acme: stat 'yards': use receiving_yards"),
        ("acme: {recipe: embeded}", "acme: recipe 'embeded': no such recipe"),
        ("acme: {season: soon}", "acme: season: 'soon'"),
        ("acme: {weeks: [one]}", "acme: weeks: 'one'"),
        ("acme: false", "acme: false leaves out nobody but wide-receivers"),
        ("acme: {", "no YAML"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path, text, wrong):
    with pytest.raises(ValueError, match=r"tenants\.yaml") as error:
        tenants_of(tmp_path, text)
    assert wrong in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.yaml: no such file"):
        read_tenants(tmp_path / "nowhere.yaml", Settings.read())


@pytest.fixture(scope="module")
def postgres():
    """The address of a database in a cluster of its own."""
    pytest.importorskip("psycopg2", reason="`make deploy-setup` installs it")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # Postgres is another user, where this is root
        services = Services(Path(folder))
        try:
            yield start_postgres(Path(folder) / "postgres", services)
        except ValueError as error:
            pytest.skip(str(error))
        finally:
            services.end()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path) -> str:
    """A database without leases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'leases.db'}"
    address = request.getfixturevalue("postgres")
    with create_engine(address).begin() as connection:
        TABLE.drop(connection, checkfirst=True)
    return address


def test_a_table_that_another_makes_in_the_same_moment_is_there(tmp_path, monkeypatch):
    """Postgres tells one of two that there is such a type already, though the table was to be made where there is none."""
    url = f"sqlite:///{tmp_path / 'leases.db'}"
    Leases(url)
    monkeypatch.setattr("nfl_lora_pipeline.tenants.leases.CreateTable", lambda table, **_: CreateTable(table))
    assert Leases(url).take("acme", "me")


def test_a_lease_is_one_workers_until_it_gives_it_back(url):
    leases = Leases(url)
    first = leases.take("acme", "a")
    assert first and leases.take("acme", "b") is None
    assert leases.holder("acme") == "a"
    assert leases.take("other", "b")
    leases.give_back(first)
    second = leases.take("acme", "b")
    assert second and second.token == first.token + 1


def test_a_lease_runs_out_and_its_old_holder_cannot_renew_it(url):
    leases = Leases(url, seconds=0.2)
    first = leases.take("acme", "a")
    assert first and leases.renew(first)
    time.sleep(0.3)
    second = leases.take("acme", "b")
    assert second
    assert not leases.renew(first)
    leases.give_back(first)
    assert leases.holder("acme") == "b"


HOLDER = """
import sys, time
from nfl_lora_pipeline.tenants.leases import Leases
with Leases(sys.argv[1], seconds=float(sys.argv[2])).held("acme", "first"):
    print("held", flush=True)
    time.sleep(60)
"""


def holding(url: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, url, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_a_worker_that_is_killed_is_waited_for_no_longer_than_its_lease(url):
    process, waited = holding(url, 2), []
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    with Leases(url, seconds=2).held("acme", "second", waited.append):
        assert time.monotonic() - began > 0.5
    assert waited == ["waiting for first, or until its lease runs out"]


def test_a_worker_that_lives_keeps_its_lease_and_one_that_was_held_up_is_asked_to_end(url):
    process, leases = holding(url, 1), Leases(url, seconds=1)
    time.sleep(1.5)
    assert leases.take("acme", "second") is None, "a living worker renews it"
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(1.5)
    assert leases.take("acme", "second")
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(10) == -signal.SIGTERM


def _race(url: str, number: int, gate, found) -> None:
    leases = Leases(url)
    gate.wait()
    found.put((number, leases.take("acme", str(number)) is not None))


def test_of_many_workers_one_has_the_lease(url):
    context = multiprocessing.get_context("spawn")
    gate, found = context.Barrier(6), context.Queue()
    Leases(url)
    workers = [context.Process(target=_race, args=(url, number, gate, found)) for number in range(6)]
    for worker in workers:
        worker.start()
    results = [found.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(taken for _, taken in results) == 1


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("mysql://x/y", "database mysql: use postgresql://"),
        ("nonsense", "database nonsense"),
        ("sqlite:////no/such/folder/x.db", "unable to open database file"),
        ("postgresql://me:secret@127.0.0.1:9/x", "127.0.0.1"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(url, wrong):
    if url.startswith("postgresql"):
        pytest.importorskip("psycopg2")
    with pytest.raises(ValueError, match="database") as error:
        Leases(url)
    assert wrong in str(error.value)
    assert "secret" not in str(error.value)
