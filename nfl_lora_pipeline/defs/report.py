"""The report on the newest adapter, and its promotion."""

from dataclasses import replace
from pathlib import Path

import dagster as dg

from nfl_lora_pipeline.adapters.promotion import before, promote, taken_back
from nfl_lora_pipeline.defs import versions
from nfl_lora_pipeline.defs.adapter import adapter
from nfl_lora_pipeline.defs.common import accelerator, clear_failure, on_change, say
from nfl_lora_pipeline.defs.resources import StoreResource, Trainer
from nfl_lora_pipeline.evaluation.gates import GATES, Gate, blocks, judge
from nfl_lora_pipeline.evaluation.regressions import coverage_loss_of
from nfl_lora_pipeline.markdown import table
from nfl_lora_pipeline.reports.report import read_report, with_pictures_inside
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.tuning.recipe import LIMITS, Recipe, load_recipe


def report_version() -> str:
    """Changes with the code that evaluates, and with the recipe's gates, so that a new threshold is held against at once."""
    recipe = _recipe_in_use()
    if recipe is None:
        return versions.EVALUATION
    gates = [*(f"{getattr(recipe.gates, key):g}" for key in LIMITS), *recipe.gates.advisory]
    return "-".join([versions.EVALUATION, *gates, *(["replace"] if versions.SETTINGS.replace else [])])


def gate_specs() -> list[dg.AssetCheckSpec]:
    """A check for each gate; it blocks what comes after unless the recipe says that it is told and no more."""
    recipe = _recipe_in_use()
    return [
        dg.AssetCheckSpec(
            name,
            asset="evaluation_report",
            blocking=recipe is None or blocks(name, recipe),
            description=description,
        )
        for name, description in GATES.items()
    ]


def _recipe_in_use() -> Recipe | None:
    """The recipe of the settings; what is wrong with it is said when an asset that needs it is materialised."""
    try:
        return load_recipe(versions.SETTINGS.recipe)
    except ValueError:
        return None


@dg.asset(
    deps=[adapter],
    group_name="season",
    kinds={"mlx"},
    code_version=report_version(),
    automation_condition=on_change(),
    check_specs=gate_specs(),
)
def evaluation_report(
    context: dg.AssetExecutionContext, store: StoreResource, trainer: Trainer
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Base against tuned, question by question: `report.md`, `report.json` and every prediction.

    Kept under the adapter's fingerprint: what the same code has asked before is not asked again. The checks decide whether
    the adapter is promoted.
    """
    from nfl_lora_pipeline.reports.evaluate import evaluate_latest

    held = store.open()
    with clear_failure(), accelerator(context, held):
        evaluation = evaluate_latest(
            held,
            trainer.load(),
            evaluation_code=versions.EVALUATION,
            say=lambda line, share: say(context, line, share),
            replace=trainer.replace,
        )
    shares = {f"recall_{name}": share for name, share in evaluation.summary.recall.items() if share is not None}
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.md(_page(held.report(evaluation.summary.adapter))),
            "folder": str(held.report(evaluation.summary.adapter)),
            "reused": evaluation.reused,
            "warnings": evaluation.summary.warnings or ["none"],
            **shares,
        },
        data_version=dg.DataVersion(f"{evaluation.summary.adapter}-{versions.EVALUATION}"),
        check_results=[_check_result(gate) for gate in evaluation.gates],
    )


@dg.asset(
    deps=[evaluation_report],
    group_name="season",
    code_version=versions.PROMOTION,
    automation_condition=on_change(),
)
def promoted_adapter(
    context: dg.AssetExecutionContext, store: StoreResource, trainer: Trainer
) -> dg.MaterializeResult[None]:
    """The adapter in use, `adapters/current`: the newest whose report passed every check.

    Automation asks for it when the report's data version changes, so a rollback stands. It also stands when everything is
    materialised again: an adapter that was rolled back from is promoted by name alone (`nfl-lora rollback FINGERPRINT`),
    and a change of the data makes another one.
    """
    held = store.open()
    with clear_failure():
        fingerprint = _passed(held, trainer)
    if fingerprint in taken_back(held):
        moved = False
        say(context, f"adapter {fingerprint} was rolled back from: `nfl-lora rollback {fingerprint}` promotes it", 1.0)
    else:
        moved = promote(held, fingerprint)
        say(
            context,
            f"adapter {fingerprint} is promoted" if moved else f"adapter {fingerprint} was promoted before",
            1.0,
        )
    now = held.promoted() or ""
    with clear_failure():
        weeks = held.provenance(now).weeks if now else []
    return dg.MaterializeResult(
        metadata={
            "fingerprint": now,
            "weeks": weeks,
            "previous": before(held, now) or "none",
            "moved": moved,
            "folder": str(held.current),
        },
        data_version=dg.DataVersion(now or "none"),
    )


def _passed(held: Store, trainer: Trainer) -> str:
    """The newest adapter's fingerprint.

    Raises:
        ValueError: it has no report by this code, or did not pass: a run may ask for this asset alone.
    """
    fingerprint = held.latest()
    kept = read_report(held.report(fingerprint), evaluation_code=versions.EVALUATION)
    if kept is None:
        raise ValueError(f"adapter {fingerprint} has no report yet: materialise `evaluation_report` first")
    summary, predictions, _ = kept
    loss = coverage_loss_of(held, fingerprint, replace=trainer.replace)  # another may be promoted by now
    summary = replace(summary, coverage_loss=loss)
    gates = judge(summary, predictions, trainer.load())
    if failed := [f"{gate.name}: {gate.explanation}" for gate in gates if gate.keeps_back]:
        raise ValueError(f"adapter {fingerprint} is not promoted: {'; '.join(failed)}")
    return fingerprint


def _page(folder: Path) -> str:
    """The report with its pictures in it."""
    return with_pictures_inside((folder / "report.md").read_text(encoding="utf-8"), folder)


def _check_result(gate: Gate) -> dg.AssetCheckResult:
    worst = table(
        ["question", "expected", "answer"], [[miss.question, miss.expected, miss.answer] for miss in gate.worst]
    )
    figure = {} if gate.figure is None else {"figure": gate.figure}
    return dg.AssetCheckResult(
        check_name=gate.name,
        passed=gate.passed,
        severity=dg.AssetCheckSeverity.ERROR if gate.blocks else dg.AssetCheckSeverity.WARN,
        description=gate.explanation,
        metadata={**figure, "threshold": gate.threshold, "worst": dg.MetadataValue.md(worst if gate.worst else "none")},
    )
