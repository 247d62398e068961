"""Experiments: a partition a trial, its adapter and its result, and the leaderboard of all of them."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import dagster as dg

from nfl_lora_pipeline import progress
from nfl_lora_pipeline.defs.common import CODE, OWNERS, accelerator, clear_failure, say
from nfl_lora_pipeline.defs.instance import opened
from nfl_lora_pipeline.defs.resources import Resources, StoreResource, WeekSource
from nfl_lora_pipeline.defs.update import in_one_run, told_what_is_kept
from nfl_lora_pipeline.experiments import leaderboard
from nfl_lora_pipeline.experiments.study import Trial, load_study, study_names, trials_of
from nfl_lora_pipeline.experiments.trial import (
    Material,
    Result,
    Say,
    fingerprint_of,
    is_trained,
    material,
    measure,
    read_result,
    train,
)
from nfl_lora_pipeline.files import replace_file
from nfl_lora_pipeline.store import Store

TRIAL_TAG = "nfl_lora/trial"
GROUP = "experiments"
Work = Callable[[Trial, Material, Path, Say], "dg.MaterializeResult[None]"]
ONE_TRIAL_A_RUN = dg.BackfillPolicy.multi_run(1)


def made_of(trial: Trial, data: Store, week_source: WeekSource) -> Material:
    """What a trial is made of; its weeks come from where the deployment's come from."""

    def tell(line: str) -> None:
        progress.tell("experiment_adapter", line, None)

    return material(trial, lambda week: week_source.fetch(week, tell), data.experiments / "bases")


def results_of(data: Store, trials: Sequence[Trial]) -> list[Result]:
    """What trials came to, those that are finished, by what their studies say now."""
    found = (read_result(data.trial(trial.study, trial.arm, trial.seed), trial) for trial in trials)
    return [result for result in found if result]


def experiment_assets(trials: Sequence[Trial]) -> list[dg.AssetsDefinition]:
    """`experiment_adapter` and `experiment_result`, with a partition for each of some trials."""
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
            description=work.__doc__,
        )(_on_trial(trials, work))

    return [
        asset("experiment_adapter", _adapter, "training", {"mlx", "safetensors"}),
        asset("experiment_result", _result, "evaluation", {"mlx"}, ["experiment_adapter"]),
    ]


def _on_trial(trials: Sequence[Trial], work: Work) -> Callable[..., dg.MaterializeResult[None]]:
    """The body of an asset that does some work on the trial of its partition."""
    by_key = {trial.key: trial for trial in trials}

    def body(
        context: dg.AssetExecutionContext, store: StoreResource, week_source: WeekSource
    ) -> dg.MaterializeResult[None]:
        data, trial = store.open(), by_key[context.partition_key]
        with clear_failure(), accelerator(context, data):
            made = made_of(trial, data, week_source)
            folder = data.trial(trial.study, trial.arm, trial.seed)
            return work(trial, made, folder, lambda line, share: say(context, line, share))

    return body


def _adapter(trial: Trial, made: Material, folder: Path, tell: Say) -> dg.MaterializeResult[None]:
    """The adapter of one trial: a study, an arm of it, a seed. One that was made of the same is not made again."""
    reused = is_trained(trial, made, folder)
    if not reused:
        train(trial, made, folder, tell)
    return dg.MaterializeResult(
        metadata={"folder": str(folder), "reused": reused, "study": trial.study, "arm": trial.arm, "seed": trial.seed},
        data_version=dg.DataVersion(fingerprint_of(trial, made)),
    )


def _result(trial: Trial, made: Material, folder: Path, tell: Say) -> dg.MaterializeResult[None]:
    """What that adapter knows and makes up, what it took, and how large it is."""
    found = read_result(folder, trial)
    if found is None or found.fingerprint != fingerprint_of(trial, made):
        found = measure(trial, made, folder, tell)
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

    Returns:
        The studies that have results.
    """
    sections, measured = [], []
    for name in study_names():
        study, results = load_study(name), results_of(data, trials_of(name))
        if results:
            measured.append(name)
            replace_file(file.with_suffix("") / f"{name}.svg", leaderboard.picture(study, results))
        place = f"{file.stem}/{name}.svg" if results else ""
        sections.append(leaderboard.section(name, study, results, picture=place))
    replace_file(file, "\n\n".join([leaderboard.HEADING.strip(), *sections, ""]).encode())
    return measured


def seconds_left(trials: Sequence[Trial], results: Sequence[Result]) -> float | None:
    """About how long trials will take, by what those of the same study took; None where none is finished."""
    by_arm: dict[str, list[float]] = {}
    for result in results:
        by_arm.setdefault(result.arm, []).append(result.figures["seconds"] or 0.0)
    if not by_arm:
        return None
    of_any = statistics.mean(seconds for of_arm in by_arm.values() for seconds in of_arm)
    return sum(statistics.mean(by_arm.get(trial.arm, [of_any])) for trial in trials)


def run_trials(trials: Sequence[Trial], resources: Resources, listener: progress.Listener) -> Iterator[Result]:
    """Make trials one after another in runs of this process; those that are finished are not made again.

    Raises:
        StepFailed: a step failed.
        Interrupted: a signal has come; what is finished is kept, and a training goes on where it was.
    """
    data, assets = resources.store.open(), experiment_assets(trials)
    with told_what_is_kept(listener) as (arrivals, listen):

        def say(line: str) -> None:
            listen("storage", line, None)

        with opened(data, say) as instance:
            for trial in trials:
                in_one_run(
                    assets, instance, resources, trial.key, purpose="nfl-lora experiment", tags={TRIAL_TAG: trial.key}
                )
                yield from results_of(data, [trial])
                arrivals.check()
