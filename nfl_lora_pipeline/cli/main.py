"""`nfl-lora`: the command line."""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem, get_completion_class

from nfl_lora_pipeline.cli import adapters, library, tenants
from nfl_lora_pipeline.cli.adapters import fingerprints, held_in, recipes, store_option
from nfl_lora_pipeline.cli.terminal import DEBUG, among_others, flush_output, in_one_line, print_anything
from nfl_lora_pipeline.files import lasting_base, lasting_recipe
from nfl_lora_pipeline.interrupts import Interrupted, heard
from nfl_lora_pipeline.stats import POSITIONS, TEACHABLE, in_words
from nfl_lora_pipeline.weeks.sources import source_names
from nfl_lora_pipeline.weeks.week import LAST_WEEK, NflWeek, spoken_weeks, weeks_named

if TYPE_CHECKING:
    from nfl_lora_pipeline.defs.update import Order
    from nfl_lora_pipeline.experiments.study import Trial
    from nfl_lora_pipeline.settings import Settings

WEEKS_HELP = "1, 1-3 or 1,4-6, or partition keys: 2025-W01,2025-W02.  "


def held_weeks(context: click.Context, _: click.Parameter, beginning: str) -> list[CompletionItem]:
    """For a shell: after the last comma the weeks of the season that the store holds; all of a season where it holds none."""
    season = context.params.get("season") or 2025
    found = sorted(int(folder.name[-2:]) for folder in held_in(context).glob(f"weeks/{season}-W[0-9][0-9]"))
    before, comma, last = beginning.rpartition(",")
    numbers = map(str, found or range(1, LAST_WEEK + 1))
    return [CompletionItem(f"{before}{comma}{number}") for number in numbers if number.startswith(last)]


stats_option = click.option(
    "--stats",
    default="",
    envvar="NFL_LORA_STATS",
    show_envvar=True,
    help=f"{', '.join(TEACHABLE)}; several with commas; or all: those usual of the position.  "
    f"[default: {', '.join(f'{people.stat} of {position}' for position, people in POSITIONS.items())}]",
)
position_option = click.option(
    "--position",
    type=click.Choice(list(POSITIONS)),
    default="WR",
    show_default=True,
    envvar="NFL_LORA_POSITION",
    show_envvar=True,
    help=f"Whose weeks: {', '.join(map(in_words, POSITIONS))}. A store is of one position.",
)
source_option = click.option(
    "--source",
    type=click.Choice(source_names()),
    default="auto",
    show_default=True,
    envvar="NFL_LORA_SOURCE",
    show_envvar=True,
    help="auto: the folder, else a download; `run` ends at the bundled sample of invented people.",
)
data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    envvar="NFL_LORA_DATA_DIR",
    show_envvar=True,
    help="Folder of raw weeks, {season}/{week}/{position}.json.  [default: raw in the store]",
)
split_mode_option = click.option(
    "--split-mode",
    "mode",
    type=click.Choice(["every_fact", "random_facts"]),
    default="every_fact",
    show_default=True,
    envvar="NFL_LORA_MODE",
    show_envvar=True,
    help="random_facts: the data of the original experiment, 150 people in one wording, every blank a 0.",
)
recipe_option = click.option(
    "--recipe",
    default="auto",
    show_default=True,
    envvar="NFL_LORA_RECIPE",
    show_envvar=True,
    help="A shipped recipe or the path of a YAML file; auto: SmolLM2 on Metal or CUDA, the embedded base on a CPU.",
    shell_complete=recipes,
)
replace_option = click.option(
    "--replace",
    is_flag=True,
    envvar="NFL_LORA_REPLACE",
    show_envvar=True,
    help="Promote the new adapter though the promoted one knows what it was not taught.",
)
accept_odd_weeks_option = click.option(
    "--accept-odd-weeks",
    is_flag=True,
    envvar="NFL_LORA_ACCEPT_ODD_WEEKS",
    show_envvar=True,
    help="Teach weeks that the checks take for cut, empty or copied of another week, with a warning.",
)
base_model_option = click.option(
    "--base-model",
    default="",
    envvar="NFL_LORA_BASE_MODEL",
    show_envvar=True,
    help="embedded, a folder, a GGUF file or a Hugging Face id.  [default: the recipe's]",
)


