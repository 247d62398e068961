"""Everything wired together, for Dagster."""

import warnings

import dagster as dg

from nfl_lora_pipeline.defs import adapter as model
from nfl_lora_pipeline.defs import automation as unattended
from nfl_lora_pipeline.defs import dataset, report
from nfl_lora_pipeline.defs import weeks as week
from nfl_lora_pipeline.defs.resources import resources_of
from nfl_lora_pipeline.defs.versions import SETTINGS

# Dagster 1.13 says this of every sensor, whoever its owners.
warnings.filterwarnings("ignore", message="Parameter `owners`", category=dg.BetaWarning)

defs = dg.Definitions(
    assets=dg.load_assets_from_modules([week, dataset, model, report]),
    jobs=[unattended.update_season, unattended.fetch_week],
    schedules=[unattended.weekly_retraining],
    sensors=[unattended.new_weeks, unattended.automation, unattended.dead_runs],
    executor=dg.in_process_executor,  # a run is one process, which is what its lease speaks of
    resources=resources_of(SETTINGS),
)
