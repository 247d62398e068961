"""Options that several benchmarks take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="Real weeks in upstream's layout, 2025/1/WR.json.",
)
season_option = click.option("--season", default=2025, show_default=True)
recipe_option = click.option("--recipe", "recipe_name", default="embedded", show_default=True)
write_option = click.option("--write", is_flag=True, help="Renew the section in docs/benchmarks.md.")


def of_one_week(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--data-dir`, `--season`, `--week`, `--recipe` and `--write`."""
    week_option = click.option("--week", default=1, show_default=True)
    for option in (write_option, recipe_option, week_option, season_option, data_dir_option):
        command = option(command)
    return command


def of_weeks(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--data-dir`, `--season`, `--weeks`, `--stats` and `--recipe`."""

    def with_options(command: Callable[..., Any]) -> Callable[..., Any]:
        weeks_option = click.option("--weeks", default=default, show_default=True)
        stats_option = click.option("--stats", default="receiving_yards", show_default=True)
        for option in (recipe_option, stats_option, weeks_option, season_option, data_dir_option):
            command = option(command)
        return command

    return with_options
