"""What is promised of a deployment, held against one on loopback: tenants trained while its processes are killed.

    make deploy-test                                # six small tenants
    python -m benchmarks.deployment FOLDER --tenants 200  # more of them; `--write` puts the table into docs/deployment.md

Every tenant has four invented people of his own, the first one sixty. In the middle processes of runs, code servers and the
daemon are killed (SIGKILL), the first tenant's run when it has a checkpoint. In the end every tenant's archive is read anew.
"""

import json
import os
import random
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import click
import dagster as dg
import yaml
from sqlalchemy import create_engine, text

from benchmarks.tables import median_and_range, publish
from deploy.loopback import HERE, SERVERS, Loopback, running
from nfl_lora_pipeline.defs.leases import PROCESS_TAG, UNFINISHED
from nfl_lora_pipeline.defs.tenants import SERVER_TAG
from nfl_lora_pipeline.interrupts import heard
from nfl_lora_pipeline.processes import Process
from nfl_lora_pipeline.recipes.recipe import LIMITS, load_recipe
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import CertificateRecord, read_json
from nfl_lora_pipeline.tenants.archive import Archive
from nfl_lora_pipeline.weeks.sources.folder import SAMPLE_FOLDER

DOCUMENT = HERE.parent / "docs" / "deployment.md"
PEOPLE, MANY_PEOPLE = 4, 60
FIRST = "league-000"
WENT_ON = "going on from iteration"
ADVISORY = [key for key in LIMITS if key not in ("min_recall", "max_lost", "max_perplexity_ratio")]
LOOK_SECONDS = 1.0
SECONDS_A_TENANT = 300.0  # before it is given up


