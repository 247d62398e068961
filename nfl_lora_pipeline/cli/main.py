"""`nfl-lora`: the command line."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import click

from nfl_lora_pipeline.cli import adapters, library
from nfl_lora_pipeline.cli.adapters import store_option
from nfl_lora_pipeline.cli.terminal import DEBUG, flush_output, in_one_line, print_anything
from nfl_lora_pipeline.files import lasting_base, lasting_recipe
from nfl_lora_pipeline.interrupts import Interrupted, heard, take_default_handlers
from nfl_lora_pipeline.stats import TAUGHT
from nfl_lora_pipeline.weeks.sources import source_names
from nfl_lora_pipeline.weeks.week import NflWeek, parse_weeks

stats_option = click.option(
    "--stats",
    default="receiving_yards",
    show_default=True,
    help=f"{', '.join(TAUGHT)}; several with commas; or all.",
)
source_option = click.option(
    "--source",
    type=click.Choice(source_names()),
    default="auto",
    show_default=True,
    help="auto: the folder, else a download; `run` ends at the bundled sample of invented people.",
)
data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder of raw weeks, {season}/{week}/WR.json.  [default: raw in the store]",
)
split_mode_option = click.option(
    "--split-mode",
    "mode",
    type=click.Choice(["every_fact", "random_facts"]),
    default="every_fact",
    show_default=True,
    help="random_facts: the data of the original experiment, 150 people in one wording, every blank a 0.",
)
recipe_option = click.option(
    "--recipe", default="embedded", show_default=True, help="A shipped recipe or the path of a YAML file."
)
replace_option = click.option(
    "--replace", is_flag=True, help="Promote the new adapter though the promoted one knows what it was not taught."
)
accept_odd_weeks_option = click.option(
    "--accept-odd-weeks",
    is_flag=True,
    help="Teach weeks that the checks take for cut, empty or copied of another week, with a warning.",
)
base_model_option = click.option(
    "--base-model", default="", help="embedded, a folder, a GGUF file or a Hugging Face id.  [default: the recipe's]"
)


def job_options(command: Callable[..., None]) -> Callable[..., None]:
    """What `run` and `ui` take alike: what is taught, and how. `as_settings` reads it."""
    options = (
        stats_option,
        source_option,
        data_dir_option,
        split_mode_option,
        recipe_option,
        base_model_option,
        replace_option,
        accept_odd_weeks_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


NOT_PROMOTED = 3  # exit code


class Commands(click.Group):
    """Shows what goes wrong as one line, with exit code 1; ends by a signal as a shell expects it."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line."""
        print_anything()
        try:
            return super().main(*args, **extra)
        except SystemExit as end:
            if (unwritten := flush_output()) and not end.code:
                self._fail(unwritten)
            raise
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        """End with a line; with a traceback where one was asked for, and in silence where nobody reads any more."""
        if os.environ.get(DEBUG) == "1":
            raise error
        with contextlib.suppress(OSError):
            if not isinstance(error, BrokenPipeError):
                click.echo(f"Error: {in_one_line(error)}", err=True)
        flush_output()
        raise SystemExit(1) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            with heard():
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            interrupt = error if isinstance(error, Interrupted) else Interrupted()
            kept = f": {interrupt.kept}; the same command goes on from there" if interrupt.kept else ""
            click.echo(f"Interrupted{kept}.", err=True)
            raise SystemExit(interrupt.exit_code) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="nfl-lora-pipeline")
def main() -> None:
    """Teach a local language model the facts of an NFL season, week by week."""


@main.command()
@click.option("--season", type=click.IntRange(2000, 2099), default=2025, show_default=True)
@click.option(
    "--weeks",
    default=None,
    help="1, 1-3 or 1,4-6.  [default: every week of the season in the store; 1 where there is none]",
)
@job_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on the last line.")
@store_option
def run(season: int, weeks: str | None, as_json: bool, **options: Any) -> None:
    """The whole job: fetch weeks, train an adapter, evaluate it, answer three questions before and after.

    Exit code 3: a gate failed, so that the adapter was not promoted.
    """
    started = time.perf_counter()
    check_choices(options)
    numbers, data_dir = None if weeks is None else parse_weeks(weeks), options["data_dir"]
    if data_dir is not None and not data_dir.is_dir():
        raise ValueError(f"--data-dir {data_dir}: no such folder")
    from nfl_lora_pipeline.cli.terminal import Screen, in_short, show_outcome
    from nfl_lora_pipeline.defs.resources import Resources
    from nfl_lora_pipeline.defs.update import Order, run_job, weeks_of_season
    from nfl_lora_pipeline.settings import Settings
    from nfl_lora_pipeline.store import Store

    sample_fallback = options["source"] == "auto" and data_dir is None
    settings = Settings.read(**as_settings(options), season=season, weeks=())
    if numbers is None:
        chosen = weeks_of_season(Store(options["store"]), season, sample=sample_fallback or settings.source == "sample")
    else:
        chosen = [NflWeek(season, number) for number in numbers]
    order = Order(Resources.of(settings, weeks=chosen, sample_fallback=sample_fallback), chosen)
    with Screen() as screen:
        report, seconds = run_job(order, listener=screen.told)
    summary = report | {"seconds": round(time.perf_counter() - started, 1)}
    show_outcome(summary, seconds)
    if as_json:
        click.echo(json.dumps(in_short(summary)))
    if any(gate["passed"] is False and gate["blocks"] for gate in summary["gates"]):
        raise SystemExit(NOT_PROMOTED)


