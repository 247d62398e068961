"""The part of the schema of Dagster's Helm chart that `deploy/values.yaml` is written in.

Source of the names and types: `helm/dagster/schema` of dagster-io/dagster. What the chart has a value for need not be given.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Values(BaseModel):
    """A part of the values; a name that the schema lacks, and a value of another type, are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ChartImage(Values):
    repository: str
    tag: str | int | None = None
    pullPolicy: Literal["Always", "IfNotPresent", "Never"]


class Switch(Values):
    enabled: bool


class CodeServer(Values):
    name: str
    image: ChartImage
    port: int
    dagsterApiGrpcArgs: list[str] | None = None
    includeConfigInLaunchedRuns: Switch | None = None
    env: dict[str, str] | None = None
    envSecrets: list[dict[str, str]] | None = None
    volumes: list[dict[str, Any]] | None = None
    volumeMounts: list[dict[str, Any]] | None = None


class CodeServers(Values):
    enabled: bool
    enableSubchart: bool
    deployments: list[CodeServer]


class RunK8sConfig(Values):
    containerConfig: dict[str, Any] | None = None


class K8sRunLauncher(Values):
    runK8sConfig: RunK8sConfig | None = None


class RunLauncherConfig(Values):
    k8sRunLauncher: K8sRunLauncher


class RunLauncher(Values):
    type: Literal["K8sRunLauncher"]
    config: RunLauncherConfig


class Queue(Values):
    maxConcurrentRuns: int | None = None


class RunCoordinatorConfig(Values):
    queuedRunCoordinator: Queue


class RunCoordinator(Values):
    enabled: bool
    type: Literal["QueuedRunCoordinator"]
    config: RunCoordinatorConfig


class RunRetries(Values):
    enabled: bool
    maxRetries: int | None = None
    retryOnAssetOrOpFailure: bool | None = None


class RunMonitoring(Values):
    enabled: bool
    pollIntervalSeconds: int | None = None
    startTimeoutSeconds: int | None = None


class Daemon(Values):
    runCoordinator: RunCoordinator
    runRetries: RunRetries
    runMonitoring: RunMonitoring


class Pools(Values):
    granularity: Literal["op", "run"] | None = None
    defaultLimit: int | None = None


class RunLimits(Values):
    maxConcurrentRuns: int | None = None


class Concurrency(Values):
    enabled: bool
    pools: Pools
    runs: RunLimits


class ChartValues(Values):
    """A file of values as a whole."""

    code_servers: CodeServers = Field(alias="dagster-user-deployments")
    runLauncher: RunLauncher
    dagsterDaemon: Daemon
    concurrency: Concurrency
