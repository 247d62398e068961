"""The commands of `nfl-lora` for many tenants: who there is, one brought up to date by hand, copies of their stores."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nfl_lora_pipeline.cli.adapters import store_option

if TYPE_CHECKING:
    from nfl_lora_pipeline.defs.tenants import Workplace
    from nfl_lora_pipeline.tenants.entries import Tenant

NOT_MADE = 3  # exit code

commands = click.Group()  # `main` takes them all


@commands.group()
def tenants() -> None:
    """Many adapters, one a tenant: a position, a league or a customer (docs/deployment.md)."""


def deployment_options(command: Callable[..., None]) -> Callable[..., None]:
    """Where the tenants are written down, and where their stores and leases are."""
    options = (
        click.option(
            "--tenants",
            "file",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            envvar="NFL_LORA_TENANTS",
            show_envvar=True,
            default=None,
            help="YAML, one entry a tenant.  [default: the wide receivers of the NFL alone]",
        ),
        click.option(
            "--archive",
            envvar="NFL_LORA_ARCHIVE",
            show_envvar=True,
            default="",
            help="Where the versions of their stores are: a folder, or s3://bucket/prefix.  [default: archive in the store]",
        ),
        click.option(
            "--database",
            envvar="NFL_LORA_DATABASE",
            show_envvar=True,
            default="",
            help="Of who works on whom: postgresql://...  [default: a file in the store]",
        ),
        store_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _opened(file: Path | None, archive: str, database: str, store: Path) -> "tuple[dict[str, Tenant], Workplace]":
    """The tenants by name, and where they are worked on."""
    from nfl_lora_pipeline.defs.tenants import Workplace
    from nfl_lora_pipeline.settings import Settings
    from nfl_lora_pipeline.tenants.entries import read_tenants

    settings = Settings.read(store=str(store), tenants=str(file or ""), archive=archive, database=database)
    return {tenant.name: tenant for tenant in read_tenants(file, settings)}, Workplace.of(settings)


def _named(names: tuple[str, ...], known: "dict[str, Tenant]") -> "list[Tenant]":
    """Those of these names; all, where there are none.

    Raises:
        ValueError: there is none of a name.
    """
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"tenant {unknown[0]!r}: no such tenant; use {', '.join(list(known)[:20])}")
    return [known[name] for name in names] or list(known.values())


@tenants.command("list")
@deployment_options
def list_tenants(file: Path | None, archive: str, database: str, store: Path) -> None:
    """Every tenant: the newest version of its store, the promoted adapter, and who works on it now."""
    known, place = _opened(file, archive, database, store)
    for name in known:
        versions = place.archive_of(name)
        newest = versions.newest()
        promoted = versions.manifest(newest).promoted if newest else None
        made = f"version {newest}, {promoted or 'nothing'} promoted" if newest else "never made"
        holder = place.leases.holder(name)
        click.echo(f"{name:<20} {made}{f'; {holder} works on it' if holder else ''}")


@tenants.command("run")
@click.argument("names", nargs=-1)
@deployment_options
def run_tenants(names: tuple[str, ...], file: Path | None, archive: str, database: str, store: Path) -> None:
    """Bring tenants up to date here, one after another: those of NAMES, or all. Exit code 3: something failed."""
    known, place = _opened(file, archive, database, store)
    chosen = _named(names, known)
    from nfl_lora_pipeline.cli.terminal import Screen
    from nfl_lora_pipeline.defs.tenants import work_on
    from nfl_lora_pipeline.defs.update import told_what_is_kept

    failed = []
    for tenant in chosen:
        try:
            with Screen() as screen, told_what_is_kept(screen.told) as (arrivals, listen):
                worked = work_on(tenant, place, listen, arrivals)
        except ValueError as error:  # of this one; the others are worked on
            failed.append(f"{tenant.name}: {error}")
            continue
        failed += [f"{tenant.name}: {failure}" for failure in worked.failures]
        click.echo(f"{tenant.name}: version {worked.version}, {worked.store.promoted() or 'nothing'} promoted")
    for line in failed:
        click.echo(line, err=True)
    if failed:
        raise SystemExit(NOT_MADE)


@tenants.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("names", nargs=-1)
@deployment_options
def fetch(folder: Path, names: tuple[str, ...], file: Path | None, archive: str, database: str, store: Path) -> None:
    """Copy the newest version of each tenant's store to FOLDER/NAME; `nfl-lora serve --stores FOLDER` answers for them."""
    known, place = _opened(file, archive, database, store)
    for tenant in _named(names, known):
        version = place.archive_of(tenant.name).fetch(folder / tenant.name)
        click.echo(f"{folder / tenant.name}: {f'version {version}' if version else 'never made'}")