def check_choices(options: Mapping[str, Any]) -> None:
    """Say what cannot be done at once, before anything heavy is imported.

    Raises:
        ValueError: there is no such recipe or stat.
    """
    from nfl_lora_pipeline.dataset.templates import choose_stats
    from nfl_lora_pipeline.settings import as_list
    from nfl_lora_pipeline.tuning.recipe import load_recipe

    load_recipe(options["recipe"])
    choose_stats(as_list(options["stats"]))


def as_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that `run` and `ui` share, as `Settings` takes them: paths are made absolute."""
    return dict(options) | {
        "store": str(options["store"]),
        "data_dir": str((options["data_dir"] or options["store"] / "raw").resolve()),
        "recipe": lasting_recipe(options["recipe"]),
        "base_model": lasting_base(options["base_model"]),
    }


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, with the hash of every week's file.")
@store_option
def history(as_json: bool, store: Path) -> None:
    """Every adapter in the store: which weeks it knows, from which data, with what recall."""
    from nfl_lora_pipeline.adapters.history import history_of, problems_of, show_history
    from nfl_lora_pipeline.store import Store

    held = Store(store)
    entries = history_of(held)
    if as_json:
        click.echo(json.dumps([entry.to_json() for entry in entries], indent=2))
    elif entries:
        show_history(entries, problems_of(held))
    else:
        click.echo(f"{store} holds no adapter yet: run `nfl-lora run`")


@main.command()
@click.argument("fingerprint", default="")
@store_option
def rollback(fingerprint: str, store: Path) -> None:
    """Promote the adapter that was promoted before, or the one whose FINGERPRINT begins so."""
    from nfl_lora_pipeline.adapters.promotion import roll_back
    from nfl_lora_pipeline.store import Store

    move = roll_back(Store(store), fingerprint)
    click.echo(f"promoted: {move.fingerprint} (was {move.previous})")


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--watch", is_flag=True, help="Look for new and corrected weeks, and carry them on to a promoted adapter."
)
@click.option(
    "--season", type=click.IntRange(2000, 2099), default=None, help="Season to watch.  [default: the one that is on]"
)
@click.option(
    "--weeks", default="", help="Weeks to train on, as partition keys: 2025-W01,2025-W02.  [default: all held]"
)
@job_options
@store_option
def ui(port: int, host: str, season: int | None, weeks: str, watch: bool, **options: Any) -> None:
    """Open the Dagster UI on the same storage."""
    check_choices(options)
    from nfl_lora_pipeline.adapters.serving.server import check_port
    from nfl_lora_pipeline.defs.instance import dagster_home, opened
    from nfl_lora_pipeline.settings import Settings
    from nfl_lora_pipeline.store import Store

    check_port(host, port)
    settings = Settings.read(**as_settings(options), season=season or 0, weeks=weeks, watch=watch)
    data = Store(options["store"])
    environment = os.environ | settings.to_environment() | {"DAGSTER_HOME": str(dagster_home(data))}
    with opened(data, lambda line: click.echo(line, err=True)):
        pass  # what dead processes left is put in order before anybody looks
    take_default_handlers()
    where = ["-p", str(port), "-h", host]
    command = [sys.executable, "-m", "dagster", "dev", "-m", "nfl_lora_pipeline.definitions", *where]
    os.execve(sys.executable, command, environment)  # in place of this process, so that who ends it ends Dagster


@main.command("build-base")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=None,
    help="Steps of its first course.  [default: those of the shipped model]",
)
@click.option("--seed", type=int, default=None, help="Of everything random.  [default: that of the shipped model]")
def build_base(folder: Path, steps: int | None, seed: int | None) -> None:
    """Make the embedded base model from nothing in FOLDER; an interrupted build is continued."""
    from nfl_lora_pipeline.base_pretraining.pretrain import Plan, build

    chosen = {"steps": steps, "seed": seed}
    given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    build(folder, replace(Plan(), **given), report=click.echo)


for group in (adapters.commands, library.commands):
    for command in group.commands.values():
        main.add_command(command)


if __name__ == "__main__":
    main()
