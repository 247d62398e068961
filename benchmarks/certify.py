"""Certifying a week: all facts in all trained phrasings, by this project's forward pass and by asking mlx-lm.

    python -m benchmarks.certify --data-dir FOLDER

`certainty` says of every row whether greedy decoding gives the answer, and how sure each token is. The others generate the
answers: `mlx_lm generate`, a process a question (a few questions, extrapolated to all), and `mlx_lm.batch_generate` over all.
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import polars as pl

from benchmarks import ours
from benchmarks.options import of_one_week
from benchmarks.tables import median_and_range, publish
from nfl_lora_pipeline.markdown import Markup, table
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.scoring import merged
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.weeks.week import NflWeek


def ask_alone(base: Path, adapter: Path, question: str) -> tuple[float, str]:
    """Seconds and answer of `mlx_lm generate`, as installed."""
    options = [
        "--model",
        str(base),
        "--adapter-path",
        str(adapter),
        "--prompt",
        question,
        "--temp",
        "0",
        "--verbose",
        "False",
    ]
    began = time.perf_counter()
    command = [sys.executable, "-m", "mlx_lm", "generate", "--max-tokens", "64", *options]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return time.perf_counter() - began, said.strip()


def ask_batch(base: Path, adapter: Path, questions: list[str], *, fast_blas: bool) -> tuple[float, list[str]]:
    """Seconds and answers of `mlx_lm.batch_generate`, loading not counted."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "questions.json"
        file.write_text(json.dumps(questions), encoding="utf-8")
        worker = Path(__file__).with_name("batch_generate_worker.py")
        command = [sys.executable, *map(str, (worker, base, adapter, file))]
        flags = ["--fast-blas"] if fast_blas else []
        said = subprocess.run([*command, *flags], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = json.loads(said)
    return found["seconds"], found["answers"]


def certify(adapter: Path, recipe_name: str, asked: pl.DataFrame, times: int) -> tuple[list[float], int]:
    """Seconds of some runs of this project's check, and how many rows are right; tokenising is counted.

    As in a training's checks the adapter is merged for the while, which is counted too.
    """
    model, tokenizer = ours.load(load_recipe(recipe_name), adapter)
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        with merged(model):
            found = ours.recall(model, tokenizer, asked)
        seconds.append(time.perf_counter() - began)
    return seconds, found.rows_right


@click.command()
@of_one_week
@click.option(
    "--adapter", type=click.Path(path_type=Path, exists=True), help="A trained one; else one is trained first."
)
@click.option("--questions", default=20, help="Asked one at a time.")
@click.option("--times", default=5, help="Of the own check.")
def main(
    data_dir: Path,
    season: int,
    week: int,
    recipe_name: str,
    adapter: Path | None,
    questions: int,
    times: int,
    write: bool,
) -> None:
    """Print the table."""
    recipe = load_recipe(recipe_name)
    rows = ours.rows_of(data_dir, [NflWeek(season, week)], ["receiving_yards"])
    asked, base = ours.trained_rows(rows), base_models.resolve(recipe.base_model).folder
    texts, answers = asked["question"].to_list(), asked["answer"].to_list()
    with tempfile.TemporaryDirectory() as temporary:
        if adapter is None:
            adapter = Path(temporary)
            ours.learn(rows, recipe, adapter)
        own, right = certify(adapter, recipe_name, asked, times)
        alone, alone_right = [], 0
        for index in random.Random(recipe.seed).sample(range(len(texts)), questions):
            seconds, said = ask_alone(base, adapter, texts[index])
            alone.append(seconds)
            alone_right += said == answers[index]
        batches = {}
        for name, fast in (("as installed", False), ("fast BLAS", True)):
            seconds, said_all = ask_batch(base, adapter, texts, fast_blas=fast)
            batches[name] = seconds, sum(said == answer for said, answer in zip(said_all, answers, strict=True))
    baseline = statistics.median(own)
    every = statistics.median(alone) * len(texts)
    lines = [
        ["this project's check", median_and_range(own, "s"), f"{right:,} of {len(texts):,}", "1"],
        [
            Markup(f"`mlx_lm generate`, {median_and_range(alone, 's a question', 2)}, extrapolated"),
            f"{every:,.0f} s",
            f"{alone_right} of {questions}",
            f"{every / baseline:,.0f}x",
        ],
        *(
            [
                Markup(f"`batch_generate`, {name}"),
                f"{seconds:.1f} s",
                f"{hits:,} of {len(texts):,}",
                f"{seconds / baseline:.1f}x",
            ]
            for name, (seconds, hits) in batches.items()
        ),
    ]
    heading = ["", "time", "answers right", "against the check"]
    body = f"{len(texts):,} questions of week {week} of {season} (receiving yards), recipe `{recipe_name}`."
    publish("Certifying a week", f"{body}\n\n{table(heading, lines)}", write=write)


if __name__ == "__main__":
    main()
