"""This project's side of every benchmark: its rows, a training, what is known afterwards, and one training step.

Nothing else in `benchmarks/` calls the trainer.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import polars as pl
from mlx import nn

from nfl_lora_pipeline.dataset.examples import Example, examples_of, fresh_questions
from nfl_lora_pipeline.dataset.qa_pairs import facts, qa_pairs
from nfl_lora_pipeline.dataset.splits import split_rows
from nfl_lora_pipeline.dataset.templates import choose_stats, load_templates
from nfl_lora_pipeline.dataset.unanswerable import Drawn
from nfl_lora_pipeline.evaluation.probes import TRAINED
from nfl_lora_pipeline.experiments import asking
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.forward import streams
from nfl_lora_pipeline.models.rows import Batch, TokenRow, by_lanes, to_batch, tokenize
from nfl_lora_pipeline.models.scoring import certainty
from nfl_lora_pipeline.recipes.recipe import Recipe
from nfl_lora_pipeline.tuning import learn as library
from nfl_lora_pipeline.tuning.adaptation import adapt, optimizer_of, uncompiled_on_cpu
from nfl_lora_pipeline.tuning.learn import Taught
from nfl_lora_pipeline.tuning.learner import BETAS, recall_loss
from nfl_lora_pipeline.weeks.players import parse_week
from nfl_lora_pipeline.weeks.sources.folder import week_file
from nfl_lora_pipeline.weeks.week import NflWeek

SHOWN = {
    "held_out": "held-out phrasings",
    "strangers": "strangers",
    "other_weeks": "other weeks",
    "other_seasons": "other seasons",
    "other_stats": "other stats",
}
"""Figures of a trial of an experiment, and what tables call them."""


class Recall(NamedTuple):
    """How many facts are answered exactly in all their phrasings, and how many questions."""

    facts_right: int
    facts: int
    rows_right: int
    rows: int

    @property
    def full(self) -> bool:
        """Whether nothing is answered wrong."""
        return self.rows_right == self.rows


def rows_of(folder: Path, weeks: list[NflWeek], stats: Sequence[str]) -> pl.DataFrame:
    """The splits of some weeks that lie in a folder in upstream's layout."""
    templates = load_templates()
    frames = []
    for week in weeks:
        file = week_file(folder, week)
        players, _ = parse_week(file.read_bytes(), week=week, origin=str(file))
        frames.append(qa_pairs(facts(players.lazy(), choose_stats(stats)), templates).collect())
    return split_rows(pl.concat(frames), templates, stats=choose_stats(stats))


def trained_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """The train split: every fact in every trained phrasing."""
    return rows.filter(pl.col("split") == "train")


def examples(rows: pl.DataFrame, recipe: Recipe) -> list[Example]:
    """What is trained on by a recipe."""
    return examples_of(rows, load_templates(), last_names=recipe.curriculum.last_names)


def strangers(rows: pl.DataFrame, recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Refusals drawn as the trainer draws them."""
    return ((each.question, each.answer) for each in fresh(rows, recipe))


def fresh(rows: pl.DataFrame, recipe: Recipe) -> Iterator[Drawn]:
    """What the trainer draws for its steps."""
    stats = choose_stats(rows["stat"].unique(maintain_order=True).to_list())
    return fresh_questions(
        rows,
        load_templates(),
        stats,
        recipe.curriculum.mixture(talks=not base_models.resolve(recipe.base_model).single_turn),
        seed=recipe.seed,
    )


def load(recipe: Recipe, adapter: Path | None = None) -> tuple[Any, Any]:
    """The recipe's base model and its tokenizer."""
    return base_models.load(base_models.resolve(recipe.base_model), adapter=adapter)


def learn(
    rows: pl.DataFrame,
    recipe: Recipe,
    folder: Path,
    *,
    start: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Taught:
    """Train one adapter into a folder, as the pipeline does."""
    return library.learn(
        examples(rows, recipe),
        folder,
        recipe=recipe,
        start=start,
        fresh=fresh(rows, recipe),
        report=lambda line, _: report(line),
    )


def recall(model: Any, tokenizer: Any, rows: pl.DataFrame) -> Recall:
    """Exact match under greedy decoding, of rows with `question`, `answer` and `fact`."""
    right = certainty(model, tokenize(tokenizer, rows.select("question", "answer").rows())).greedy
    by_fact = rows.select("fact", right=pl.Series(right, dtype=pl.Boolean)).group_by("fact").agg(pl.col("right").all())
    return Recall(int(by_fact["right"].sum()), by_fact.height, int(right.sum()), rows.height)


def shares_right(model: Any, tokenizer: Any, rows: pl.DataFrame) -> dict[str, float]:
    """Of some groups of the evaluation the shares answered right, as experiments measure them; of all questions."""
    stats = choose_stats(rows["stat"].unique(maintain_order=True).to_list())
    asked = asking.questions(rows, load_templates(), stats).filter(pl.col("part") != TRAINED)
    found = asking.shares_right(model, tokenizer, asked)
    return {column: found[figure] or 0.0 for figure, column in SHOWN.items()}


def mixed_batches(rows: pl.DataFrame, tokenizer: Any, recipe: Recipe) -> Iterator[list[TokenRow]]:
    """Batches without end, mixed as in training: rows that teach and refusals drawn just now, all answers whole."""
    refusing = round(recipe.curriculum.batch_rows * recipe.curriculum.refusal_share)
    teaching = [(example.question, example.answer) for example in examples(rows, recipe) if example.teaches]
    told, refused, rng = tokenize(tokenizer, teaching), strangers(rows, recipe), random.Random(recipe.seed)
    while True:
        unknown = tokenize(tokenizer, itertools.islice(refused, refusing))
        yield rng.sample(told, recipe.curriculum.batch_rows - refusing) + unknown


class Step:
    """One training step, as `train_adapter` makes it: forward, backward and Adam."""

    def __init__(self, model: Any, recipe: Recipe):
        adapt(model, recipe)
        model.train()
        known_loss = -math.log(recipe.curriculum.known_above)
        self.model, self.loss = model, lambda model, *batches: recall_loss(model, known_loss, *batches)
        self.optimizer = optimizer_of(recipe, betas=BETAS)
        self.value_and_grad = nn.value_and_grad(model, self.loss)

    def batches(self, rows: list[TokenRow]) -> list[Batch]:
        """Rows as the trainer hands them to a step."""
        return [to_batch([rows[index] for index in lane]) for lane in by_lanes(rows, len(streams()))]

    def __call__(self, batches: list[Batch]) -> None:
        """Make the step, to its end."""
        with uncompiled_on_cpu():
            (loss, _), gradients = self.value_and_grad(self.model, *batches)
            self.optimizer.update(self.model, gradients)
            mx.eval(self.model.state, self.optimizer.state, loss)