def write_tenants(folder: Path, count: int, seed: int) -> Path:
    """So many tenants, each with a week of some of the sample's invented people with numbers of their own; the file of them."""
    source = json.loads((SAMPLE_FOLDER / "2025" / "1" / "WR.json").read_bytes())
    drawn = random.Random(seed)
    entries: dict[str, object] = {"wide-receivers": False}
    for number in range(count):
        name = f"league-{number:03d}"
        week = folder / "leagues" / name / "2025" / "1" / "WR.json"
        week.parent.mkdir(parents=True)
        people = [
            entry | {"ReceivingYDS": str(drawn.randint(1, 199))} for entry in drawn.sample(source, people_of(name))
        ]
        week.write_text(json.dumps(people), encoding="utf-8")
        entries[name] = {
            "source": "folder",
            "data_dir": f"leagues/{name}",
            "weeks": ["2025-W01"],
            "recipe": "quick.yaml",
        }
    quick = {
        "batch_rows": 8,
        "max_epochs": 30,
        "ending_steps": 24,
        "fresh_known": 0.0,
        "advisory": ADVISORY,
        "floors": {},
    }
    recipe = load_recipe("embedded").changed(**quick).model_dump()
    (folder / "quick.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    file = folder / "tenants.yaml"
    file.write_text(yaml.safe_dump(entries), encoding="utf-8")
    return file


def people_of(name: str) -> int:
    """How many people a tenant's week has."""
    return MANY_PEOPLE if name == FIRST else PEOPLE


@dataclass
class Campaign:
    """A deployment, what was killed in it, and what its records say."""

    deployment: Loopback
    instance: dg.DagsterInstance
    kills: list[str] = field(default_factory=list)
    restarts: Counter[str] = field(default_factory=Counter)

    def runs_under_way(self) -> list[dg.DagsterRun]:
        """Runs whose process is known."""
        runs = self.instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
        return [run for run in runs if PROCESS_TAG in run.tags]

    def kill_a_worker(self) -> bool:
        """Kill the process of a run that has come as far as its training; not the first tenant's."""
        return any(
            self._killed(run, "whose training began")
            for run in self.runs_under_way()
            if run.tags["dagster/partition"] != FIRST
            and any("adapter:" in event.user_message for event in self.instance.all_logs(run.run_id))
        )

    def kill_the_first(self) -> bool:
        """Kill the process of the first tenant's run, once another machine could go on from its checkpoint."""
        if not Archive.at(f"{self.deployment.environment['NFL_LORA_ARCHIVE']}/{FIRST}").checkpoints():
            return False
        return any(
            self._killed(run, "whose training has a checkpoint")
            for run in self.runs_under_way()
            if run.tags["dagster/partition"] == FIRST
        )

    def _killed(self, run: dg.DagsterRun, which: str) -> bool:
        os.kill(Process.from_json(json.loads(run.tags[PROCESS_TAG])).pid, signal.SIGKILL)
        self.kills.append(f"the process of {run.tags['dagster/partition']}'s run, {which}")
        return True

    def went_on(self) -> str:
        """What the first tenant's last run says of where its training began; empty where it began anew."""
        runs = self.instance.get_runs(dg.RunsFilter(tags={"dagster/partition": FIRST}))
        lines = [event.user_message for run in runs for event in self.instance.all_logs(run.run_id)]
        return next((line.removeprefix("adapter: ") for line in lines if WENT_ON in line), "")

    def kill_a_service(self, name: str) -> bool:
        """Kill one of the deployment's processes."""
        os.kill(self.deployment.services.pids[name], signal.SIGKILL)
        self.kills.append(name)
        return True

    def made(self) -> set[str]:
        """The tenants that are up to date by the deployment's records."""
        keys = [key for key in self.instance.all_asset_keys() if key.path[-1].startswith("tenant_adapter")]
        return {name for key in keys for name in self.instance.get_materialized_partitions(key)}

    def run_until_made(self, names: set[str], say: Callable[[str], None]) -> float:
        """Kill what is due at each share of the way, and wait for all; the seconds that took."""
        began, made = time.monotonic(), set[str]()
        due = [
            (0.0, self.kill_a_worker),
            (0.0, self.kill_the_first),
            (0.25, lambda: self.kill_a_service("code-1")),
            (0.4, lambda: self.kill_a_service("daemon")),
            (0.5, self.kill_a_worker),
            (0.6, lambda: self.kill_a_service("code-0")),
        ]
        while made != names:
            if time.monotonic() - began > SECONDS_A_TENANT * len(names):
                raise SystemExit(f"not made in time: {', '.join(sorted(names - made))}")
            for share, kill in list(due):
                if len(made) >= share * len(names) and kill():
                    say(f"killed: {self.kills[-1]}")
                    due.remove((share, kill))
            self.restarts.update(self.deployment.services.look())
            if (now := self.made()) != made:
                made = now
                say(f"{len(made)} of {len(names)} tenants after {time.monotonic() - began:,.0f} s")
            time.sleep(LOOK_SECONDS)
        return time.monotonic() - began


@dataclass
class Found:
    """What the archives hold in the end."""

    certified: int = 0
    versions: int = 0
    wrong_versions: int = 0
    trainings: int = 0
    adapters: int = 0


def examine(deployment: Loopback, names: set[str]) -> Found:
    """Read every tenant's archive anew, into a folder of its own."""
    found = Found()
    root = deployment.environment["NFL_LORA_ARCHIVE"]
    with tempfile.TemporaryDirectory() as place:
        for name in sorted(names):
            archive, store = Archive.at(f"{root}/{name}"), Store(Path(place) / name)
            newest = archive.fetch(store.root)
            manifests = [archive.manifest(number) for number in range(1, newest + 1)]
            found.versions += newest
            found.wrong_versions += sum(each.before != each.number - 1 for each in manifests)
            found.wrong_versions += manifests[-1].promoted != store.promoted()
            promoted = store.promoted()
            if promoted is not None:
                file = store.adapter(promoted) / "certificate.json"
                certificate = read_json(file, CertificateRecord, mend="")
                store.check_adapter(promoted)
                found.certified += certificate.certain == certificate.facts == people_of(name)
            found.adapters += len(store.adapters())
            found.trainings += _trained_to_the_end(store)
    return found


def _trained_to_the_end(store: Store) -> int:
    """How often a tenant's own record of runs says that an adapter was trained, and not reused."""
    with dg.DagsterInstance.from_config(str(store.dagster)) as instance:
        records = instance.fetch_materializations(dg.AssetKey("adapter"), limit=1_000).records
        made = [record.asset_materialization for record in records]
        return sum(not one.metadata["reused"].value for one in made if one)


def _costs(deployment: Loopback, runs: int) -> dict[str, str]:
    """What a run leaves in the database, and asks of object storage, where there is one of these."""
    costs = {}
    if database := deployment.environment.get("NFL_LORA_DATABASE"):
        engine = create_engine(database)
        with engine.connect() as connection:
            rows = connection.execute(text("select count(*) from event_logs")).scalar_one()
        engine.dispose()
        costs["rows in the database's log of events"] = f"{rows:,}, {rows / runs:,.0f} a run"
    log = deployment.services.logs / "s3.log"
    if log.is_file():
        lines = log.read_text(encoding="utf-8").splitlines()
        watched = f"/{FIRST}/checkpoints"  # what this campaign asks all the time
        asked = Counter(
            found[1] for line in lines if watched not in line and (found := re.search(r'"([A-Z]+) /', line))
        )
        each = ", ".join(f"{count / runs:,.0f} {method}" for method, count in asked.most_common())
        costs["requests to object storage"] = f"{asked.total():,}; a run: {each}"
    return costs


def _pauses(instance: dg.DagsterInstance) -> list[float]:
    """The seconds from the end of each run to the start of the next one on the same code server."""
    pauses = []
    for server in map(str, range(SERVERS)):
        records = instance.get_run_records(dg.RunsFilter(tags={SERVER_TAG: server}))
        spans = sorted((each.start_time, each.end_time) for each in records if each.start_time and each.end_time)
        pauses += [later[0] - earlier[1] for earlier, later in pairwise(spans)]
    return pauses


def _table(campaign: Campaign, found: Found, count: int, seconds: float, costs: dict[str, str]) -> str:
    statuses = Counter(run.status.value.lower() for run in campaign.instance.get_runs())
    rows = {
        "tenants": f"{count}",
        "certified and promoted": f"{found.certified}",
        "time": f"{seconds:,.0f} s, {seconds / count:,.1f} s a tenant",
        "killed": "; ".join(campaign.kills),
        f"the training of {FIRST} after it was killed": campaign.went_on() or "began anew",
        "started anew by the supervisor": ", ".join(f"{name} {times}" for name, times in campaign.restarts.items()),
        "runs": ", ".join(f"{number} {status}" for status, number in sorted(statuses.items())),
        "trainings that came to their end": f"{found.trainings}",
        "adapters": f"{found.adapters}",
        "versions published": f"{found.versions}",
        "versions that do not follow the one before, or promote another adapter": f"{found.wrong_versions}",
        "from a run's end to the start of the next on its code server": median_and_range(
            _pauses(campaign.instance), "s", 0
        ),
        **costs,
    }
    return "\n".join(["| | |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in rows.items())])


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--tenants", "count", default=6, show_default=True)
@click.option("--seed", default=17, show_default=True)
@click.option("--s3", is_flag=True, help="Tenants' stores in a bucket on loopback instead of a folder.")
@click.option("--sqlite", is_flag=True, help="Records and leases in SQLite instead of Postgres.")
@click.option("--write", is_flag=True, help="Renew the section in docs/deployment.md.")
def main(folder: Path, count: int, seed: int, *, s3: bool, sqlite: bool, write: bool) -> None:
    """Train COUNT tenants in a deployment on loopback, kill processes of it meanwhile, and count what came of it."""
    if folder.exists():
        raise click.UsageError(f"{folder} is there already; name a new folder")
    folder.mkdir(parents=True)
    file = write_tenants(folder, count, seed)
    names = {path.name for path in (folder / "leagues").iterdir()}
    with (
        heard(),
        running(folder / "deployment", file, watch=True, s3=s3, sqlite=sqlite) as deployment,
        patch.dict(os.environ, deployment.environment),
        dg.DagsterInstance.get() as instance,
    ):
        campaign = Campaign(deployment, instance)
        seconds = campaign.run_until_made(names, lambda line: click.echo(line, err=True))
        costs = _costs(deployment, len(instance.get_runs()))
        found = examine(deployment, names)
        body = _table(campaign, found, count, seconds, costs)
    storage = "SQLite" if sqlite else "Postgres"
    title = f"{count} tenants, two code servers, {storage}, {'S3 on loopback' if s3 else 'a folder'}, and kills"
    packages = ("dagster", "dagster-postgres", "mlx", "mlx-lm")
    part = "sqlite" if sqlite else "s3" if s3 else "folder"
    publish(title, body, packages=packages, write=write, part=part, document=DOCUMENT, heading="# Deployment\n")
    if found.certified != count or found.wrong_versions or found.trainings != count:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
