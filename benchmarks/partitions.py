"""What a deployment of many tenants costs Dagster: its conditions, its pages and its records, on SQLite and on Postgres.

    python -m benchmarks.partitions --write

Nothing is trained: each tenant has a materialisation and a check on record, as a run leaves them.
"""

import json
import os
import re
import statistics
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import dagster as dg
import yaml

from benchmarks.deployment import DOCUMENT
from benchmarks.screenshots import WAIT_MS, browser
from benchmarks.tables import publish
from deploy.loopback import Services, free_port, start_postgres, wait_for, write_settings
from nfl_lora_pipeline.defs.tenants import tenant_definitions
from nfl_lora_pipeline.settings import Settings

ASSET = "tenant_adapter"
TIMES = 5
warnings.filterwarnings("ignore", category=dg.BetaWarning)  # of what Dagster's own tester calls
PARTITIONS = """query($key: [String!]!) { assetNodeOrError(assetKey: {path: $key}) { ... on AssetNode {
  partitionKeysByDimension { name partitionKeys }
  assetPartitionStatuses { ... on DefaultPartitionStatuses {
    materializedPartitions failedPartitions unmaterializedPartitions } }
  assetMaterializations(limit: 50) { runId partition timestamp } } } }"""
RUNS = """{ runsOrError(limit: 25) { ... on Runs { results { runId status pipelineName tags { key value } } } } }"""
CATALOGUE = """{ assetNodes { assetKey { path }
  partitionStats { numMaterialized numPartitions numFailed numMaterializing } } }"""


def _timed(action: Callable[[], object], times: int = TIMES) -> float:
    """The median seconds of an action that is done some times."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _fill(instance: dg.DagsterInstance, names: list[str]) -> float:
    """A materialisation for each partition; the seconds one takes."""
    began = time.perf_counter()
    for name in names:
        instance.report_runless_asset_event(dg.AssetMaterialization(ASSET, partition=name, metadata={"facts": 4}))
    return (time.perf_counter() - began) / len(names)


def _asked(port: int, query: str, **variables: Any) -> None:
    """Ask the webserver as its pages do.

    Raises:
        ValueError: it answers with an error.
    """
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", body, headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        content = json.loads(answer.read())
    if "errors" in content:
        raise ValueError(str(content["errors"])[:500])


def _seen(port: int, names: list[str]) -> list[float]:
    """The median seconds until a browser that has Dagster's scripts already shows what each page is opened for."""
    pages = {
        f"/assets/{ASSET}?view=partitions": re.compile(f"^{names[0]}$"),
        "/assets": re.compile(r"^[\d.,]+k? partitions$", re.IGNORECASE),
    }  # a name that is too long for its column is there twice: in short, and whole but hidden
    seconds = []
    with browser() as opened:
        page = opened.new_context().new_page()
        page.set_default_timeout(WAIT_MS)

        def show(path: str, text: re.Pattern[str]) -> None:
            page.goto("about:blank")
            page.goto(f"http://127.0.0.1:{port}{path}", wait_until="commit")
            page.get_by_text(text).filter(visible=True).first.wait_for()

        for path, text in pages.items():
            show(path, text)
            seconds.append(_timed(partial(show, path, text), 3))
    return seconds


def _row(folder: Path, count: int, *, postgres: bool) -> list[str]:
    """One line of the table."""
    names = [f"league-{number:05d}" for number in range(count)]
    file, home = folder / "tenants.yaml", folder / "home"
    home.mkdir(parents=True)
    file.write_text(yaml.safe_dump({"wide-receivers": False} | dict.fromkeys(names)), encoding="utf-8")
    with ExitStack() as stack:
        services = Services(folder)
        stack.callback(services.end)
        environment = {
            "DAGSTER_HOME": str(home),
            "NFL_LORA_TENANTS": str(file),
            "NFL_LORA_STORE": str(folder / "store"),
        }
        if postgres:
            environment["NFL_LORA_DATABASE"] = start_postgres(folder / "postgres", services)
        write_settings(home, sqlite=not postgres)
        stack.enter_context(patch.dict(os.environ, environment))
        instance = stack.enter_context(dg.DagsterInstance.get())
        began = time.perf_counter()
        definitions = tenant_definitions(Settings.read())
        loaded = time.perf_counter() - began
        missing = _timed(lambda: dg.evaluate_automation_conditions(definitions, instance), 3)
        filled = _fill(instance, names)
        first = dg.evaluate_automation_conditions(definitions, instance)
        later = _timed(lambda: dg.evaluate_automation_conditions(definitions, instance, cursor=first.cursor), 3)
        port = free_port()
        command = [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(port)]
        services.start("webserver", [*command, "-m", "nfl_lora_pipeline.definitions"], os.environ)
        wait_for(lambda: _answers(port), "the webserver")
        pages = [_timed(lambda: _asked(port, PARTITIONS, key=[ASSET]))]
        pages += [_timed(partial(_asked, port, query)) for query in (CATALOGUE, RUNS)]
        seconds = [loaded, missing, later, *pages, *_seen(port, names)]
        return [f"{count:,}", *(f"{value:.2f} s" for value in seconds), f"{1000 * filled:.1f} ms"]


def _answers(port: int) -> bool:
    try:
        _asked(port, "{ version }")
    except OSError:
        return False
    return True


@click.command()
@click.option("--sizes", default="200,2000,10000", show_default=True, help="Tenants, with commas.")
@click.option("--write", is_flag=True, help="Renew the section in docs/deployment.md.")
def main(sizes: str, *, write: bool) -> None:
    """Time Dagster with many partitions, on SQLite and on Postgres."""
    heads = ["tenants", "definitions read", "conditions, none made", "conditions, all made"]
    heads += ["asked by a tenant's asset", "by the catalogue", "by runs"]
    heads += ["in Chromium: a tenant's asset", "the catalogue", "a record written"]
    parts = []
    for postgres in (False, True):
        lines = []
        for size in map(int, sizes.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                Path(folder).chmod(0o755)  # Postgres is another user
                lines.append(_row(Path(folder), size, postgres=postgres))
            click.echo(" | ".join(lines[-1]), err=True)
        table = [heads, ["---"] * len(heads), *lines]
        parts.append(
            f"{'Postgres' if postgres else 'SQLite'}:\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in table)
        )
    body = "\n\n".join(parts)
    packages = ("dagster", "dagster-postgres")
    publish(
        "What many tenants cost Dagster",
        body,
        packages=packages,
        write=write,
        document=DOCUMENT,
        heading="# Deployment\n",
    )


if __name__ == "__main__":
    main()
