"""The report on the newest adapter, and its promotion."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from nfl_lora_pipeline.adapters.promotion import before, promote, taken_back
from nfl_lora_pipeline.defs.adapter import adapter
from nfl_lora_pipeline.defs.common import CODE, OWNERS, accelerator, clear_failure, on_change, say
from nfl_lora_pipeline.defs.resources import StoreResource, Trainer
from nfl_lora_pipeline.evaluation.gates import GATES, Gate, blocks, judge
from nfl_lora_pipeline.evaluation.regressions import coverage_loss_of
from nfl_lora_pipeline.evaluation.summary import Summary, key_figures
from nfl_lora_pipeline.markdown import escape, table
from nfl_lora_pipeline.recipes.recipe import Recipe
from nfl_lora_pipeline.store import Store

if TYPE_CHECKING:
    from nfl_lora_pipeline.reports.evaluate import Evaluation


PROMOTION_DUE = dg.FreshnessPolicy.cron(
    deadline_cron="0 12 * 1,2,9-12 3", lower_bound_delta=timedelta(days=7), timezone="America/New_York"
)


def evaluation_report_of(recipe: Recipe | None) -> dg.AssetsDefinition:
    """The asset `evaluation_report`, with a check for each gate, of which a run may leave some out.

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
    asset = dg.AssetSpec(
        "evaluation_report",
        deps=[adapter],
        description=inspect.getdoc(_evaluate),
        group_name="season",
        kinds={"mlx", "markdown"},
        owners=OWNERS,
        tags={"stage": "evaluation"},
        code_version=CODE["evaluation_report"],
        automation_condition=on_change(),
    )
    return dg.multi_asset(name="evaluation_report", specs=[asset], check_specs=specs, can_subset=True)(_evaluate)


def _evaluate(
    context: dg.AssetExecutionContext, store: StoreResource, trainer: Trainer
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:  # type: ignore[type-arg]
    """Base against tuned, question by question: `report.md`, `report.json` and every prediction.

    Kept under the adapter's fingerprint: what the same code has asked before is not asked again. The checks decide whether
    the adapter is promoted; one that could not be judged is skipped.
    """
    data, code = store.open(), CODE["evaluation_report"]
    with clear_failure(), accelerator(context, data):
        evaluation = report_on_newest(data, trainer, code, lambda line, share: say(context, line, share))
    if context.selected_asset_keys:
        yield dg.MaterializeResult(
            asset_key="evaluation_report",
            metadata=_metadata(evaluation, data.report(evaluation.summary.adapter)),
            data_version=dg.DataVersion(f"{evaluation.summary.adapter}-{code}"),
        )
    shown = {key.name for key in context.selected_asset_check_keys}
    yield from (_check_result(gate) for gate in _not_skipped(evaluation.gates) if gate.name in shown)


@dg.asset(
    deps=["evaluation_report"],
    group_name="season",
    kinds={"mlx", "safetensors"},
    owners=OWNERS,
    tags={"stage": "promotion"},
    code_version=CODE["promoted_adapter"],
    automation_condition=on_change(skipped_checks_pass=True),
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
    summary, predictions = kept
    loss = coverage_loss_of(data, fingerprint, replace=trainer.replace)  # another may be promoted by now
    summary = replace(summary, coverage_loss=loss)
    gates = judge(summary, predictions, trainer.load())
    if failed := [f"{gate.name}: {gate.explanation}" for gate in gates if gate.keeps_back]:
        raise ValueError(f"adapter {fingerprint} is not promoted: {'; '.join(failed)}")
    return fingerprint


def _metadata(evaluation: "Evaluation", folder: Path) -> dict[str, Any]:
    """What the UI shows of a report: the verdict, five figures (in percent, so that it plots them), and the report's head."""
    summary, verdict = evaluation.summary, evaluation.summary.head_line.partition(". ")[0].rstrip(".")
    figures = key_figures(summary)
    unjudged = [gate.name for gate in evaluation.gates if gate.passed is None]
    return {
        "verdict": verdict,
        **{f"{figure.name} (%)": "-" if figure.share is None else round(100 * figure.share, 1) for figure in figures},
        "report": dg.MetadataValue.md(_head(summary, verdict, folder)),
        "folder": str(folder),
        "not judged": unjudged or ["none"],
        "warnings": summary.warnings or ["none"],
        "reused": evaluation.reused,
    }


def _head(summary: Summary, verdict: str, folder: Path) -> str:
    """The report in short, in Markdown: all of it is too long to be opened beside other figures."""
    worst = summary.head_line.partition(". ")[2]
    figures = table(
        ["", "", "of what"], [[figure.name, figure.text, figure.meaning] for figure in key_figures(summary)]
    )
    asked = table(
        ["question", "before", "after", "right is"],
        [[shown.question, shown.base or "-", shown.tuned, shown.expected] for shown in summary.questions],
    )
    paragraphs = [f"**{escape(verdict)}.** {escape(worst)}", figures, asked]
    return "\n\n".join([*paragraphs, f"All of it: `{folder / 'report.html'}`"])


def _not_skipped(gates: Sequence[Gate]) -> Iterator[Gate]:
    """The gates whose checks have a result.

    A check is passed or failed; of one without a result the UI says "Skipped" where the run went well, and "Execution failed"
    where it did not. So what was not judged has none, but for a run that is to fail, in which it is a warning.
    """
    is_kept_back = any(gate.keeps_back for gate in gates)
    return (gate for gate in gates if gate.passed is not None or is_kept_back)


def _check_result(gate: Gate) -> dg.AssetCheckResult:
    """A gate's verdict; what was not judged, and has a result all the same, is a warning that says so."""
    worst = table(
        ["question", "expected", "answer"], [[miss.question, miss.expected, miss.answer] for miss in gate.worst]
    )
    figure = {} if gate.figure is None else {"figure": round(gate.figure, 4)}
    is_judged = gate.passed is not None
    return dg.AssetCheckResult(
        check_name=gate.name,
        passed=bool(gate.passed),
        severity=dg.AssetCheckSeverity.ERROR if gate.blocks and is_judged else dg.AssetCheckSeverity.WARN,
        description=gate.explanation,
        metadata={
            **figure,
            "verdict": ("passed" if gate.passed else "missed") if is_judged else "not judged",
            "threshold": "no limit" if gate.threshold is None else gate.threshold,
            "worst": dg.MetadataValue.md(worst if gate.worst else "none"),
        },
    )
