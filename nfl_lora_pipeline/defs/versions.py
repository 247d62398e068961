"""Code versions of the assets: what, besides the data before it, makes an asset what it is."""

import hashlib
from pathlib import Path

from nfl_lora_pipeline.dataset.templates import wordings_hash
from nfl_lora_pipeline.models import base_model
from nfl_lora_pipeline.settings import Settings
from nfl_lora_pipeline.stats import stats_hash
from nfl_lora_pipeline.tuning.recipe import RECIPES_FOLDER, load_recipe

SETTINGS = Settings.from_environment()

# Raise one of these when a change in the code should make its asset anew.
RAW = "1"
PLAYERS = f"3-{stats_hash()}"
PAIRS = "2"
SPLITS = "4"
BASE_MODEL = "1"
ADAPTER = "8"
EVALUATION = "5"
PROMOTION = "1"


def pairs_version() -> str:
    """Changes with the wordings, with the table of stats and with the stats in use."""
    return f"{PAIRS}-{wordings_hash()}-{SETTINGS.stats}"


def splits_version() -> str:
    """Changes with the choice of weeks, stats and split mode."""
    return "-".join([SPLITS, SETTINGS.mode, SETTINGS.stats, SETTINGS.weeks])


def base_model_version() -> str:
    """Changes with the name of the base model and, where it is the embedded one, with its files."""
    try:
        name = SETTINGS.base_model or load_recipe(SETTINGS.recipe).base_model
    except ValueError:  # said when an asset that needs the recipe is materialised
        return BASE_MODEL
    revision = base_model.resolve(name).revision if name == base_model.EMBEDDED else ""
    return f"{BASE_MODEL}-{name}-{revision}"


def adapter_version() -> str:
    """Changes with the recipe's file."""
    recipe = Path(SETTINGS.recipe)
    file = recipe if recipe.suffix in (".yaml", ".yml") else RECIPES_FOLDER / f"{SETTINGS.recipe}.yaml"
    return f"{ADAPTER}-{_hash(file.read_bytes()) if file.is_file() else SETTINGS.recipe}"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]
