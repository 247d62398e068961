"""How long definitions, a tick of the conditions and the UI's queries take with many weeks. Prints medians in seconds.

python -m benchmarks.many_weeks --weeks 110
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import dagster as dg
import requests

from deploy.loopback import free_port
from nfl_lora_pipeline.definitions import build_definitions
from nfl_lora_pipeline.defs.common import nfl_week
from nfl_lora_pipeline.defs.instance import dagster_home
from nfl_lora_pipeline.settings import Settings
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.week import NflWeek

LOAD = "from nfl_lora_pipeline.definitions import defs; defs()"
# What the page of a partitioned asset asks for.
PARTITIONS = """{ assetNodes(assetKeys: [{path: ["qa_pairs"]}]) { partitionKeys staleStatus
    partitionStats { numPartitions numMaterialized } assetPartitionStatuses {
      ... on DefaultPartitionStatuses { materializedPartitions failedPartitions unmaterializedPartitions } } } }"""
# What the graph asks for.
GRAPH = """{ assetNodes { assetKey { path } staleStatus staleCauses { reason } dependencyKeys { path }
    assetMaterializations(limit: 1) { timestamp } partitionStats { numMaterialized numPartitions } } }"""


def median(what: str, action: Callable[[], Any], times: int = 5) -> None:
    """Print the median of some runs."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    click.echo(f"{what}: {statistics.median(seconds):.2f} s (of {times}; {min(seconds):.2f} to {max(seconds):.2f})")


def fill(instance: dg.DagsterInstance, weeks: list[str]) -> None:
    """As if all weeks had been materialised."""
    instance.add_dynamic_partitions(str(nfl_week.name), weeks)
    for name in ("raw_wr_json", "players", "qa_pairs"):
        for week in weeks:
            tags = {"dagster/data_version": f"{name}-{week}"}
            instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=week, tags=tags))


def webserver_queries(home: Path) -> None:
    """Time the UI's queries on a webserver of its own."""
    port = free_port()
    command = [sys.executable, "-m", "dagster_webserver", "-m", "nfl_lora_pipeline.definitions", "-p", str(port)]
    server = subprocess.Popen(
        command, env=os.environ | {"DAGSTER_HOME": str(home)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"

    def ask(query: str) -> None:
        answer = requests.post(f"{address}/graphql", json={"query": query}, timeout=120).json()
        assert "errors" not in answer, answer

    try:
        while True:
            try:
                requests.get(f"{address}/server_info", timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.5)
        median("page of a partitioned asset", lambda: ask(PARTITIONS))
        median("asset graph", lambda: ask(GRAPH))
    finally:
        server.terminate()
        server.wait()


@click.command()
@click.option("--weeks", "count", default=110)
def main(count: int) -> None:
    """Print the medians."""
    keys = [str(NflWeek(2019 + number // 18, 1 + number % 18)) for number in range(count)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    median(
        "definitions, in a fresh process",
        lambda: subprocess.run([sys.executable, "-c", LOAD], env=environment, check=True),
    )
    with tempfile.TemporaryDirectory() as folder:
        home = dagster_home(Store(Path(folder)))
        with dg.DagsterInstance.from_config(str(home)) as instance:
            fill(instance, keys)
            cursor: list[Any] = [None]
            defs = build_definitions(Settings.read())

            def tick() -> None:
                found = dg.evaluate_automation_conditions(
                    defs, instance, cursor=cursor[0], evaluation_time=datetime.now()
                )
                cursor[0] = found.cursor

            median(f"a tick of the conditions, {count} weeks", tick)
        webserver_queries(home)


if __name__ == "__main__":
    main()
