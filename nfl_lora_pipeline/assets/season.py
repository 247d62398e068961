"""What is made of all weeks together: splits, the adapter, the report."""

import base64
import hashlib
import json
import time

import dagster as dg
import polars as pl

from nfl_lora_pipeline import base_model as base_models
from nfl_lora_pipeline.assets.common import clear_failure, files_version, say
from nfl_lora_pipeline.assets.weeks import qa_pairs
from nfl_lora_pipeline.files import replacing_folder
from nfl_lora_pipeline.resources import StoreResource, Trainer
from nfl_lora_pipeline.splits import SPLITS, SplitMode, split_rows, write_splits
from nfl_lora_pipeline.week import NflWeek
from nfl_lora_pipeline.wording import Stat, load_templates

ADAPTER_CODE = "1"


class SplitsConfig(dg.Config):
    """Which questions to train on.

    Attributes:
        weeks: partition keys; empty for every week held of the newest season.
        stats: columns of the players frame that `templates.yaml` has words for.
        mode: "every_fact", or "random_facts" for the split of the original experiment.
    """

    weeks: list[str] = []
    stats: list[str] = ["receiving_yards"]
    mode: str = "every_fact"


@dg.asset(deps=[qa_pairs], group_name="season", kinds={"jsonl"}, code_version="1")
def dataset_splits(
    context: dg.AssetExecutionContext, store: StoreResource, config: SplitsConfig
) -> dg.MaterializeResult[None]:
    """`train.jsonl`, `valid.jsonl` and `test.jsonl`, as `mlx_lm.lora --data` takes them."""
    held = store.open()
    with clear_failure():
        weeks = _chosen_weeks(held.weeks(), config.weeks)
        stats = _chosen_stats(config.stats)
        pairs = pl.concat([pl.read_parquet(held.qa_pairs(week)) for week in weeks])
        rows = split_rows(pairs, load_templates(), stats=stats, mode=_chosen_mode(config.mode))
    with replacing_folder(held.splits) as folder:
        counts = write_splits(rows, folder)
        (folder / "splits.json").write_text(
            json.dumps({"weeks": [str(week) for week in weeks], "stats": stats, "mode": config.mode}, indent=2) + "\n"
        )
    say(context, f"{rows['fact'].n_unique():,} facts: " + ", ".join(f"{split} {count:,}" for split, count in counts.items()))
    return dg.MaterializeResult(
        metadata={"weeks": [str(week) for week in weeks], "stats": list(stats), **counts},
        data_version=files_version([held.splits / f"{split}.jsonl" for split in SPLITS]),
    )


@dg.asset(group_name="season", kinds={"huggingface"}, code_version="1")
def base_model(context: dg.AssetExecutionContext, trainer: Trainer) -> dg.MaterializeResult[None]:
    """The model that is taught: found on this machine, or downloaded once."""
    with clear_failure():
        base = base_models.resolve(trainer.load().base_model)
    say(context, f"base model {base.name}, {base.size_bytes / 1e6:,.1f} MB, revision {base.revision}")
    return dg.MaterializeResult(
        metadata={"name": base.name, "folder": str(base.folder), "revision": base.revision, "size_mb": base.size_bytes / 1e6},
        data_version=dg.DataVersion(base.revision),
    )


