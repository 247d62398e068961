"""Everything wired together, for Dagster."""

import dagster as dg

from nfl_lora_pipeline.assets import season, weeks
from nfl_lora_pipeline.resources import StoreResource, Trainer, WeekSource

defs = dg.Definitions(
    assets=dg.load_assets_from_modules([weeks, season]),
    resources={"store": StoreResource(), "week_source": WeekSource(), "trainer": Trainer()},
)
