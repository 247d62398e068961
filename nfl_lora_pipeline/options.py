"""Options that several commands of `nfl-lora` take."""

from pathlib import Path

import click

from nfl_lora_pipeline.settings import variable

store_option = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data"),
    show_default=True,
    envvar=variable("store"),
    help="Folder for all results.",
)
adapter_option = click.option(
    "--adapter",
    "prefix",
    default="",
    help="How the fingerprint of another adapter begins.  [default: the promoted one]",
)
