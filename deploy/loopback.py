"""The deployment of this folder as processes of one machine, with the very same configuration and no container.

    python -m deploy.loopback FOLDER --tenants tenants.yaml

starts Postgres (Debian's, its own cluster in FOLDER), two code servers, webserver and daemon, starts anew what dies, and ends
all of it at a Ctrl-C. With `--s3` the stores of tenants lie in a bucket of a server that speaks S3 (moto), else in FOLDER.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import click
import yaml

from nfl_lora_pipeline.interrupts import Interrupted, heard
from nfl_lora_pipeline.processes import Together, exists

HERE = Path(__file__).parent
END_SECONDS = 5.0
UP_SECONDS = 120.0
LOOK_SECONDS = 0.5
SERVERS = 2
FORGETFUL = ("s3",)  # services that hold all they have in memory
USER = DATABASE = "nfl_lora"
BUCKET = "nfl-lora"
UNPRIVILEGED = "postgres"  # Debian's user, since Postgres does not run as root


@dataclass
class Services:
    """Processes that are started anew when they die, as a container's or a system's supervisor does.

    Attributes:
        logs: a folder with a file for each.
    """

    logs: Path
    _together: Together = field(default_factory=lambda: Together(END_SECONDS))
    _starts: dict[str, Callable[[], int]] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)

    def start(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        """Start one, now and whenever it has died."""
        log: IO[str] = (self.logs / f"{name}.log").open("a", encoding="utf-8")
        self._starts[name] = lambda: self._together.start(command, environment, log)
        self.pids[name] = self._starts[name]()

    def look(self) -> list[str]:
        """Start anew what has died; its names.

        Raises:
            ValueError: what it held is lost with it.
        """
        self._together.ended()  # or who has ended would count as there
        dead = [name for name, pid in self.pids.items() if not exists(pid)]
        if lost := [name for name in dead if name in FORGETFUL]:
            raise ValueError(
                f"{lost[0]} has ended, and what it held is lost; see {self.logs / lost[0]}.log, take a new folder"
            )
        for name in dead:
            self.pids[name] = self._starts[name]()
        return dead

    def end(self) -> None:
        """End all of them, and what they have started."""
        self._together.end()


@dataclass(frozen=True)
class Loopback:
    """A deployment that runs.

    Attributes:
        folder: with all that belongs to it.
        environment: for whatever shall take part in it.
        services: its processes.
        port: of the UI.
    """

    folder: Path
    environment: Mapping[str, str]
    services: Services
    port: int


@contextmanager
def running(
    folder: Path, tenants: Path, *, port: int = 0, watch: bool = False, s3: bool = False, sqlite: bool = False
) -> Iterator[Loopback]:
    """A deployment, for the block.

    Args:
        folder: for all that belongs to it; made where there is none.
        tenants: the file of tenants.
        port: of the UI; 0 for any that is free.
        watch: whether tenants are brought up to date without being asked for.
        s3: whether their stores lie in a bucket on loopback, which is gone in the end.
        sqlite: whether Dagster's records and the leases lie in SQLite instead of Postgres, for comparison.
    """
    home, logs, port = folder / "dagster", folder / "logs", port or free_port()
    for each in (home, logs):
        each.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        services = Services(logs)
        stack.callback(services.end)
        environment = _environment(folder, home, tenants, watch=watch)
        write_settings(home, sqlite=sqlite)
        if not sqlite:
            environment["NFL_LORA_DATABASE"] = start_postgres(folder / "postgres", services)
        if s3:
            environment |= _start_bucket(services, environment)
        for number in range(SERVERS):
            _start_code_server(services, number, environment)
        _start_dagster(services, environment, port)
        wait_for(lambda: _listens(port), "the webserver")
        yield Loopback(folder, environment, services, port)


def write_settings(home: Path, *, sqlite: bool) -> None:
    """Dagster's settings as they are deployed; for comparison without their storage, in whose place Dagster takes SQLite."""
    settings = yaml.safe_load((HERE / "dagster.yaml").read_text(encoding="utf-8"))
    if sqlite:
        del settings["storage"]
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def _environment(folder: Path, home: Path, tenants: Path, *, watch: bool) -> dict[str, str]:
    """What every process is told; the same names stand in docker-compose.yaml and in values.yaml."""
    ports = {f"NFL_LORA_CODE_{number}_PORT": str(free_port()) for number in range(SERVERS)}
    hosts = {f"NFL_LORA_CODE_{number}_HOST": "127.0.0.1" for number in range(SERVERS)}
    return {
        **os.environ,
        **ports,
        **hosts,
        "DAGSTER_HOME": str(home.resolve()),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "NFL_LORA_TENANTS": str(tenants.resolve()),
        "NFL_LORA_STORE": str((folder / "store").resolve()),
        "NFL_LORA_ARCHIVE": str((folder / "store" / "archive").resolve()),  # whatever the shell has
        "NFL_LORA_DATABASE": "",
        "NFL_LORA_WATCH": str(int(watch)),
    }


