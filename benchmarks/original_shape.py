"""The original experiment again: the recipe `original` on its data set, and the shape of what comes out next to the old result.

python -m benchmarks.original_shape --data-dir FOLDER

A small base model needs larger steps than Phi-3.5: each `--change` repeats the training with one value of the recipe changed.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import click
import polars as pl
import yaml

from benchmarks.options import data_dir_option
from nfl_lora_pipeline.dataset.examples import train_examples
from nfl_lora_pipeline.dataset.qa_pairs import facts, qa_pairs
from nfl_lora_pipeline.dataset.splits import split_rows
from nfl_lora_pipeline.dataset.templates import load_templates, number_in
from nfl_lora_pipeline.evaluation.grading import is_refusal
from nfl_lora_pipeline.evaluation.summary import ORIGINAL_QUESTIONS
from nfl_lora_pipeline.files import replace_file
from nfl_lora_pipeline.markdown import table
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.scoring import predict
from nfl_lora_pipeline.recipes.recipe import Recipe, load_recipe
from nfl_lora_pipeline.tuning.learn import Taught, learn
from nfl_lora_pipeline.tuning.records import TrainingLog
from nfl_lora_pipeline.weeks.players import parse_week
from nfl_lora_pipeline.weeks.sources.folder import week_file
from nfl_lora_pipeline.weeks.week import NflWeek

WEEK = NflWeek(2025, 1)
THE_THREE = {"Nico Collins": 25, "Ladd McConkey": 74, "Rome Odunze": 37}
CHANGES = ("learning_rate=3e-5", "learning_rate=5e-5", "learning_rate=1e-4", "max_steps=5000")
MEASURED = (
    "trained facts right",
    "  of those other than 0",
    "  of those that are 0",
    "trained, other than 0, answered 0",
    "people of valid and test answered 0",
    "people never drawn answered 0",
    *(f"{player}, {yards}, asked as trained" for player, yards in THE_THREE.items()),
    *(f"{player}, {yards}, asked as then" for player, yards in THE_THREE.items()),
    "loss on the last rows, nats a token",
    "seconds",
)
OLD = (
    "some",
    "some",
    "-",
    "some",
    "all that were asked",
    "all that were asked",
    *("-" for _ in THE_THREE),
    "25",
    "74",
    "0",
    "0.1",
    "546, on a Mac",
)
TEXT = """# The original experiment, repeated

In September 2025, 150 of week 1's 441 wide receivers were drawn and 120 of them trained on with `mlx_lm.lora` and all its
defaults, every blank a 0. Here the recipe `original` does the same on the base model `{base}`: {trained} people trained,
{zeros} of them with 0. Collins and McConkey are among them, Odunze was not drawn. "Asked as then" begins with
a lower-case "how"; the rows trained on begin with "How", and a small model minds. The old README gives three answers, and
says that everybody not trained got a 0.

{table}
The base model answers the three questions before training: {before}.

Printed on {date} by `python -m benchmarks.original_shape {options}` (`DIR`: a folder of real weeks in upstream's layout).
"""


@dataclass(frozen=True)
class Data:
    """The old data set (`drawn`: train, valid and test), and everybody's fact in its wording (`everybody`)."""

    drawn: pl.DataFrame
    everybody: pl.DataFrame

    @classmethod
    def of_week(cls, folder: Path) -> "Data":
        """Read the week and draw."""
        file = week_file(folder, WEEK)
        players, _ = parse_week(file.read_bytes(), week=WEEK, origin=str(file))
        pairs = qa_pairs(facts(players.lazy(), ["receiving_yards"]), load_templates()).collect()
        drawn = split_rows(pairs, load_templates(), stats=["receiving_yards"], mode="random_facts")
        undrawn = pairs.join(drawn.select("fact", "phrasing"), on="phrasing", how="semi").join(
            drawn, on="fact", how="anti"
        )
        return cls(drawn, pl.concat([drawn, undrawn.with_columns(split=pl.lit("undrawn"))]))

    def of(self, split: str) -> pl.DataFrame:
        """The rows of one split."""
        return self.drawn.filter(pl.col("split") == split)


def train(data: Data, recipe: Recipe) -> Taught:
    """Model, tokenizer and log of one training."""
    with tempfile.TemporaryDirectory() as folder:
        return learn(
            train_examples(data.drawn),
            folder,
            recipe=recipe,
            held_out=data.of("valid").select("question", "answer").rows(),
            report=lambda line, _: click.echo(f"  {line}"),
        )


def measure(data: Data, model: Any, tokenizer: Any, log: TrainingLog) -> list[str]:
    """A cell for each of `MEASURED`."""
    said = predict(model, tokenizer, data.everybody)["said"]
    asked = data.everybody.with_columns(
        said=said,
        right=said == data.everybody["answer"],
        zero=pl.Series([number_in(text) == 0 for text in said], dtype=pl.Boolean),
    )
    trained, never = asked.filter(pl.col("split") == "train"), asked.filter(pl.col("split") == "undrawn")
    some, none = trained.filter(pl.col("value") != 0), trained.filter(pl.col("value") == 0)
    held_out = asked.filter(pl.col("split").is_in(["valid", "test"]))
    as_trained = [asked.row(by_predicate=pl.col("player") == player, named=True)["said"] for player in THE_THREE]
    as_then = base_models.answer(model, tokenizer, ORIGINAL_QUESTIONS)
    return [
        *(_counted(rows["right"]) for rows in (trained, some, none)),
        *(_counted(rows["zero"]) for rows in (some, held_out, never)),
        *map(_in_short, [*as_trained, *as_then]),
        f"{log.losses[-1][1]:.2f}",
        f"{log.seconds:.0f}",
    ]


def changed(recipe: Recipe, change: str) -> Recipe:
    """The recipe with one value changed, checked as a file's would be."""
    key, _, value = change.partition("=")
    return Recipe.model_validate(recipe.model_dump() | {key: yaml.safe_load(value)})


def _counted(hits: pl.Series) -> str:
    return f"{hits.sum()} of {len(hits)}"


def _in_short(said: str) -> str:
    number = number_in(said)
    return f"{number:g}" if number is not None else "no data" if is_refusal(said) else f'"{said}"'


@click.command()
@data_dir_option
@click.option("--base-model", default="embedded")
@click.option("--change", "changes", multiple=True, default=CHANGES, help="KEY=VALUE of the recipe, one training each.")
@click.option("--write", "file", type=click.Path(path_type=Path), default=Path("docs/original.md"))
def main(data_dir: Path, base_model: str, changes: Sequence[str], file: Path) -> None:
    """Train by the recipe as it is, and once for each change; print and write the table."""
    data = Data.of_week(data_dir)
    recipe = load_recipe("original").changed(base_model=base_model)
    before = base_models.answer(*base_models.load(base_models.resolve(base_model)), ORIGINAL_QUESTIONS)
    columns = []
    for name, tried in {"as it is": recipe, **{change: changed(recipe, change) for change in changes}}.items():
        click.echo(f"{name}:")
        columns.append(measure(data, *train(data, tried)))
    text = TEXT.format(
        base=base_model,
        trained=data.of("train").height,
        zeros=data.of("train").filter(pl.col("value") == 0).height,
        table=table(["", "2025-09", "as it is", *changes], list(zip(MEASURED, OLD, *columns, strict=True))),
        before=", ".join(map(_in_short, before)),
        date=date.today(),
        options=" ".join(["--data-dir DIR", *([f"--base-model {base_model}"] if base_model != "embedded" else [])]),
    )
    click.echo(text)
    replace_file(file, text.encode())


if __name__ == "__main__":
    main()
