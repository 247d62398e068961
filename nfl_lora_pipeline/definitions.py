"""Everything wired together, for Dagster."""

import dagster as dg

from nfl_lora_pipeline.defs.automation import build_schedules, build_sensors, fetch_week, update_season
from nfl_lora_pipeline.defs.experiments import shipped_experiments
from nfl_lora_pipeline.defs.resources import Resources
from nfl_lora_pipeline.defs.tenants import tenant_definitions
from nfl_lora_pipeline.defs.update import assets_of
from nfl_lora_pipeline.settings import Settings


def build_definitions(settings: Settings) -> dg.Definitions:
    """The assets, jobs, sensors, schedule and resources of a deployment."""
    resources = Resources.of(settings)
    return dg.Definitions(
        assets=[*assets_of(resources, weeks=settings.weeks).values(), *shipped_experiments()],
        jobs=[update_season, fetch_week],
        schedules=build_schedules(settings),
        sensors=build_sensors(settings),
        executor=dg.in_process_executor,  # a run is one process, which is what its lease speaks of
        resources=resources.by_name(),
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Those of the environment's settings, read when Dagster asks for them: of one store, or of many tenants."""
    settings = Settings.read()
    return tenant_definitions(settings) if settings.tenants else build_definitions(settings)
