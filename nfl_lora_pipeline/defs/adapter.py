"""The base model, and the adapter that teaches it."""

import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from nfl_lora_pipeline import progress
from nfl_lora_pipeline.adapters.lineage import choose_parent, taught_facts
from nfl_lora_pipeline.dataset.qa_pairs import SharedNames
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.defs.common import CODE, OWNERS, accelerator, clear_failure, on_change, say
from nfl_lora_pipeline.defs.dataset import dataset_splits, parquet
from nfl_lora_pipeline.defs.resources import StoreResource, Trainer
from nfl_lora_pipeline.files import DamagedFile, replace_file, replacing_folder
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.machine import blas_message
from nfl_lora_pipeline.recipes.recipe import NOT_OF_THE_ADAPTER, Recipe
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import Provenance, TrainingRecord, json_bytes, weights_hash

if TYPE_CHECKING:
    from nfl_lora_pipeline.dataset.examples import Example
    from nfl_lora_pipeline.dataset.unanswerable import Drawn

NOT_COUNTED = ("recipe", "sources", "parent", "weights_sha256", "trained_at", "schema_version")
OBSERVED_EVERY_SECONDS = 60.0
Tell = Callable[[str, float | None], None]


@dg.asset(
    group_name="season",
    kinds={"huggingface"},
    owners=OWNERS,
    tags={"stage": "training"},
    code_version=CODE["base_model"],
    automation_condition=on_change(),
)
def base_model(context: dg.AssetExecutionContext, trainer: Trainer) -> dg.MaterializeResult[None]:
    """The language model that is taught: found on this machine, or downloaded once."""
    with clear_failure():
        base = base_models.resolve(trainer.load().base_model)
    say(context, f"{base.name}, {base.size_bytes / 1e6:,.1f} MB, revision {base.revision}")
    return dg.MaterializeResult(
        metadata={
            "name": base.name,
            "folder": str(base.folder),
            "revision": base.revision,
            "size_mb": round(base.size_bytes / 1e6, 1),
        },
        data_version=dg.DataVersion(base.revision),
    )


@dg.asset(
    deps=[dataset_splits, base_model],
    group_name="season",
    kinds={"mlx", "safetensors"},
    owners=OWNERS,
    tags={"stage": "training"},
    code_version=CODE["adapter"],
    automation_condition=on_change(),
)
def adapter(context: dg.AssetExecutionContext, store: StoreResource, trainer: Trainer) -> dg.MaterializeResult[None]:
    """The LoRA adapter that knows every fact in the splits; kept under the fingerprint of all that made it."""
    data = store.open()
    with clear_failure(), accelerator(context, data), progress.measuring(Curve(context).take):
        fingerprint, reused = build_adapter(data, trainer, lambda line, share: say(context, line, share), context.log)
        log = data.training_log(fingerprint)
    return dg.MaterializeResult(
        metadata={"folder": str(data.adapter(fingerprint)), "reused": reused, **_figures(log)},
        data_version=dg.DataVersion(fingerprint),
    )


class Curve:
    """Draws a training in the UI while it runs: an observation of the asset at the first check, and every minute.

    The materialisation at its end has the same figures by the same names, so that one curve goes on in the other.
    """

    def __init__(self, context: dg.AssetExecutionContext):
        self.context, self.observed_at, self.is_checked = context, time.monotonic(), False

    def take(self, figures: progress.Figures) -> None:
        """Take figures in, and show them where it is time to."""
        is_first_check = figures.checked and not self.is_checked
        self.is_checked |= figures.checked
        if not is_first_check and time.monotonic() - self.observed_at < OBSERVED_EVERY_SECONDS:
            return
        self.observed_at = time.monotonic()
        metadata = {"iterations": figures.iteration, **_curve(figures.certain, figures.loss)}
        self.context.log_event(dg.AssetObservation(self.context.asset_key, metadata=metadata))


def _curve(certain: float, loss: float) -> dict[str, float]:
    """The figures that are drawn as they grow; a loss that there is none of yet is left out."""
    return {"certain (%)": round(100 * certain, 1)} | ({} if math.isnan(loss) else {"loss": round(loss, 4)})


def build_adapter(data: Store, trainer: Trainer, tell: Tell, log: logging.Logger) -> tuple[str, bool]:
    """Train an adapter on the splits, unless one made of the same is there and whole.

    Returns:
        Its fingerprint, and whether it was there.
    """
    provenance = provenance_of(data, trainer)
    fingerprint = fingerprint_of(provenance)
    damage = damage_of(data, fingerprint)
    reused = data.adapter(fingerprint).is_dir() and not damage
    if damage:
        promoted = ", the promoted one" if fingerprint == data.promoted() else ""
        tell(f"adapter {fingerprint}{promoted}, is trained anew in its place, since {damage}", None)
    if reused:
        _mend_facts(data, fingerprint, tell)
        tell(f"adapter {fingerprint} is there already: same rows, base model and recipe", 1.0)
    else:
        (log.warning if "no fast BLAS" in blas_message() else log.info)(blas_message())
        _train(data, trainer.load(), provenance, fingerprint, tell)
    for unfinished in data.all_unfinished():  # its own, and those on data that has changed since
        shutil.rmtree(unfinished)
    data.set_latest(fingerprint)
    return fingerprint, reused


