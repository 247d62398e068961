"""The Dagster instance beside the store, so that the command line and the UI share runs and materialisations."""

from pathlib import Path

SETTINGS = """\
# Written by nfl-lora; edit as you like.
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  pools:
    default_limit: 1
run_monitoring:
  enabled: true
  max_runtime_seconds: 86400
  free_slots_after_run_end_seconds: 60
"""


def dagster_home(store: Path) -> Path:
    """The instance's folder, made with its settings at the first call. Absolute, as Dagster wants it."""
    home = (store / "dagster").resolve()
    home.mkdir(parents=True, exist_ok=True)
    settings = home / "dagster.yaml"
    if not settings.exists():
        settings.write_text(SETTINGS, encoding="utf-8")
    return home
