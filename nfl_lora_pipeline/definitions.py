"""Everything wired together, for Dagster."""

import os
from pathlib import Path

import dagster as dg

from nfl_lora_pipeline.assets import dataset, model, report, week
from nfl_lora_pipeline.instance import STORE_VARIABLE
from nfl_lora_pipeline.resources import StoreResource, Trainer, WeekSource

store = Path(os.environ.get(STORE_VARIABLE, "data"))
defs = dg.Definitions(
    assets=dg.load_assets_from_modules([week, dataset, model, report]),
    resources={
        "store": StoreResource(root=str(store)),
        "week_source": WeekSource(folder=str(store / "raw")),
        "trainer": Trainer(),
    },
)
