"""What the weights of any trainer know, judged alike: by this project's evaluation, outside of the time that counts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import polars as pl
from mlx.utils import tree_flatten

from benchmarks import ours
from benchmarks.opponents import FACTS
from nfl_lora_pipeline.recipes.recipe import Recipe
from nfl_lora_pipeline.tuning.adaptation import adapt

REFUSED = 0.95  # the share of held-out strangers that must be refused, where refusals are part of the task
SAMPLES = (64, 8)  # weights are judged by one row in so many first


class Outcome(NamedTuple):
    """What a training knew when its goal was reached, or in the end.

    Attributes:
        seconds, steps: of training, until then.
        shares: of `ours.shares_right`.
        reached: whether the goal was.
        first_full: the seconds after which all facts were known for the first time.
    """

    seconds: float
    steps: int
    facts_right: int
    facts: int
    shares: dict[str, float]
    reached: bool
    first_full: float | None


def goal_reached(task: str, *, full: bool, strangers: float) -> bool:
    """Whether all facts are exact, and in the task with refusals the strangers refused."""
    return full and (task == FACTS or strangers >= REFUSED)


def outcome_of(model: Any, tokenizer: Any, rows: pl.DataFrame, task: str, seconds: float, steps: int) -> Outcome:
    """What a model knows after so many seconds and steps of training."""
    found = ours.recall(model, tokenizer, ours.trained_rows(rows))
    shares = ours.shares_right(model, tokenizer, rows)
    reached = goal_reached(task, full=found.full, strangers=shares["strangers"])
    return Outcome(seconds, steps, found.facts_right, found.facts, shares, reached, seconds if found.full else None)


class Judge:
    """Looks at the weights of one training as they come; `outcome` is of the last look that was a close one."""

    def __init__(self, rows: pl.DataFrame, recipe: Recipe, task: str):
        self.model, self.tokenizer = ours.load(recipe)
        adapt(self.model, recipe)
        self.names = {name for name, _ in tree_flatten(self.model.trainable_parameters())}
        self.rows, self.task = rows, task
        self.first_full: float | None = None
        self.outcome: Outcome | None = None

    def look(self, weights: Mapping[str, Any], seconds: float, steps: int, *, closely: bool) -> bool:
        """Whether the goal is reached with these weights; without `closely` a sample is asked first.

        Raises:
            ValueError: the weights are not those of the adapter.
        """
        if odd := self.names ^ set(weights):
            raise ValueError(f"these are no weights of the recipe's adapter: {min(odd)} is in one of them alone")
        self.model.load_weights([(name, mx.array(weight)) for name, weight in weights.items()], strict=False)
        if not closely and not self._knows_the_facts():
            return False
        found = outcome_of(self.model, self.tokenizer, self.rows, self.task, seconds, steps)
        if self.first_full is None:
            self.first_full = found.first_full
        self.outcome = found._replace(first_full=self.first_full)
        return found.reached

    def look_at_file(self, file: Path, seconds: float, steps: int, *, closely: bool) -> bool:
        """The same, of a file that MLX reads."""
        weights: Any = mx.load(str(file))
        return self.look(weights, seconds, steps, closely=closely)

    def _knows_the_facts(self) -> bool:
        trained = ours.trained_rows(self.rows)
        samples = [trained.gather_every(each) for each in SAMPLES]
        return all(ours.recall(self.model, self.tokenizer, rows).full for rows in [*samples, trained])