@dg.asset(
    deps=[dataset_splits, base_model], group_name="season", kinds={"mlx"}, code_version=ADAPTER_CODE, pool="accelerator"
)
def adapter(context: dg.AssetExecutionContext, store: StoreResource, trainer: Trainer) -> dg.MaterializeResult[None]:
    """The LoRA adapter that knows every fact in the splits; kept under the fingerprint of all that made it."""
    held = store.open()
    with clear_failure():
        recipe = trainer.load()
        base = base_models.resolve(recipe.base_model)
        splits = json.loads((held.splits / "splits.json").read_text(encoding="utf-8"))
        version = files_version([held.splits / f"{split}.jsonl" for split in SPLITS]).value
        made_of = {
            "splits": version,
            **splits,
            "base_model": base.name,
            "base_revision": base.revision,
            "recipe": trainer.recipe,
            "recipe_values": recipe.model_dump(),
            "code": ADAPTER_CODE,
        }
        fingerprint = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
        folder = held.adapter(fingerprint)
        reused = (folder / "provenance.json").is_file()
        if reused:
            say(context, f"adapter {fingerprint} is there already: same rows, base model and recipe", 1.0)
        else:
            _train(context, held.splits, base, recipe, made_of, folder)
    held.set_latest(fingerprint)
    log = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    return dg.MaterializeResult(
        metadata={
            "folder": str(folder),
            "reused": reused,
            "iterations": log["iterations"],
            "facts": log["facts"],
            "uncertain_facts": len(log["uncertain"]),
            "lowest_probability": log["lowest_probability"],
            "trained_parameters": log["trained_parameters"],
            "tokens_per_second": log["tokens_per_second"],
            "peak_memory_mb": log["peak_memory_bytes"] / 1e6,
            "training_seconds": log["seconds"],
            "loss": dg.MetadataValue.md(_plot(log)),
        },
        data_version=dg.DataVersion(fingerprint),
    )


@dg.asset(deps=[adapter], group_name="season", kinds={"mlx"}, code_version="1", pool="accelerator")
def evaluation_report(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult[None]:
    """Base against tuned, question by question: `report.md`, `report.json` and every prediction."""
    from nfl_lora_pipeline.examination import examine
    from nfl_lora_pipeline.report import to_markdown, write_report

    held = store.open()
    with clear_failure():
        summary, predictions, plot = examine(held, say=lambda line, share=None: say(context, line, share))
    folder = held.report(summary["adapter"])
    write_report(folder, summary, predictions, plot)
    recall = summary["recall"]
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.md(to_markdown(summary, loss_plot=_data_uri(plot))),
            "folder": str(folder),
            **{f"recall_{name}": value for name, value in recall.items() if value is not None},
        },
        data_version=dg.DataVersion(summary["adapter"]),
    )


def _train(context, splits, base, recipe, made_of, folder) -> None:  # type: ignore[no-untyped-def]
    from nfl_lora_pipeline.blas import blas_message
    from nfl_lora_pipeline.lessons import fresh_refusals, lessons
    from nfl_lora_pipeline.training import train_adapter

    context.log.info(blas_message())
    rows = pl.read_parquet(splits / "rows.parquet")
    model, tokenizer = base_models.load(base)
    with replacing_folder(folder) as unfinished:
        log = train_adapter(
            model,
            tokenizer,
            lessons(rows),
            recipe,
            unfinished,
            refusals=fresh_refusals(rows, load_templates(), made_of["stats"], seed=recipe.seed),
            report=lambda line, share: say(context, line, share),
        )
        (unfinished / "provenance.json").write_text(json.dumps(made_of, indent=2) + "\n", encoding="utf-8")
    certain = log.facts - len(log.uncertain)
    say(context, f"{certain:,} of {log.facts:,} facts certain, lowest p {log.lowest_probability:.2f}, {log.seconds:.0f} s")


def _plot(log: dict) -> str:  # type: ignore[type-arg]
    from nfl_lora_pipeline.plots import loss_plot

    return f"![loss]({_data_uri(loss_plot(log['losses'], log['certain']))})"


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _chosen_weeks(held: list[NflWeek], wanted: list[str]) -> list[NflWeek]:
    if not held:
        raise ValueError("no week is held yet: materialise `raw_wr_json`, `players` and `qa_pairs` for one first")
    if not wanted:
        return [week for week in held if week.season == held[-1].season]
    weeks = sorted(NflWeek.parse(key) for key in wanted)
    if missing := set(weeks) - set(held):
        raise ValueError(f"week {min(missing)} is not held: materialise its `qa_pairs` first")
    return weeks


def _chosen_stats(wanted: list[str]) -> list[Stat]:
    known = list(load_templates().stats)
    if unknown := [stat for stat in wanted if stat not in known]:
        raise ValueError(f"stat {unknown[0]!r}: use {', '.join(known)}")
    return [stat for stat in known if stat in wanted]


def _chosen_mode(mode: str) -> SplitMode:
    if mode == "every_fact":
        return "every_fact"
    if mode == "random_facts":
        return "random_facts"
    raise ValueError(f"mode {mode!r}: use every_fact or random_facts")