def provenance_of(data: Store, trainer: Trainer) -> Provenance:
    """What an adapter on the splits is made of."""
    recipe = trainer.load()
    base = base_models.resolve(recipe.base_model)
    return Provenance.model_validate(
        data.read_splits_record().content()
        | {
            "schema_version": Provenance.SCHEMA,
            "rows": data.rows_hash(),
            "base_model": base.name,
            "base_revision": base.revision,
            "recipe": trainer.recipe,
            "recipe_values": recipe.model_dump(),
            "code": CODE["adapter"],
        }
    )


def fingerprint_of(provenance: Provenance) -> str:
    """A hash of all that makes an adapter what it is; the recipe's name or path and where the weeks came from do not."""
    recipe = {key: value for key, value in provenance.recipe_values.items() if key not in NOT_OF_THE_ADAPTER}
    counted = {key: value for key, value in provenance.content().items() if key not in NOT_COUNTED}
    counted["recipe_values"] = recipe
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:16]


def damage_of(data: Store, fingerprint: str) -> str:
    """What is wrong with an adapter that of the store, in words; empty where nothing is, or there is none."""
    if not os.path.lexists(data.adapter(fingerprint)):
        return ""
    try:
        data.check_adapter(fingerprint)
        data.check_records(fingerprint)
    except DamagedFile as error:
        return f"{error.path} {error.wrong}"
    described = fingerprint_of(data.provenance(fingerprint))
    return "" if described == fingerprint else f"{data.adapter(fingerprint) / 'provenance.json'} is that of {described}"


def _mend_facts(data: Store, fingerprint: str, tell: Tell) -> None:
    """Write what an adapter was taught anew where it is damaged: the splits are still those that it was trained on."""
    try:
        data.read_taught_facts(fingerprint)
    except DamagedFile as error:
        tell(f"written anew, since {error.path} {error.wrong}", None)
        replace_file(error.path, parquet(taught_facts(data.read_rows())))


def taught_by(rows: pl.DataFrame, shared: SharedNames, recipe: Recipe) -> "list[Example]":
    """What of some rows a recipe trains on."""
    from nfl_lora_pipeline.dataset.examples import examples_of

    return examples_of(rows, load_templates(), last_names=recipe.curriculum.last_names, shared=shared)


def fresh_of(rows: pl.DataFrame, provenance: Provenance, recipe: Recipe) -> "Iterator[Drawn]":
    """The questions that are drawn afresh for each step, about the people of some rows."""
    from nfl_lora_pipeline.dataset.examples import fresh_questions

    return fresh_questions(
        rows,
        load_templates(),
        provenance.stats,
        recipe.curriculum.mixture(talks=not base_models.resolve(recipe.base_model).single_turn),
        shared=provenance.shared_names,
        seed=recipe.seed,
    )


def _train(data: Store, recipe: Recipe, provenance: Provenance, fingerprint: str, tell: Tell) -> None:
    from nfl_lora_pipeline.tuning.learn import learn

    rows = data.read_rows()
    parent, why = choose_parent(data, provenance, rows, but=fingerprint) if recipe.warm_start else (None, [])
    for line in why:
        tell(line, None)
    with replacing_folder(data.adapter(fingerprint)) as unfinished:
        learn(
            taught_by(rows, provenance.shared_names, recipe),
            unfinished,
            recipe=recipe,
            fresh=fresh_of(rows, provenance, recipe),
            held_out=rows.filter(pl.col("split") == "valid").select("question", "answer").rows(),
            start=data.adapter(parent) if parent else None,
            checkpoint=data.unfinished(fingerprint) / "checkpoint.safetensors",
            report=tell,
        )
        taught_facts(rows).write_parquet(unfinished / data.taught_facts(fingerprint).name)
        trained_at = datetime.now(UTC).isoformat(timespec="seconds")
        made = provenance.model_copy(
            update={"parent": parent, "weights_sha256": weights_hash(unfinished), "trained_at": trained_at}
        )
        (unfinished / "provenance.json").write_bytes(json_bytes(made.content()))


def _figures(log: TrainingRecord) -> dict[str, dg.MetadataValue | str | float]:
    from nfl_lora_pipeline.reports.plots import data_uri, loss_plot

    return {
        "iterations": log.iterations,
        "ended": log.stopped,
        "facts": log.facts,
        "uncertain_facts": len(log.uncertain),
        "lowest_probability": round(log.lowest_probability, 3),
        "trained_parameters": log.trained_parameters,
        "tokens_per_second": round(log.tokens_per_second),
        "peak_memory_mb": round(log.peak_memory_bytes / 1e6),
        "training_seconds": round(log.seconds, 1),
        **_curve(1 - len(log.uncertain) / max(1, log.facts), log.losses[-1][1] if log.losses else math.nan),
        "course": dg.MetadataValue.md(f"![loss]({data_uri(loss_plot(log.losses, log.certain))})"),
    }
