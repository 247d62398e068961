"""Recipes that no file holds."""

from typing import Any

from nfl_lora_pipeline.tuning.recipe import Recipe


def a_recipe(**values: Any) -> Recipe:
    """A small one, with some values changed."""
    defaults = {"base_model": "any", "rank": 4, "scale": 2.0, "learning_rate": 1e-3, "batch_rows": 4, "max_epochs": 2}
    defaults["ending_steps"] = 8  # of the way down, which max_steps does not count
    return Recipe(base_model="any").changed(**(defaults | values))