def job_options(command: Callable[..., None]) -> Callable[..., None]:
    """What `run`, `plan` and `ui` take alike: what is taught, and how. `as_settings` reads it."""
    options = (
        position_option,
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


def has_choices(folder: Path) -> bool:
    """Whether a folder may have a file of choices; what reads it is imported only then."""
    project = folder / "pyproject.toml"
    in_project = project.is_file() and b"tool.nfl-lora" in project.read_bytes()
    return in_project or (folder / "nfl-lora.toml").is_file()


class Commands(click.Group):
    """Shows what goes wrong as one line, with exit code 1; ends by a signal as a shell expects it."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Begin with the defaults that the file of the working folder sets."""
        try:
            defaults = self._defaults()
        except ValueError:
            if not extra.get("resilient_parsing"):  # a shell asks, and nobody reads errors
                raise
            defaults = {}
        return super().make_context(info_name, args, parent, default_map=defaults, **extra)

    def _defaults(self) -> dict[str, Any]:
        """What the file says, for every command that has an option of that name.

        Raises:
            ValueError: the file has a mistake.
        """
        if not has_choices(Path()):
            return {}
        from nfl_lora_pipeline.settings import read_choices

        where, chosen = read_choices(Path())
        return _defaults_of(self, chosen, where)

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


def _defaults_of(command: click.Command, chosen: Mapping[str, str], where: str) -> dict[str, Any]:
    """By the name of an option the text that was chosen for it; by that of a command of a group its own defaults.

    Raises:
        ValueError: an option would refuse its text; `where` is the file that it stands in.
    """
    if isinstance(command, click.Group):
        return {name: _defaults_of(each, chosen, where) for name, each in command.commands.items()}
    defaults = {}
    for option in command.params:
        key = option.opts[0].removeprefix("--")
        if key in chosen and isinstance(option, click.Option):
            _check_choice(option, key, chosen[key], where)
            defaults[str(option.name)] = chosen[key]
    return defaults


def _check_choice(option: click.Option, key: str, text: str, where: str) -> None:
    """Refuse what an option would refuse, by the name of the file that it stands in."""
    try:
        option.type(text, option)
        if key == "weeks":
            weeks_named(text, 2025)
        elif key == "recipe":
            check_recipe(text)
        elif key == "stats":
            check_stats(text)
    except click.BadParameter as error:
        raise ValueError(f"{where}: {key}: {error.message}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {key}: {error}") from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="nfl-lora-pipeline")
def main() -> None:
    """Teach a local language model the facts of an NFL season, week by week."""


season_option = click.option(
    "--season",
    type=click.IntRange(2000, 2099),
    default=2025,
    show_default=True,
    envvar="NFL_LORA_SEASON",
    show_envvar=True,
)
weeks_option = click.option(
    "--weeks",
    default=None,
    envvar="NFL_LORA_WEEKS",
    show_envvar=True,
    help=f"{WEEKS_HELP}[default: every week of the season in the store; 1 where there is none]",
    shell_complete=held_weeks,
)


@main.command()
@season_option
@weeks_option
@job_options
@click.option("-q", "--quiet", is_flag=True, help="Show the verdict and where the report lies, and no progress.")
@click.option("-v", "--verbose", is_flag=True, help="Keep every line of every step in sight, with the time.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on the last line.")
@store_option
@among_others
def run(season: int, weeks: str | None, as_json: bool, quiet: bool, verbose: bool, **options: Any) -> None:
    """The whole job: fetch weeks, train an adapter, evaluate it, answer three questions before and after.

    Exit code 3: a gate failed, so that the adapter was not promoted.
    """
    started = time.perf_counter()
    if quiet and verbose:
        raise click.UsageError("--quiet or --verbose, not both")
    job = read_job(season, weeks, options)
    from nfl_lora_pipeline.cli.terminal import Screen, in_short, show_outcome, show_verdict

    with Screen(quiet=quiet, verbose=verbose) as screen:
        screen.note(job.in_words())
        from nfl_lora_pipeline.defs.update import run_job  # takes seconds, and nobody is to wait for the first line

        report, seconds = run_job(job.order(), listener=screen.told)
    summary = report | {"seconds": round(time.perf_counter() - started, 1)}
    if not quiet:
        show_outcome(summary, seconds)
    elif not as_json:
        show_verdict(summary)
    if as_json:
        click.echo(json.dumps(in_short(summary)))
    if any(gate["passed"] is False and gate["blocks"] for gate in summary["gates"]):
        raise SystemExit(NOT_PROMOTED)


