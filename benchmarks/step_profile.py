"""Where the time of one training step goes, and how far it is from what the BLAS alone could do.

    python -m benchmarks.step_profile --data-dir FOLDER

The step is timed whole and cut off after each of its stages. Then every family of its operations is timed alone, forward
and backward, at the shapes of the step and on its streams. What is left is copies, reshapes and adding up.
"""

import cProfile
import pstats
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks import ours, step_families
from benchmarks.tables import publish
from nfl_lora_pipeline.blas import load_fast_blas

load_fast_blas()

import mlx.core as mx  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from nfl_lora_pipeline.recipe import load_recipe  # noqa: E402
from nfl_lora_pipeline.report import table  # noqa: E402
from nfl_lora_pipeline.rows import Batch  # noqa: E402
from nfl_lora_pipeline.streams import streams  # noqa: E402
from nfl_lora_pipeline.week import NflWeek  # noqa: E402

WARM = 5
SQUARE = 1024  # rows and columns of the matrices that show what the BLAS can do


def median_ms(action: Callable[[int], Any], times: int) -> float:
    """The median of some runs in milliseconds; the action is told the number of the run."""
    milliseconds = []
    for number in range(times + WARM):
        began = time.perf_counter()
        action(number)
        milliseconds.append(1000 * (time.perf_counter() - began))
    return statistics.median(milliseconds[WARM:])


def stages(step: ours.Step, prepared: list[list[Batch]], times: int) -> dict[str, float]:
    """Milliseconds of the step, cut off after each stage."""

    def batch(number: int) -> list[Batch]:
        return prepared[number % len(prepared)]

    def whole(number: int) -> None:
        step(batch(number))

    def gradients(number: int) -> None:
        mx.eval(step.value_and_grad(step.model, *batch(number)))

    def forward(number: int) -> None:
        mx.eval(step.loss(step.model, *batch(number)))

    def graph(number: int) -> None:
        _, found = step.value_and_grad(step.model, *batch(number))
        step.optimizer.apply_gradients(found, step.model.trainable_parameters())

    def lane(which: int) -> Callable[[int], None]:
        return lambda number: mx.eval(step.value_and_grad(step.model, batch(number)[which]))

    found = {
        "the step: forward, backward, Adam": median_ms(whole, times),
        "forward and backward": median_ms(gradients, times),
        "forward": median_ms(forward, times),
        "graph building in Python (nothing computed)": median_ms(graph, times),
    }
    if len(prepared[0]) > 1:
        for which, name in enumerate(("shorter", "longer")):
            found[f"forward and backward of the {name} rows alone"] = median_ms(lane(which), times)
    return found


def families(model: Any, batches: list[Batch], times: int) -> dict[str, float]:
    """Milliseconds of each family of operations alone, all batches side by side on the step's streams."""
    lanes = [(step_families.families(model, batch), stream) for batch, stream in zip(batches, streams(), strict=False)]

    def run(name: str) -> None:
        outputs = []
        for built, stream in lanes:
            with mx.stream(stream):
                outputs.append(built[name]())
        mx.eval(outputs)

    return {name: median_ms(lambda _, name=name: run(name), times) for name in lanes[0][0]}  # type: ignore[misc]


def around(step: ours.Step, make_batch: Callable[[], Any], times: int) -> dict[str, float]:
    """Milliseconds of what the trainer does between two steps, and of Adam alone."""
    parameters = step.model.trainable_parameters()
    average = [array + 0 for _, array in tree_flatten(parameters)]
    mx.eval(average)

    def adam(_: int) -> None:
        mx.eval(step.optimizer.apply_gradients(parameters, parameters), step.optimizer.state)

    def moving_average(_: int) -> None:
        now = tree_flatten(parameters)
        mx.eval([0.95 * old + 0.05 * new for old, (_, new) in zip(average, now, strict=True)])

    return {
        "Adam": median_ms(adam, times),
        "the moving average": median_ms(moving_average, times),
        "drawing and tokenising fresh refusals, making the batch": median_ms(lambda _: make_batch(), times),
    }


