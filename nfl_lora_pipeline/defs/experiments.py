"""Experiments: a partition a trial, its adapter and its result, and the leaderboard of all of them."""

import inspect
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import dagster as dg

from nfl_lora_pipeline import progress
from nfl_lora_pipeline.dataset.examples import examples_of
from nfl_lora_pipeline.defs.common import CODE, OWNERS, accelerator, clear_failure, say
from nfl_lora_pipeline.defs.instance import opened
from nfl_lora_pipeline.defs.resources import Resources, StoreResource, WeekSource
from nfl_lora_pipeline.defs.update import in_one_run, told_what_is_kept
from nfl_lora_pipeline.experiments import leaderboard
from nfl_lora_pipeline.experiments.asking import measure
from nfl_lora_pipeline.experiments.study import Trial, load_study, study_names, trials_of
from nfl_lora_pipeline.experiments.trial import (
    Fetch,
    Material,
    Result,
    Say,
    fingerprint_of,
    is_trained,
    material,
    read_result,
    rows_of,
    train,
    worded,
)
from nfl_lora_pipeline.files import replace_file
from nfl_lora_pipeline.markdown import marked, sections_of
from nfl_lora_pipeline.models.base_model import would_be_downloaded
from nfl_lora_pipeline.recipes.recipe import steps_expected
from nfl_lora_pipeline.store import Store

TRIAL_TAG = "nfl_lora/trial"
GROUP = "experiments"
Work = Callable[[Trial, Material, Path, Fetch, Say], "dg.MaterializeResult[None]"]
GROUPS_ROWS = 800.0  # asking all groups takes about as long as training on so many rows
QUESTION_ROWS = 16.0  # and a question by itself as so many
ONE_TRIAL_A_RUN = dg.BackfillPolicy.multi_run(1)


def fetch_from(week_source: WeekSource) -> Fetch:
    """Weeks from where the deployment's come from, each once."""

    def tell(line: str) -> None:
        progress.tell("experiment_adapter", line, None)

    return cache(lambda week: week_source.fetch(week, tell))


def bases_of(data: Store) -> Path:
    """Where bases are kept that trials make of others."""
    return data.experiments / "bases"


def results_of(data: Store, trials: Sequence[Trial]) -> list[Result]:
    """What trials came to, those that are finished, by what their studies say now."""
    found = (read_result(data.trial(trial.study, trial.arm, trial.seed), trial) for trial in trials)
    return [result for result in found if result]


def experiment_assets(trials: Sequence[Trial], fetch: Fetch | None = None) -> list[dg.AssetsDefinition]:
    """`experiment_adapter` and `experiment_result`, with a partition for each of some trials.

    `fetch` gives weeks to one run after another; without it each run fetches its own.
    """
    partitions = dg.StaticPartitionsDefinition([trial.key for trial in trials])

    def asset(name: str, work: Work, stage: str, kinds: set[str], deps: Sequence[str] = ()) -> dg.AssetsDefinition:
        return dg.asset(
            name=name,
            deps=deps,
            partitions_def=partitions,
            backfill_policy=ONE_TRIAL_A_RUN,
            group_name=GROUP,
            kinds=kinds,
            owners=OWNERS,
            tags={"stage": stage},
            code_version=CODE[name],
            description=inspect.getdoc(work),
        )(_on_trial(trials, work, fetch))

    return [
        asset("experiment_adapter", _adapter, "training", {"mlx", "safetensors"}),
        asset("experiment_result", _result, "evaluation", {"mlx"}, ["experiment_adapter"]),
    ]


def _on_trial(trials: Sequence[Trial], work: Work, given: Fetch | None) -> Callable[..., dg.MaterializeResult[None]]:
    """The body of an asset that does some work on the trial of its partition."""
    by_key = {trial.key: trial for trial in trials}

    def body(
        context: dg.AssetExecutionContext, store: StoreResource, week_source: WeekSource
    ) -> dg.MaterializeResult[None]:
        data, trial = store.open(), by_key[context.partition_key]
        with clear_failure(), accelerator(context, data):
            fetch = given or fetch_from(week_source)
            made = material(trial, fetch, bases_of(data))
            folder = data.trial(trial.study, trial.arm, trial.seed)
            return work(trial, made, folder, fetch, lambda line, share: say(context, line, share))

    return body


def _adapter(trial: Trial, made: Material, folder: Path, fetch: Fetch, tell: Say) -> dg.MaterializeResult[None]:
    """The adapter of one trial: a study, an arm of it, a seed. One that was made of the same is not made again."""
    version = dg.DataVersion(fingerprint_of(trial, made))
    whose: dict[str, str | int] = {"study": trial.study, "arm": trial.arm, "seed": trial.seed}
    if trial.side.way != "tuned":
        return dg.MaterializeResult(metadata=whose | {"note": "nothing is trained in this arm"}, data_version=version)
    reused = is_trained(trial, made, folder)
    if not reused:
        train(trial, made, folder, tell)
    return dg.MaterializeResult(metadata=whose | {"folder": str(folder), "reused": reused}, data_version=version)


