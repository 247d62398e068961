"""What every asset has in common: its code version, when it is made anew, how it fails, how what it made is hashed."""

import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import polars as pl

from nfl_lora_pipeline import progress
from nfl_lora_pipeline.dataset.templates import wordings_hash
from nfl_lora_pipeline.defs.resources import DatasetResource, Trainer
from nfl_lora_pipeline.files import EMBEDDED, locked, os_error
from nfl_lora_pipeline.models import base_model
from nfl_lora_pipeline.recipes.recipe import RECIPES_FOLDER, Recipe
from nfl_lora_pipeline.stats import stats_hash
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.sources import SourceUnreachable
from nfl_lora_pipeline.weeks.week import NflWeek

# What Dagster 1.13 says of every job, sensor and schedule with an owner, and of every backfill policy.
warnings.filterwarnings("ignore", message="Parameter `(owners|backfill_policy)`", category=dg.BetaWarning)

# And what it says, on the terminal, of every check that was not judged and so has no result.
logging.getLogger("dagster._core.execution.plan.active").addFilter(
    lambda record: "emitted no result" not in record.getMessage()
)

nfl_week = dg.DynamicPartitionsDefinition(name="nfl_week")
OWNERS = ["team:nfl-lora"]

# Raise one of these when a change in the code should make its asset anew.
CODE = {
    "raw_wr_json": "1",
    "players": f"3-{stats_hash()}",
    "qa_pairs": "2",
    "dataset_splits": "4",
    "base_model": "1",
    "adapter": "20",
    "evaluation_report": "16",
    "promoted_adapter": "1",
    "experiment_adapter": "1",
    "experiment_result": "2",
    "experiment_leaderboard": "2",
}


def code_versions(dataset: DatasetResource, trainer: Trainer, *, weeks: Sequence[str] = ()) -> dict[str, str]:
    """What, besides the data before it, makes each asset what it is: its code, and what it is told to do.

    Args:
        dataset: what is taught. The players' data version covers the stats in use, hence their code version does.
        trainer: how.
        weeks: the choice of a deployment. That of a single run does not count: after `nfl-lora run --weeks 1` the UI, which
            takes every week held, would show the splits as out of date.
    """
    stats, recipe = ",".join(dataset.stats), trainer.load_or_none()
    return CODE | {
        "players": f"{CODE['players']}-{stats}",
        "qa_pairs": f"{CODE['qa_pairs']}-{wordings_hash()}-{stats}",
        "dataset_splits": "-".join([CODE["dataset_splits"], dataset.mode, stats, ",".join(weeks)]),
        "base_model": _base_model_version(recipe),
        "adapter": f"{CODE['adapter']}-{_recipe_hash(trainer.recipe)}",
        "evaluation_report": _report_version(recipe, replace=trainer.replace),
    }


def _base_model_version(recipe: Recipe | None) -> str:
    """Changes with the name of the base model and, where it is the embedded one, with its files."""
    if recipe is None:
        return CODE["base_model"]
    name = recipe.base_model
    revision = base_model.resolve(name).revision if name == EMBEDDED else ""
    return f"{CODE['base_model']}-{name}-{revision}"


def _recipe_hash(name: str) -> str:
    """Changes with the recipe's file."""
    file = Path(name) if Path(name).suffix in (".yaml", ".yml") else RECIPES_FOLDER / f"{name}.yaml"
    return _hash(file.read_bytes()) if file.is_file() else name


def _report_version(recipe: Recipe | None, *, replace: bool) -> str:
    """Changes with the recipe's gates, so that a new threshold is held against at once."""
    gates = [str(value) for value in recipe.gates.model_dump().values()] if recipe else []
    return "-".join([CODE["evaluation_report"], *gates, *(["replace"] if replace else [])])


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]


def week_of(context: dg.AssetExecutionContext) -> NflWeek:
    """The week that a partitioned asset is run for.

    A key that stands for none was typed in the UI. It is removed, or the conditions would ask for it every hour.

    Raises:
        dagster.Failure: the key stands for no week.
    """
    try:
        return NflWeek.parse(context.partition_key)
    except ValueError as error:
        context.instance.delete_dynamic_partition(str(nfl_week.name), context.partition_key)
        text = f"{error}; the partition is removed, since it can never be made"
        raise dg.Failure(text, allow_retries=False) from error


def say(context: dg.AssetExecutionContext, line: str, share: float | None = None) -> None:
    """A line for the run's log, and for whoever shows progress."""
    context.log.info(line)
    progress.tell(context.asset_key.to_user_string(), line, share)


@contextmanager
def clear_failure() -> Iterator[None]:
    """Turn the system's errors, and the domain's, which say what is wrong and what to do, into failures that show that text.

    Only a source that gave no answer is worth asking again.
    """
    try:
        yield
    except ValueError as error:
        raise dg.Failure(description=str(error), allow_retries=isinstance(error, SourceUnreachable)) from error
    except OSError as error:
        raise dg.Failure(description=os_error(error), allow_retries=False) from error


@contextmanager
def accelerator(context: dg.AssetExecutionContext, held: Store) -> Iterator[None]:
    """One training or evaluation at a time in a store, whoever started it; the log says who is waited for.

    A lock of the system's and no pool of Dagster's: a pool's slot outlives the process that claimed it, and the executor
    that waits for one neither sleeps nor listens to signals.
    """
    step = context.asset_key.to_user_string()
    purpose = f"{step} of run {context.run.run_id[:8]}"
    with locked(held.lock("accelerator"), purpose=purpose, on_wait=lambda line: say(context, line)):
        yield


def frame_version(frame: pl.DataFrame) -> str:
    """A hash of a sorted frame's names, types and values."""
    digest = hashlib.sha256(repr(frame.schema).encode())
    digest.update(frame.write_csv().encode())
    return digest.hexdigest()[:16]


RETRY_CRON = "17 * * * *"  # once an hour


def on_change(*, skipped_checks_pass: bool = False) -> dg.AutomationCondition:  # type: ignore[type-arg]
    """Input or code changed, or never made; nothing before it is missing, being made, or blocked by a check.

    Args:
        skipped_checks_pass: whether a blocking check before it may have been left out of its run: what was not judged.
    """
    condition = dg.AutomationCondition
    checked = condition.all_deps_blocking_checks_passed()
    if skipped_checks_pass:
        fine = ~condition.check_failed() | condition.will_be_requested()
        checked = condition.all_deps_match(condition.all_checks_match(fine, blocking_only=True))
    never_made = condition.missing() & ~condition.execution_failed()
    changed = condition.any_deps_match(condition.data_version_changed()) | condition.code_version_changed()
    trigger: dg.AutomationCondition = never_made | changed | failed_an_hour_ago()  # type: ignore[type-arg]
    wanted = trigger.since_last_handled()
    return (
        wanted & ~condition.any_deps_missing() & ~condition.any_deps_in_progress() & ~condition.in_progress() & checked
    ).with_label("its input or its code changed")


def on_failure() -> dg.AutomationCondition:  # type: ignore[type-arg]
    """Its last run failed and an hour has passed: for an asset that something else asks for."""
    condition = dg.AutomationCondition
    return (failed_an_hour_ago().since_last_handled() & ~condition.in_progress()).with_label("its last run failed")


def failed_an_hour_ago() -> dg.AutomationCondition:  # type: ignore[type-arg]
    """Its last run failed, and the next hour has begun."""
    condition = dg.AutomationCondition
    failed: dg.AutomationCondition = condition.execution_failed() & condition.cron_tick_passed(RETRY_CRON)  # type: ignore[type-arg]
    return failed
