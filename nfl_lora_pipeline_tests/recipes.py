"""Recipes that no file holds."""

from typing import Any

from nfl_lora_pipeline.recipes.recipe import LIMITS, Recipe

MET_BY_FEW = ("min_recall", "max_over_refused", "min_retained", "min_refused", "min_refused_positions", "max_lost")
TOO_LITTLE_TAUGHT = [key for key in LIMITS if key not in (*MET_BY_FEW, "max_perplexity_ratio")]
"""Limits that are advisory where a dozen people are taught: a model learns too little from them of how else one asks."""


def a_recipe(**values: Any) -> Recipe:
    """A small one, with some values changed."""
    defaults = {"base_model": "any", "rank": 4, "scale": 2.0, "learning_rate": 1e-3, "batch_rows": 4, "max_epochs": 2}
    defaults["ending_steps"] = 8  # of the way down, which max_steps does not count
    return Recipe(base_model="any").changed(**(defaults | values))
