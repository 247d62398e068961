"""Everything wired together, for Dagster."""

import dagster as dg

from nfl_lora_pipeline.assets import dataset, model, report, week
from nfl_lora_pipeline.assets.versions import SETTINGS
from nfl_lora_pipeline.resources import resources_of

defs = dg.Definitions(
    assets=dg.load_assets_from_modules([week, dataset, model, report]),
    resources=resources_of(SETTINGS),
)
