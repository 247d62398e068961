"""How the learning rate goes."""

import math

from nfl_lora_pipeline.tuning.recipe import Recipe


def learning_rate(recipe: Recipe, step: int, start: int, end: int) -> float:
    """The rate for a step: a linear warm-up, the peak, and from `start` to `end` the way down that the `schedule` says.

    Args:
        recipe: with `learning_rate` (the peak), `warmup_steps`, `schedule` and `lowest_rate`, which is where it stays.
        step: from 0.
        start: where the way down begins: for the schedule "wsd" where nearly all is known, for the others at 0.
        end: where it ends.
    """
    warm = min(1.0, (step + 1) / (recipe.warmup_steps + 1))
    left = min(1.0, max(0.0, 1 - (step - start) / max(1, end - start)))
    shares = {"constant": 1.0, "cosine": (1 - math.cos(math.pi * left)) / 2}
    share = recipe.lowest_rate + (1 - recipe.lowest_rate) * shares.get(recipe.schedule, left)
    return recipe.learning_rate * warm * share