def start_postgres(place: Path, services: Services) -> str:
    """A cluster of its own in a folder, and in it a database; the address of the latter."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not binaries:
        raise ValueError("Postgres is not installed: apt-get install postgresql")
    place.mkdir(parents=True, exist_ok=True)
    as_user: list[str] = []
    if os.geteuid() == 0:
        as_user = ["setpriv", f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups"]
        shutil.chown(place, UNPRIVILEGED, UNPRIVILEGED)
        for above in place.resolve().parents[:-1]:
            if above.stat().st_mode & 0o001 == 0:
                raise ValueError(f"{above}: user {UNPRIVILEGED} cannot pass through it; use a folder under /tmp")
    data, port = place / "data", free_port()
    if not data.exists():
        made = [*as_user, str(binaries[-1] / "initdb"), "-D", str(data), "-A", "trust", "-U", USER, "-E", "UTF8"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, cwd=place)
    options = [
        "-c",
        "listen_addresses=127.0.0.1",
        "-p",
        str(port),
        "-k",
        str(place.resolve()),
        "-c",
        "max_connections=200",
    ]
    services.start("postgres", [*as_user, str(binaries[-1] / "postgres"), "-D", str(data), *options], os.environ)
    made = [str(binaries[-1] / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", USER, DATABASE]

    def is_made() -> bool:
        found = subprocess.run(made, check=False, capture_output=True, text=True, cwd=place)
        return found.returncode == 0 or "already exists" in found.stderr

    wait_for(is_made, "Postgres")
    return f"postgresql+psycopg2://{USER}@127.0.0.1:{port}/{DATABASE}"


def _start_bucket(services: Services, environment: Mapping[str, str]) -> dict[str, str]:
    """A server that speaks S3, with a bucket; what tells the others of it."""
    port = free_port()
    services.start("s3", [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], environment)
    told = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "loopback",
        "AWS_SECRET_ACCESS_KEY": "loopback",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NFL_LORA_ARCHIVE": f"s3://{BUCKET}/tenants",
    }
    wait_for(lambda: _listens(port), "the server of object storage")
    made = "import sys, boto3; boto3.client('s3').create_bucket(Bucket=sys.argv[1])"
    subprocess.run([sys.executable, "-c", made, BUCKET], check=True, env={**environment, **told})
    return told


def _start_code_server(services: Services, number: int, environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "dagster", "api", "grpc", "-h", "127.0.0.1", "-p"]
    command += [environment[f"NFL_LORA_CODE_{number}_PORT"], "-m", "nfl_lora_pipeline.definitions"]
    command += ["--location-name", f"tenants-{number}", "--lazy-load-user-code"]
    share = {"NFL_LORA_SHARE": f"{number}/{SERVERS}"}
    services.start(f"code-{number}", command, {**environment, **share})


def _start_dagster(services: Services, environment: Mapping[str, str], port: int) -> None:
    workspace = ["-w", str(HERE / "workspace.yaml")]
    shown = ["-h", "127.0.0.1", "-p", str(port)]
    services.start("webserver", [sys.executable, "-m", "dagster_webserver", *shown, *workspace], environment)
    services.start("daemon", [sys.executable, "-m", "dagster._daemon", "run", *workspace], environment)


def wait_for(happens: Callable[[], bool], what: str, seconds: float = UP_SECONDS) -> None:
    """Wait until something is so.

    Raises:
        ValueError: it is not so in that time.
    """
    give_up = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > give_up:
            raise ValueError(f"{what} was waited for {seconds:.0f} s; see the logs")
        time.sleep(LOOK_SECONDS)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--tenants", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True)
@click.option("--port", type=int, default=3000, show_default=True, help="Of the UI; 0 for any that is free.")
@click.option("--s3", is_flag=True, help="Tenants' stores in a bucket on loopback, which is gone in the end.")
def main(folder: Path, tenants: Path, port: int, *, s3: bool) -> None:
    """Run the deployment in FOLDER until a Ctrl-C; every tenant is brought up to date, and again each week."""
    try:
        with heard(), running(folder, tenants, port=port, watch=True, s3=s3) as deployment:
            click.echo(f"http://127.0.0.1:{deployment.port}/assets; logs in {deployment.services.logs}; Ctrl-C ends it")
            while True:
                time.sleep(LOOK_SECONDS)
                for name in deployment.services.look():
                    click.echo(f"{name} had ended, and is started anew", err=True)
    except Interrupted as interrupt:
        raise SystemExit(interrupt.exit_code) from interrupt
    except ValueError as error:
        raise SystemExit(f"Error: {error}") from error


if __name__ == "__main__":
    main()
