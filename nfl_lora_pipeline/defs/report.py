"""The report on the newest adapter, and its promotion."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from nfl_lora_pipeline.adapters.promotion import before, promote, taken_back
from nfl_lora_pipeline.defs.adapter import adapter
from nfl_lora_pipeline.defs.common import CODE, OWNERS, accelerator, clear_failure, on_change, say
from nfl_lora_pipeline.defs.resources import StoreResource, Trainer
from nfl_lora_pipeline.evaluation.gates import GATES, Gate, blocks, judge
from nfl_lora_pipeline.evaluation.regressions import coverage_loss_of
from nfl_lora_pipeline.markdown import table
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.tuning.recipe import Recipe

if TYPE_CHECKING:
    from nfl_lora_pipeline.reports.evaluate import Evaluation


PROMOTION_DUE = dg.FreshnessPolicy.cron(
    deadline_cron="0 12 * 1,2,9-12 3", lower_bound_delta=timedelta(days=7), timezone="America/New_York"
)


def evaluation_report_of(recipe: Recipe | None) -> dg.AssetsDefinition:
    """The asset `evaluation_report`, with a check for each gate.

    Args:
        recipe: says which gates block what comes after, and which are told and no more; None for one that cannot be read,
            which is said when the asset is materialised.
    """
    specs = [
        dg.AssetCheckSpec(
            name,
            asset="evaluation_report",
            blocking=recipe is None or blocks(name, recipe),
            description=rule.description,
        )
        for name, rule in GATES.items()
    ]
    return dg.asset(
        name="evaluation_report",
        deps=[adapter],
        group_name="season",
        kinds={"mlx", "markdown"},
        owners=OWNERS,
        tags={"stage": "evaluation"},
        code_version=CODE["evaluation_report"],
        automation_condition=on_change(),
        check_specs=specs,
    )(_evaluate)


def _evaluate(context: dg.AssetExecutionContext, store: StoreResource, trainer: Trainer) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Base against tuned, question by question: `report.md`, `report.json` and every prediction.

    Kept under the adapter's fingerprint: what the same code has asked before is not asked again. The checks decide whether
    the adapter is promoted.
    """
    data, code = store.open(), CODE["evaluation_report"]
    with clear_failure(), accelerator(context, data):
        evaluation = report_on_newest(data, trainer, code, lambda line, share: say(context, line, share))
    folder = data.report(evaluation.summary.adapter)
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.md(_page(folder)),
            "folder": str(folder),
            "reused": evaluation.reused,
            "head_line": evaluation.summary.head_line,
            "warnings": evaluation.summary.warnings or ["none"],
            **{f"recall_{name}": share for name, share in evaluation.summary.recall.items() if share is not None},
        },
        data_version=dg.DataVersion(f"{evaluation.summary.adapter}-{code}"),
        check_results=[_check_result(gate) for gate in evaluation.gates],
    )


@dg.asset(
    deps=["evaluation_report"],
    group_name="season",
    kinds={"mlx", "safetensors"},
    owners=OWNERS,
    tags={"stage": "promotion"},
    code_version=CODE["promoted_adapter"],
    automation_condition=on_change(),
    freshness_policy=PROMOTION_DUE,
)
def promoted_adapter(
    context: dg.AssetExecutionContext, store: StoreResource, trainer: Trainer
) -> dg.MaterializeResult[None]:
    """The adapter in use, `adapters/current`: the newest whose report passed every check.

    Automation asks for it when the report's data version changes, so a rollback stands. It also stands when everything is
    materialised again: an adapter that was rolled back from is promoted by name alone (`nfl-lora rollback FINGERPRINT`),
    and a change of the data makes another one.
    """
    data = store.open()
    with clear_failure():
        moved, line = promote_newest(data, trainer)
        say(context, line, 1.0)
        now = data.promoted() or ""
        weeks = data.provenance(now).weeks if now else []
    return dg.MaterializeResult(
        metadata={
            "fingerprint": now,
            "weeks": weeks,
            "previous": before(data, now) or "none",
            "moved": moved,
            "folder": str(data.current),
        },
        data_version=dg.DataVersion(now or "none"),
    )


def report_on_newest(
    data: Store, trainer: Trainer, code: str, tell: Callable[[str, float | None], None]
) -> "Evaluation":
    """The report on the newest adapter; what evaluates is imported when it is needed."""
    from nfl_lora_pipeline.reports.evaluate import evaluate_latest

    return evaluate_latest(data, trainer.load(), evaluation_code=code, say=tell, replace=trainer.replace)


def promote_newest(data: Store, trainer: Trainer) -> tuple[bool, str]:
    """Promote the newest adapter, unless somebody rolled back from it.

    Returns:
        Whether another one was promoted until now, and what happened, for people.
    """
    fingerprint = _passed(data, trainer)
    if fingerprint in taken_back(data):
        return False, f"adapter {fingerprint} was rolled back from: `nfl-lora rollback {fingerprint}` promotes it"
    moved = promote(data, fingerprint)
    return moved, f"adapter {fingerprint} {'is promoted' if moved else 'was promoted before'}"


def _passed(data: Store, trainer: Trainer) -> str:
    """The newest adapter's fingerprint.

    Raises:
        ValueError: it has no report by this code, or did not pass: a run may ask for this asset alone.
    """
    from nfl_lora_pipeline.reports.report import read_report

    fingerprint = data.latest()
    kept = read_report(data.report(fingerprint), evaluation_code=CODE["evaluation_report"])
    if kept is None:
        raise ValueError(f"adapter {fingerprint} has no report yet: materialise `evaluation_report` first")
    summary, predictions, _ = kept
    loss = coverage_loss_of(data, fingerprint, replace=trainer.replace)  # another may be promoted by now
    summary = replace(summary, coverage_loss=loss)
    gates = judge(summary, predictions, trainer.load())
    if failed := [f"{gate.name}: {gate.explanation}" for gate in gates if gate.keeps_back]:
        raise ValueError(f"adapter {fingerprint} is not promoted: {'; '.join(failed)}")
    return fingerprint


def _page(folder: Path) -> str:
    """The report with its pictures in it."""
    from nfl_lora_pipeline.reports.report import with_pictures_inside

    return with_pictures_inside((folder / "report.md").read_text(encoding="utf-8"), folder)


def _check_result(gate: Gate) -> dg.AssetCheckResult:
    """A gate's verdict. A check has no third state: what was not judged does not stand in the way, and says so in its
    description, its metadata and its severity."""
    worst = table(
        ["question", "expected", "answer"], [[miss.question, miss.expected, miss.answer] for miss in gate.worst]
    )
    figure = {} if gate.figure is None else {"figure": gate.figure}
    is_judged = gate.passed is not None
    return dg.AssetCheckResult(
        check_name=gate.name,
        passed=not gate.missed,
        severity=dg.AssetCheckSeverity.ERROR if gate.blocks and is_judged else dg.AssetCheckSeverity.WARN,
        description=gate.explanation,
        metadata={
            **figure,
            "verdict": ("passed" if gate.passed else "missed") if is_judged else "not judged",
            "threshold": "no limit" if gate.threshold is None else gate.threshold,
            "worst": dg.MetadataValue.md(worst if gate.worst else "none"),
        },
    )
