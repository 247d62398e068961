"""How the learning rate goes."""

import math

from nfl_lora_pipeline.tuning.recipe import Recipe

LOWEST_RATE = 0.06  # of the peak learning rate
OVERTIME_LEFT = 0.15  # behind the budget `by_unknown` goes on as if so much of it were left
UNKNOWN_POWER = 0.4  # `by_unknown` falls with the share of rows not yet certain, to this power


def learning_rate(recipe: Recipe, step: int, budget: int, unknown: float = 1.0) -> float:
    """The rate for a step: a linear warm-up, and from its peak on what the recipe's `schedule` says.

    "constant" stays at the peak. "linear" and "cosine" fall to `LOWEST_RATE` of it at the end of the budget. "by_unknown"
    falls as the steps or what is unknown run out, whichever is nearer its end; in overtime, what is unknown alone tells.

    Args:
        recipe: with `learning_rate` (the peak), `warmup_steps` and `schedule`.
        step: from 0; behind the budget is overtime.
        budget: steps.
        unknown: the share of what is to be learnt that is not certain yet (0 to 1, or more where something was lost).
    """
    warm = min(1.0, (step + 1) / (recipe.warmup_steps + 1))
    left = max(0.0, 1 - step / budget)
    match recipe.schedule:
        case "constant":
            share = 1.0
        case "linear":
            share = LOWEST_RATE + (1 - LOWEST_RATE) * left
        case "cosine":
            share = LOWEST_RATE + (1 - LOWEST_RATE) * (1 - math.cos(math.pi * left)) / 2
        case "by_unknown":
            left = left if step < budget else OVERTIME_LEFT
            share = min(1.0, LOWEST_RATE + 1.3 * min(left, min(1.0, unknown) ** UNKNOWN_POWER))
    return recipe.learning_rate * warm * share
