"""The base model, and the adapter that teaches it."""

import hashlib
import json
import os
import shutil

import dagster as dg
import polars as pl

from nfl_lora_pipeline.adapters.lineage import choose_parent, taught_facts
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.defs import versions
from nfl_lora_pipeline.defs.common import accelerator, clear_failure, data_uri, on_change, say
from nfl_lora_pipeline.defs.dataset import dataset_splits
from nfl_lora_pipeline.defs.resources import StoreResource, Trainer
from nfl_lora_pipeline.defs.weeks import parquet
from nfl_lora_pipeline.files import DamagedFile, replace_file, replacing_folder
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.blas import blas_message
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import Provenance, TrainingRecord, json_bytes, weights_hash
from nfl_lora_pipeline.tuning.recipe import NOT_OF_THE_ADAPTER

NOT_COUNTED = ("recipe", "sources", "parent", "weights_sha256", "schema_version")


@dg.asset(
    group_name="season",
    kinds={"huggingface"},
    code_version=versions.base_model_version(),
    automation_condition=on_change(),
)
def base_model(context: dg.AssetExecutionContext, trainer: Trainer) -> dg.MaterializeResult[None]:
    """The model that is taught: found on this machine, or downloaded once."""
    with clear_failure():
        base = base_models.resolve(trainer.load().base_model)
    say(context, f"{base.name}, {base.size_bytes / 1e6:,.1f} MB, revision {base.revision}")
    return dg.MaterializeResult(
        metadata={
            "name": base.name,
            "folder": str(base.folder),
            "revision": base.revision,
            "size_mb": base.size_bytes / 1e6,
        },
        data_version=dg.DataVersion(base.revision),
    )


@dg.asset(
    deps=[dataset_splits, base_model],
    group_name="season",
    kinds={"mlx"},
    code_version=versions.adapter_version(),
    automation_condition=on_change(),
)
def adapter(context: dg.AssetExecutionContext, store: StoreResource, trainer: Trainer) -> dg.MaterializeResult[None]:
    """The LoRA adapter that knows every fact in the splits; kept under the fingerprint of all that made it."""
    held = store.open()
    with clear_failure(), accelerator(context, held):
        provenance = _provenance(held, trainer)
        fingerprint = _fingerprint(provenance)
        folder = held.adapter(fingerprint)
        damage = _damage(held, fingerprint)
        reused = folder.is_dir() and not damage
        if damage:
            promoted = ", the promoted one" if fingerprint == held.promoted() else ""
            say(context, f"adapter {fingerprint}{promoted}, is trained anew in its place, since {damage}")
        if reused:
            _mend_facts(context, held, fingerprint)
            say(context, f"adapter {fingerprint} is there already: same rows, base model and recipe", 1.0)
        else:
            _train(context, held, trainer, provenance, fingerprint)
        for unfinished in held.all_unfinished():  # its own, and those on data that has changed since
            shutil.rmtree(unfinished)
        held.set_latest(fingerprint)
        log = held.training_log(fingerprint)
    return dg.MaterializeResult(
        metadata={"folder": str(folder), "reused": reused, **_figures(log)}, data_version=dg.DataVersion(fingerprint)
    )


def _provenance(held: Store, trainer: Trainer) -> Provenance:
    recipe = trainer.load()
    base = base_models.resolve(recipe.base_model)
    return Provenance.model_validate(
        held.read_splits_record().content()
        | {
            "schema_version": Provenance.SCHEMA,
            "rows": held.rows_hash(),
            "base_model": base.name,
            "base_revision": base.revision,
            "recipe": trainer.recipe,
            "recipe_values": recipe.model_dump(),
            "code": versions.ADAPTER,
        }
    )


def _fingerprint(provenance: Provenance) -> str:
    """A hash of all that makes an adapter what it is; the recipe's name or path and where the weeks came from do not."""
    recipe = {key: value for key, value in provenance.recipe_values.items() if key not in NOT_OF_THE_ADAPTER}
    counted = {key: value for key, value in provenance.content().items() if key not in NOT_COUNTED}
    counted["recipe_values"] = recipe
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:16]


def _damage(held: Store, fingerprint: str) -> str:
    """What is wrong with an adapter that is held, in words; empty where nothing is, or there is none."""
    if not os.path.lexists(held.adapter(fingerprint)):
        return ""
    try:
        held.check_adapter(fingerprint)
        held.check_records(fingerprint)
    except DamagedFile as error:
        return f"{error.path} {error.wrong}"
    described = _fingerprint(held.provenance(fingerprint))
    return "" if described == fingerprint else f"{held.adapter(fingerprint) / 'provenance.json'} is that of {described}"


def _mend_facts(context: dg.AssetExecutionContext, held: Store, fingerprint: str) -> None:
    """Write what an adapter was taught anew where it is damaged: the splits are still those that it was trained on."""
    try:
        held.read_taught_facts(fingerprint)
    except DamagedFile as error:
        say(context, f"written anew, since {error.path} {error.wrong}")
        replace_file(error.path, parquet(taught_facts(held.read_rows())))


def _train(
    context: dg.AssetExecutionContext, held: Store, trainer: Trainer, provenance: Provenance, fingerprint: str
) -> None:
    from nfl_lora_pipeline.dataset.examples import fresh_refusals, train_examples
    from nfl_lora_pipeline.tuning.learn import learn

    (context.log.warning if "no fast BLAS" in blas_message() else context.log.info)(blas_message())
    rows = held.read_rows()
    recipe = trainer.load()
    parent, why = choose_parent(held, provenance, rows, but=fingerprint) if recipe.warm_start else (None, [])
    for line in why:
        say(context, line)
    refusals = fresh_refusals(
        rows,
        load_templates(),
        provenance.stats,
        elsewhere=recipe.curriculum.elsewhere_share,
        other_stats=recipe.curriculum.other_stats_share,
        shared=provenance.shared_names,
        seed=recipe.seed,
    )
    with replacing_folder(held.adapter(fingerprint)) as unfinished:
        learn(
            train_examples(rows),
            unfinished,
            recipe=recipe,
            refusals=refusals,
            held_out=rows.filter(pl.col("split") == "valid").select("question", "answer").rows(),
            start=held.adapter(parent) if parent else None,
            checkpoint=held.unfinished(fingerprint) / "checkpoint.safetensors",
            report=lambda line, share: say(context, line, share),
        )
        taught_facts(rows).write_parquet(unfinished / held.taught_facts(fingerprint).name)
        made = provenance.model_copy(update={"parent": parent, "weights_sha256": weights_hash(unfinished)})
        (unfinished / "provenance.json").write_bytes(json_bytes(made.content()))


def _figures(log: TrainingRecord) -> dict[str, dg.MetadataValue | str | float]:
    from nfl_lora_pipeline.reports.plots import loss_plot

    return {
        "iterations": log.iterations,
        "ended": log.stopped,
        "facts": log.facts,
        "uncertain_facts": len(log.uncertain),
        "lowest_probability": log.lowest_probability,
        "trained_parameters": log.trained_parameters,
        "tokens_per_second": log.tokens_per_second,
        "peak_memory_mb": log.peak_memory_bytes / 1e6,
        "training_seconds": log.seconds,
        "loss": dg.MetadataValue.md(f"![loss]({data_uri(loss_plot(log.losses, log.certain))})"),
    }