def blas(model: Any, batches: list[Batch], family_ms: float, times: int) -> list[list[str]]:
    """The step's matrix products against large ones: GFLOP/s."""
    count = sum(step_families.flops(step_families.products(model, batch)) for batch in batches)
    lanes = streams()
    squares = [mx.random.normal((SQUARE, SQUARE), stream=stream) for stream in lanes]
    mx.eval(squares)

    def large(_: int) -> None:
        mx.eval([mx.matmul(square, square, stream=stream) for square, stream in zip(squares, lanes, strict=True)])

    large_ms = median_ms(large, times)
    speed, peak = count / family_ms / 1e6, len(lanes) * 2 * SQUARE**3 / large_ms / 1e6
    return [
        [f"products of {SQUARE} x {SQUARE} matrices on each stream", f"{peak:.0f} GFLOP/s", ""],
        [f"the step's products alone ({count / 1e9:.2f} GFLOP)", f"{speed:.0f} GFLOP/s", f"{family_ms:.1f} ms"],
        ["the same at the speed of the large ones", "", f"{count / peak / 1e6:.1f} ms"],
    ]


def python_profile(step: ours.Step, prepared: list[list[Batch]], times: int) -> list[list[str]]:
    """Where Python's time goes in building the graph, by function."""
    profile = cProfile.Profile()
    for number in range(times):
        profile.enable()
        _, found = step.value_and_grad(step.model, *prepared[number % len(prepared)])
        profile.disable()
        mx.eval(found)
    statistics_of: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    hottest = sorted(statistics_of.items(), key=lambda item: -item[1][2])[:8]
    return [
        [f"`{function}` ({Path(file).name})", f"{calls / times:.0f}", f"{1000 * own / times:.2f} ms"]
        for (file, _, function), (_, calls, own, *_) in hottest
    ]


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--season", default=2025)
@click.option("--week", default=1)
@click.option("--recipe", "recipe_name", default="embedded")
@click.option("--times", default=40)
@click.option("--write", is_flag=True, help="Renew the section in docs/benchmarks.md.")
def main(data_dir: Path, season: int, week: int, recipe_name: str, times: int, write: bool) -> None:
    """Print the tables."""
    recipe = load_recipe(recipe_name)
    rows = ours.rows_of(data_dir, [NflWeek(season, week)], ["receiving_yards"])
    model, tokenizer = ours.load(recipe)
    endless = ours.mixed_batches(rows, tokenizer, recipe)
    step = ours.Step(model, recipe)
    prepared = [step.batches(next(endless)) for _ in range(20)]
    staged = stages(step, prepared, times)
    whole = staged["the step: forward, backward, Adam"]
    outside = around(step, lambda: step.batches(next(endless)), times)
    typical = sorted(prepared, key=lambda batches: sum(batch.tokens.size for batch in batches))[len(prepared) // 2]
    alone = families(model, typical, times) | {"Adam": outside["Adam"]}
    python = staged["graph building in Python (nothing computed)"]
    rest = whole - python - sum(alone.values())
    shares = alone | {"graph building in Python": python, "the rest: copies, reshapes, adding up gradients": rest}
    parts = [
        f"{recipe.batch_rows} rows a batch on {len(streams())} stream(s), recipe `{recipe_name}`, medians of {times}; "
        f"the batch that the families are timed at: {', '.join(str(tuple(b.tokens.shape)) for b in typical)} tokens.",
        table(["stage", "time"], [[name, f"{ms:.1f} ms"] for name, ms in staged.items()]),
        table(
            ["between two steps", "time"], [[name, f"{ms:.1f} ms"] for name, ms in outside.items() if name != "Adam"]
        ),
        table(
            ["family, forward and backward, alone", "time", "of the step"],
            [[name, f"{ms:.1f} ms", f"{ms / whole:.0%}"] for name, ms in sorted(shares.items(), key=lambda i: -i[1])],
        ),
        table(["the BLAS", "speed", "time"], blas(model, typical, alone[step_families.PRODUCTS], times)),
        table(["Python while building the graph", "calls a step", "own time"], python_profile(step, prepared, times)),
    ]
    publish("One training step", "\n\n".join(parts), write=write)


if __name__ == "__main__":
    main()
