"""Everything wired together, for Dagster."""

import os
from pathlib import Path

import dagster as dg

from nfl_lora_pipeline.assets import dataset, model, report, week
from nfl_lora_pipeline.resources import StoreResource, Trainer, WeekSource

defs = dg.Definitions(
    assets=dg.load_assets_from_modules([week, dataset, model, report]),
    resources={
        "store": StoreResource(root=os.environ.get("NFL_LORA_STORE", "data")),
        "week_source": WeekSource(folder=str(Path(os.environ.get("NFL_LORA_STORE", "data")) / "raw")),
        "trainer": Trainer(),
    },
)
