"""How long training goes on: its budget of steps, when it looks at what is known, and when its end is set."""

import math
from dataclasses import dataclass

from nfl_lora_pipeline.tuning.recipe import Recipe

LEAST_STEPS = 320  # of a budget, however little there is to learn
WARM_EPOCHS = 3  # times the recipe's epochs over new rows, where most of what is shown is replayed
CHECK_EVERY = 32  # steps, or half an epoch over all that teaches where that is more, but not twice as many
NEARLY = 0.975  # the share of all rows that is certain when the end is set; a warm start begins there
ENDING = 0.25  # of the steps made until then: how many follow
LATE = 0.6  # of the budget: what comes after is late
OVERTIME = 320  # steps behind the budget, at a low learning rate, while a row is not certain
OVERTIME_CHECK = 16  # steps: by then a few facts are in doubt, now one and now another


@dataclass
class Pace:
    """The steps of a training.

    Attributes:
        recipe: with `batch_rows`, `max_epochs` and `max_steps`.
        teaching: rows that teach.
        warm: whether training goes on from an adapter, so that what is known is looked at before the first step.
        unknown: how many rows are not certain yet, as a share of those that teach: what sets the learning rate, so that a warm
            start, which has little to learn and much to lose, goes on slowly.
        budget: the step at which training ends at the latest, but for the overtime.
    """

    recipe: Recipe
    teaching: int
    warm: bool = False
    unknown: float = 1.0
    budget: int = 0
    check_every: int = CHECK_EVERY
    ending: bool = False

    def __post_init__(self) -> None:
        if not self.budget:
            self._plan(self.teaching)

    @property
    def last_step(self) -> int:
        """The step at which training ends, whatever is known."""
        return self.budget + OVERTIME

    def is_late(self, step: int) -> bool:
        """Whether the end is near, so that what is thought to be known has to be looked at widely."""
        return self.ending or step >= LATE * self.budget

    def is_time_to_check(self, step: int) -> bool:
        """Whether to look at what is known before this step (from 0)."""
        if step == 0:
            return self.warm
        if step < self.budget:
            return step % self.check_every == 0
        return (step - self.budget) % OVERTIME_CHECK == 0 or step >= self.last_step

    def progress(self, step: int, unknown_rows: int, rows: int) -> None:
        """Take in how many of all rows are not certain: of a warm start, that is what there is to learn."""
        if step == 0:
            self._plan(unknown_rows)
        self.unknown = unknown_rows / self.teaching
        if step and unknown_rows <= (1 - NEARLY) * rows and not (self.ending or self.warm):
            self.ending = True
            self.budget = min(self.budget, step + math.ceil(ENDING * step))

    def _plan(self, to_learn: int) -> None:
        epoch = math.ceil(to_learn / self.recipe.batch_rows)
        epochs = self.recipe.max_epochs * (WARM_EPOCHS if self.warm else 1)
        self.budget = min(self.recipe.max_steps, max(LEAST_STEPS, math.ceil(epochs * epoch)))
        self.check_every = min(max(CHECK_EVERY, self.teaching // self.recipe.batch_rows // 2), 2 * CHECK_EVERY)