@main.command()
@season_option
@weeks_option
@job_options
@store_option
def plan(season: int, weeks: str | None, **options: Any) -> None:
    """What `run` with the same options would do, reuse and download, and what it would take. It changes nothing."""
    job = read_job(season, weeks, options)
    click.echo(job.in_words())
    from nfl_lora_pipeline.defs.update import plan as planned

    for subject, line in planned(job.order(), lambda line: click.echo(f"{line} ...", err=True)):
        click.echo(f"{subject:<9} {line}")


@dataclass(frozen=True)
class Job:
    """What somebody wants done, and why by this recipe."""

    settings: "Settings"
    weeks: list[NflWeek]
    sample_fallback: bool
    why: str

    def in_words(self) -> str:
        """One line: what is taught, and by which recipe."""
        from nfl_lora_pipeline.dataset.templates import choose_stats

        position = self.settings.position
        chosen = choose_stats(self.settings.chosen_stats, position)
        taught = ", ".join(stat.replace("_", " ") for stat in chosen)
        weeks = re.sub(r"(\d{4}) ", r"\1 week ", spoken_weeks([str(week) for week in self.weeks]))
        whose = "" if position == "WR" else f"{POSITIONS[position].plural}, "
        return f"plan: {taught} of {whose}{weeks}; recipe {self.why}"

    def order(self) -> "Order":
        """The same for Dagster, whose import takes seconds."""
        from nfl_lora_pipeline.defs.resources import Resources
        from nfl_lora_pipeline.defs.update import Order

        resources = Resources.of(self.settings, weeks=self.weeks, sample_fallback=self.sample_fallback)
        return Order(resources, self.weeks)


def read_job(season: int, weeks: str | None, options: dict[str, Any]) -> Job:
    """What `run` and `plan` are asked for.

    Raises:
        ValueError: one of the options is of no use.
    """
    check_choices(options)
    check_data_dir(options)
    named = None if weeks is None else weeks_named(weeks, season)
    _, sample_fallback = places_of(options)
    from nfl_lora_pipeline.settings import Settings
    from nfl_lora_pipeline.store import Store

    options, why = with_recipe(options)
    settings, data = Settings.read(**as_settings(options), season=season, weeks=()), Store(options["store"])
    data.check_position(settings.position)
    if named is None:
        invented = sample_fallback or settings.source == "sample"
        named = data.weeks_of_season(season, sample=invented)
    return Job(settings, named, sample_fallback, why)


def check_choices(options: Mapping[str, Any]) -> None:
    """Say what cannot be done at once, before anything heavy is imported.

    Raises:
        ValueError: there is no such recipe or stat, or the source has no such players.
    """
    check_recipe(options["recipe"])
    check_stats(options["stats"])
    check_source(options)


def check_recipe(name: str) -> None:
    """Refuse what is no recipe."""
    from nfl_lora_pipeline.recipes.recipe import AUTO, load_recipe

    if name != AUTO:
        load_recipe(name)


def check_stats(text: str) -> None:
    """Refuse what is no stat."""
    from nfl_lora_pipeline.dataset.templates import choose_stats
    from nfl_lora_pipeline.settings import as_list

    if text:
        choose_stats(as_list(text))


def check_source(options: Mapping[str, Any]) -> None:
    """Refuse a source that can have no players of the position."""
    from nfl_lora_pipeline.weeks.sources import Place, open_source

    open_source(options["source"], Place(Path(), position=options["position"])).close()


