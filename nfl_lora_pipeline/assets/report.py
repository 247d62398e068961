"""The report on the newest adapter."""

import dagster as dg

from nfl_lora_pipeline.assets import versions
from nfl_lora_pipeline.assets.common import clear_failure, data_uri, say
from nfl_lora_pipeline.assets.conditions import on_change
from nfl_lora_pipeline.assets.model import adapter
from nfl_lora_pipeline.resources import StoreResource


@dg.asset(
    deps=[adapter],
    group_name="season",
    kinds={"mlx"},
    code_version=versions.EVALUATION,
    pool="accelerator",
    automation_condition=on_change(),
)
def evaluation_report(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult[None]:
    """Base against tuned, question by question: `report.md`, `report.json` and every prediction."""
    from nfl_lora_pipeline.examination import examine
    from nfl_lora_pipeline.report import to_markdown, write_report

    held = store.open()
    with clear_failure():
        summary, predictions, plot = examine(held, say=lambda line, share: say(context, line, share))
    folder = held.report(summary["adapter"])
    write_report(folder, summary, predictions, plot)
    shares = {f"recall_{name}": share for name, share in summary["recall"].items() if share is not None}
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.md(to_markdown(summary, loss_plot=data_uri(plot))),
            "folder": str(folder),
            **shares,
        },
        data_version=dg.DataVersion(summary["adapter"]),
    )