def _result(trial: Trial, made: Material, folder: Path, fetch: Fetch, tell: Say) -> dg.MaterializeResult[None]:
    """What that adapter knows and makes up, what it took, and how large it is."""
    found = read_result(folder, trial)
    if found is None or found.fingerprint != fingerprint_of(trial, made):
        found = measure(trial, made, folder, fetch, tell)
    figures = {name: round(value, 4) for name, value in found.figures.items() if value is not None}
    return dg.MaterializeResult(metadata=figures, data_version=dg.DataVersion(found.fingerprint))


@dg.asset(
    deps=[dg.AssetDep("experiment_result", partition_mapping=dg.AllPartitionMapping())],
    kinds={"markdown"},
    tags={"stage": "evaluation"},
    code_version=CODE["experiment_leaderboard"],
    group_name=GROUP,
    owners=OWNERS,
)
def experiment_leaderboard(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult[None]:
    """The arms of each study side by side, and which of its claims every seed bears out."""
    from nfl_lora_pipeline.reports.plots import data_uri

    data, sections = store.open(), {}
    with clear_failure():
        for name in study_names():
            study, results = load_study(name), results_of(data, trials_of(name))
            image = data_uri(leaderboard.picture(study, results)) if results else ""
            sections[name] = dg.MetadataValue.md(leaderboard.section(name, study, results, picture=image))
    say(context, f"{len(sections)} studies", 1.0)
    return dg.MaterializeResult(metadata=sections)


def shipped_experiments() -> list[dg.AssetsDefinition]:
    """The assets of the studies that come with the package."""
    return [*experiment_assets([trial for name in study_names() for trial in trials_of(name)]), experiment_leaderboard]


def write_page(data: Store, file: Path) -> list[str]:
    """Write the results of the shipped studies as a page in Markdown, with their pictures in a folder beside it.

    What the page says of a study that has no results in this store stays: they may come from another one.

    Returns:
        The studies that have results.
    """
    before = sections_of(file.read_text(encoding="utf-8")) if file.is_file() else {}
    sections, measured = [], []
    for name in study_names():
        study, results = load_study(name), results_of(data, trials_of(name))
        if results:
            measured.append(name)
            replace_file(file.with_suffix("") / f"{name}.svg", leaderboard.picture(study, results))
        place = f"{file.stem}/{name}.svg" if results else ""
        section = leaderboard.section(name, study, results, picture=place)
        sections.append(marked(name, section if results else before.get(name, section)))
    replace_file(file, "\n\n".join([leaderboard.HEADING.strip(), *sections, ""]).encode())
    return measured


@dataclass
class Estimate:
    """What is still to be made, and how long that will take; each trial that is made corrects it.

    Attributes:
        trials: all that are to be there in the end.
        fetch: gives the file of a week.
        folder: where bases are kept that are made for a trial.
        finished: the results that there are, of these trials and of others.
        others: trials of which there are results.
        why: what the seconds go by, in words.
    """

    trials: Sequence[Trial]
    fetch: Fetch
    folder: Path
    finished: dict[str, Result]
    others: Sequence[Trial] = ()
    why: str = ""
    _counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    _row_seconds: dict[str, float | None] = field(default_factory=dict)
    _made: list[tuple[float, float]] = field(default_factory=list)

    def open_trials(self) -> list[Trial]:
        """Those that have no result yet."""
        return [trial for trial in self.trials if trial.key not in self.finished]

    def take(self, trial: Trial, result: Result, seconds: float) -> None:
        """A trial was made, in so many seconds by the clock."""
        if trial.key not in self.finished:
            self._made.append((seconds, result.spent))
        self.finished[trial.key] = result

    def in_words(self) -> str:
        """How many there are, how many are finished, and how long the others will take."""
        left = self.open_trials()
        line = f"{len(self.trials)} trials, {len(self.trials) - len(left)} of them finished"
        return f"{line}; {self.time_left()}{self.why and f', by {self.why}'}" if left else f"{line}: nothing is left"

    def time_left(self) -> str:
        """In words."""
        seconds = self.seconds_left()
        return (
            "how long it takes cannot be told yet" if seconds is None else f"about {progress.spoken_time(seconds)} left"
        )

    def seconds_left(self) -> float | None:
        """By what the clock has said so far; None where a base is not here yet."""
        each = [self._seconds(trial) for trial in self.open_trials()]
        if None in each:
            return None
        clock, own = (sum(column) for column in zip(*self._made, strict=True)) if self._made else (1.0, 1.0)
        return sum(filter(None, each)) * (clock / own if own else 1.0)

    def _seconds(self, trial: Trial) -> float | None:
        """Of a trial: of its arm with other seeds, else by its rows and the seconds a row of its study, or of its base."""
        trials = {each.key: each for each in (*self.others, *self.trials)}
        known = [trials[key] for key in self.finished]
        same = [other for other in known if (other.study, other.arm) == (trial.study, trial.arm)]
        if same:
            return statistics.mean(self.finished[other.key].spent for other in same)
        alike = [other for other in known if other.study == trial.study and _trains(other) == _trains(trial)]
        alike = alike or [other for other in known if _base(other) == _base(trial) and _trains(other)]
        if alike:
            self.why = self.why or f"{len(alike)} finished trials of the same base"
            total = sum(self.finished[other.key].spent for other in alike)
            row_seconds: float | None = total / sum(self._rows(other) for other in alike)
        else:
            row_seconds = self._tried(trial)
        return None if row_seconds is None else row_seconds * self._rows(trial)

    def _rows(self, trial: Trial) -> float:
        """How many rows of a training step it comes to, the questions asked afterwards among them."""
        asked = GROUPS_ROWS if trial.sample is None else QUESTION_ROWS * trial.sample.questions
        return asked + (self._steps(trial) * trial.recipe.curriculum.batch_rows if _trains(trial) else 0.0)

    def _steps(self, trial: Trial) -> int:
        wanted = trial.recipe.curriculum.last_names
        key = f"{trial.data.model_dump_json()}{wanted}"
        if key not in self._counts:
            examples = examples_of(rows_of(trial.data, self.fetch)[0], worded(trial.data), last_names=wanted)
            self._counts[key] = len(examples), sum(example.teaches for example in examples)
        rows, teaching = self._counts[key]
        curriculum = trial.recipe.curriculum
        if trial.recipe.method == "mlx_lm":
            return min(curriculum.max_steps, curriculum.max_epochs * (rows // curriculum.batch_rows))
        return steps_expected(trial.recipe, teaching)

    def _tried(self, trial: Trial) -> float | None:
        """Seconds a row of a step, by two steps of this trial, the first of its base; None where that is not here."""
        from nfl_lora_pipeline.tuning.learn import forecast

        base = _base(trial)
        if base not in self._row_seconds and would_be_downloaded(trial.recipe.base_model):
            self._row_seconds[base] = None
        if base not in self._row_seconds:
            made_of, recipe = material(trial, self.fetch, self.folder), trial.recipe.changed(method="recall")
            examples, fresh = made_of.examples(recipe), made_of.fresh(recipe)
            found = forecast(examples, recipe=recipe, base=made_of.base, fresh=fresh)
            seconds = found.step_seconds or 0.0
            self._row_seconds[base] = seconds / recipe.curriculum.batch_rows
            self.why = f"a trial step of {seconds:.2g} s"
        return self._row_seconds[base]


def _trains(trial: Trial) -> bool:
    return trial.side.way == "tuned"


def _base(trial: Trial) -> str:
    return f"{trial.recipe.base_model} {trial.side.base_bits}"


def estimate(trials: Sequence[Trial], resources: Resources) -> Estimate:
    """How long trials will take, by what the store has of them and of all shipped studies."""
    data = resources.store.open()
    shipped = [trial for name in study_names() for trial in trials_of(name)]
    found = {trial.key: result for trial in (*trials, *shipped) for result in results_of(data, [trial])}
    return Estimate(trials, fetch_from(resources.week_source), bases_of(data), found, shipped)


def run_trials(
    trials: Sequence[Trial], resources: Resources, listener: progress.Listener
) -> Iterator[tuple[Trial, Result]]:
    """Make trials one after another in runs of this process; those that are finished are not made again.

    Raises:
        StepFailed: a step failed.
        Interrupted: a signal has come; what is finished is kept, and a training goes on where it was.
    """
    data, fetch = resources.store.open(), fetch_from(resources.week_source)
    assets = experiment_assets(trials, fetch)
    with told_what_is_kept(listener) as (arrivals, listen):

        def say(line: str) -> None:
            listen("storage", line, None)

        with opened(data, say) as instance:
            for trial in trials:
                found = read_result(data.trial(trial.study, trial.arm, trial.seed), trial)
                if not found or found.fingerprint != fingerprint_of(trial, material(trial, fetch, bases_of(data))):
                    tags = {TRIAL_TAG: trial.key}
                    in_one_run(assets, instance, resources, trial.key, purpose="nfl-lora experiment", tags=tags)
                yield from ((trial, result) for result in results_of(data, [trial]))
                arrivals.check()