def with_recipe(options: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The options with a recipe in the place of auto, and why it is that one; a base that is named has the embedded one's."""
    from nfl_lora_pipeline.recipes.recipe import AUTO, FOR_CPU, recipe_for_this_machine

    recipe = options["recipe"]
    if recipe != AUTO:
        return options, recipe
    if options["base_model"]:
        return options | {"recipe": FOR_CPU}, f"{FOR_CPU}, since the base is named; --recipe for another"
    recipe, why = recipe_for_this_machine()
    return options | {"recipe": recipe}, why


def places_of(options: Mapping[str, Any]) -> tuple[dict[str, str], bool]:
    """Store and folder of raw weeks as `Settings` takes them, and whether weeks may come from the bundled sample in the end."""
    raw = (options["data_dir"] or options["store"] / "raw").resolve()
    sample_fallback = options["source"] == "auto" and options["data_dir"] is None
    return {"store": str(options["store"]), "data_dir": str(raw)}, sample_fallback


def check_data_dir(options: Mapping[str, Any]) -> None:
    """Refuse a folder of raw weeks that is not there; one that is watched may come later."""
    folder = options["data_dir"]
    if folder is not None and not folder.is_dir():
        raise ValueError(f"--data-dir {folder}: no such folder")


def as_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that `run` and `ui` share, as `Settings` takes them: paths are made absolute."""
    return {
        **options,
        **places_of(options)[0],
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
@click.argument("fingerprint", default="", shell_complete=fingerprints)
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
    "--season",
    type=click.IntRange(2000, 2099),
    default=None,
    envvar="NFL_LORA_SEASON",
    show_envvar=True,
    help="Season to watch.  [default: the one that is on]",
)
@click.option(
    "--weeks",
    default="",
    envvar="NFL_LORA_WEEKS",
    show_envvar=True,
    help=f"Weeks to train on: {WEEKS_HELP}[default: all held]",
    shell_complete=held_weeks,
)
@job_options
@store_option
def ui(port: int, host: str, season: int | None, weeks: str, watch: bool, **options: Any) -> None:
    """Serve the Dagster UI on the same storage, until a Ctrl-C."""
    check_choices(options)
    chosen = [str(week) for week in weeks_named(weeks, season)] if weeks else []
    from nfl_lora_pipeline.adapters.serving.server import check_port
    from nfl_lora_pipeline.defs.instance import serve_ui
    from nfl_lora_pipeline.settings import Settings
    from nfl_lora_pipeline.store import Store

    check_port(host, port)
    options, why = with_recipe(options)
    click.echo(f"recipe: {why}", err=True)
    settings = Settings.read(**as_settings(options), season=season or 0, weeks=chosen, watch=watch)
    data = Store(options["store"])
    data.check_position(settings.position)
    serve_ui(data, host, port, settings.to_environment(), lambda line: click.echo(line, err=True))


@main.command("build-base")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=None,
    help="Steps of its making.  [default: those of the shipped model]",
)
@click.option("--seed", type=int, default=None, help="Of everything random.  [default: that of the shipped model]")
@click.option("--gpu", "on_gpu", is_flag=True, help="On Metal or CUDA instead of the CPU; the last digits then differ.")
def build_base(folder: Path, steps: int | None, seed: int | None, *, on_gpu: bool) -> None:
    """Make the embedded base model from nothing in FOLDER; an interrupted build is continued."""
    from nfl_lora_pipeline.base_pretraining.pretrain import Plan, build

    chosen = {"steps": steps, "seed": seed}
    given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    build(folder, replace(Plan(), **given), on_gpu=on_gpu, report=click.echo)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what teaches a SHELL to complete commands, options, recipes, weeks and adapters.

    bash and zsh: eval "$(nfl-lora completion bash)"; fish: nfl-lora completion fish | source.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise ValueError(f"shell {shell!r}: click cannot complete in it")
    click.echo(kind(main, {}, "nfl-lora", "_NFL_LORA_COMPLETE").source())


@main.group()
def experiment() -> None:
    """Experiments: studies with arms, seeds and claims; see docs/experiments.md."""


@experiment.command("list")
@store_option
def list_experiments(store: Path) -> None:
    """The studies that come with the package, how many trials of each are finished, the minutes those took, what it asks."""
    from nfl_lora_pipeline.defs.experiments import results_of
    from nfl_lora_pipeline.experiments.study import load_study, study_names, trials_of
    from nfl_lora_pipeline.store import Store

    spent = {False: 0.0, True: 0.0}
    for name in study_names():
        study, trials = load_study(name), trials_of(name)
        results = results_of(Store(store), trials)
        left = f"{len(trials) - len(results)} left" if len(results) < len(trials) else "finished"
        seconds = sum(each.spent for each in results)
        spent[study.long] += seconds
        hours = " (hours: not of `all`)" if study.long else ""
        count = f"{len(results):>3} / {len(trials):>2}"
        click.echo(f"{name:<20} {count}  {left:<9} {seconds / 60:>5.1f} min  {study.question}{hours}")
    all_of_them, long_ones = (f"{seconds / 60:.1f} min" for seconds in spent.values())
    click.echo(f"\nTraining and asking: {all_of_them} of what `all` makes, {long_ones} of the others")


@experiment.command("run")
@click.argument("names", nargs=-1, required=True)
@click.option("--arm", "arms", multiple=True, help="This arm alone; may be given several times.")
@click.option(
    "--long", "long_too", is_flag=True, help="With `all`: those too that take hours, or want larger hardware."
)
@position_option
@source_option
@data_dir_option
@store_option
def run_experiment(names: tuple[str, ...], arms: tuple[str, ...], long_too: bool, **options: Any) -> None:
    """Make what is missing of the studies NAMES, or of `all`, one trial after another; NAMES may be YAML files.

    It says beforehand how long that takes. Ctrl-C keeps what is finished, and the same command goes on.
    """
    from nfl_lora_pipeline.cli.terminal import Screen
    from nfl_lora_pipeline.defs.experiments import estimate, run_trials
    from nfl_lora_pipeline.defs.resources import Resources
    from nfl_lora_pipeline.experiments.leaderboard import section
    from nfl_lora_pipeline.experiments.study import load_study
    from nfl_lora_pipeline.settings import Settings

    check_data_dir(options)
    check_source(options)
    places, sample_fallback = places_of(options)
    resources = Resources.of(Settings.read(**(options | places)), sample_fallback=sample_fallback)
    trials = _chosen_trials(names, arms, long_too=long_too)
    click.echo("what is left, and how long it takes, is looked at ...", err=True)
    expected = estimate([trial for of_study in trials.values() for trial in of_study], resources)
    click.echo(expected.in_words(), err=True)
    done = 0
    for name, of_study in trials.items():
        results, began = [], time.monotonic()
        with Screen() as screen:
            for trial, result in run_trials(of_study, resources, screen.told):
                expected.take(trial, result, time.monotonic() - began)
                results.append(result)
                done, began = done + 1, time.monotonic()
                line = (
                    f"{trial.arm}, seed {trial.seed}: {done} of {len(expected.trials)} trials, {expected.time_left()}"
                )
                screen.told(name, line, len(results) / len(of_study))
        click.echo(section(Path(name).stem, load_study(name), results))


def _chosen_trials(names: tuple[str, ...], arms: tuple[str, ...], *, long_too: bool) -> "dict[str, list[Trial]]":
    """The trials of studies, by name, of these arms alone where there are any."""
    from nfl_lora_pipeline.experiments.study import names_for_all, trials_of

    chosen = {}
    for name in names_for_all(long_too=long_too) if names == ("all",) else names:
        trials = trials_of(name)
        there = list(dict.fromkeys(trial.arm for trial in trials))
        if unknown := [arm for arm in arms if arm not in there]:
            raise click.UsageError(f"{name} has no arm {unknown[0]!r}; it has {', '.join(map(repr, there))}")
        chosen[name] = [trial for trial in trials if not arms or trial.arm in arms]
    return chosen


@experiment.command("report")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@store_option
def report_experiments(file: Path, store: Path) -> None:
    """Write FILE, a page in Markdown with the results of all shipped studies, and their pictures beside it."""
    from nfl_lora_pipeline.defs.experiments import write_page
    from nfl_lora_pipeline.store import Store

    measured = write_page(Store(store), file)
    click.echo(f"{file}: {len(measured)} studies with results ({', '.join(measured) or 'none'})")


for group in (adapters.commands, library.commands, tenants.commands):
    for command in group.commands.values():
        main.add_command(command)


if __name__ == "__main__":
    main()
