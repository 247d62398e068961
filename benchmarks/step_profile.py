"""Where the time of one training step goes, and how far it is from what the BLAS alone could do.

    python -m benchmarks.step_profile --data-dir FOLDER

The step is timed whole and cut off after each of its stages. Then every family of its operations is timed alone, forward
and backward, at the shapes of the step and on its streams; what is left is copies, reshapes and adding up. Processor time
is that of all threads together, and bears it if the machine does other things meanwhile.
"""

import cProfile
import pstats
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import mlx.core as mx

from benchmarks import ours, step_families
from benchmarks.options import of_one_week
from benchmarks.step_products import flops, products
from benchmarks.tables import publish
from nfl_lora_pipeline.markdown import table
from nfl_lora_pipeline.models.forward import streams
from nfl_lora_pipeline.models.rows import Batch
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.weeks.week import NflWeek

Action = Callable[[int], Any]
WARM = 5
AT_ONCE = 6  # outputs of a family and lane that are computed together
STEP = "the step: forward, backward, Adam"
PYTHON = "graph building in Python, nothing computed"
REST = "the rest: copies, reshapes, adding up gradients"
SQUARE = 1024  # rows and columns of the matrices that show what the BLAS can do


class Spent(NamedTuple):
    """Milliseconds of the clock and of the processor, of all threads together."""

    clock: float
    processor: float

    def cells(self) -> list[str]:
        """For a table."""
        return [f"{self.clock:.1f} ms", f"{self.processor:.1f} ms"]


def alternating(actions: dict[str, Action], times: int) -> dict[str, Spent]:
    """Medians of some runs, the actions in turn; an action is told the number of the run."""
    clock: dict[str, list[float]] = {name: [] for name in actions}
    processor: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(times + WARM):
        for name, action in actions.items():
            began, worked = time.perf_counter(), time.process_time()
            action(number)
            processor[name].append(1000 * (time.process_time() - worked))
            clock[name].append(1000 * (time.perf_counter() - began))
    return {
        name: Spent(statistics.median(clock[name][WARM:]), statistics.median(processor[name][WARM:]))
        for name in actions
    }


def stages(step: ours.Step, prepared: list[list[Batch]]) -> dict[str, Action]:
    """The step, cut off after each stage."""

    def batch(number: int) -> list[Batch]:
        return prepared[number % len(prepared)]

    def gradients(number: int) -> None:
        mx.eval(step.value_and_grad(step.model, *batch(number)))

    def forward(number: int) -> None:
        mx.eval(step.loss(step.model, *batch(number)))  # type: ignore[no-untyped-call]

    def graph(number: int) -> None:
        step.value_and_grad(step.model, *batch(number))

    def lane(which: int) -> Action:
        return lambda number: mx.eval(step.value_and_grad(step.model, batch(number)[which]))

    found: dict[str, Action] = {STEP: lambda number: step(batch(number)), "forward and backward": gradients}
    found |= {"forward": forward, PYTHON: graph}
    if len(prepared[0]) > 1:
        for which, name in enumerate(("shorter", "longer")):
            found[f"forward and backward of the {name} rows alone"] = lane(which)
    return found


def families(model: Any, batches: list[Batch]) -> dict[str, Action]:
    """Each family of operations alone, all batches side by side on the step's streams."""
    lanes = [(step_families.families(model, batch), stream) for batch, stream in zip(batches, streams(), strict=False)]

    def run(name: str) -> None:
        outputs = []
        for built, stream in lanes:
            with mx.stream(stream):
                outputs.append(built[name]())
        while any(outputs):  # by and by, so that memory is used again as in the step
            mx.eval([of_lane[:AT_ONCE] for of_lane in outputs])
            for of_lane in outputs:
                del of_lane[:AT_ONCE]

    return {name: lambda _, name=name: run(name) for name in lanes[0][0]}  # type: ignore[misc]


def adam(step: ours.Step) -> Action:
    """Adam alone, with the parameters for gradients."""
    parameters = step.model.trainable_parameters()
    return lambda _: mx.eval(step.optimizer.apply_gradients(parameters, parameters), step.optimizer.state)


def large_products() -> Action:
    """A product of large matrices on each stream."""
    lanes = streams()
    squares = [mx.random.normal((SQUARE, SQUARE), stream=stream) for stream in lanes]
    mx.eval(squares)
    return lambda _: mx.eval([mx.matmul(of, of, stream=stream) for of, stream in zip(squares, lanes, strict=True)])


def blas(model: Any, batches: list[Batch], family: Spent, large: Spent) -> list[list[str]]:
    """The step's matrix products against large ones, by processor time."""
    count = sum(flops(products(model, batch)) for batch in batches)
    peak = len(streams()) * 2 * SQUARE**3 / large.processor / 1e6
    speed = count / family.processor / 1e6
    return [
        [f"products of {SQUARE} x {SQUARE} matrices", f"{peak:.0f} GFLOP/s", ""],
        [f"the step's products alone ({count / 1e9:.2f} GFLOP)", f"{speed:.0f} GFLOP/s", f"{family.processor:.1f} ms"],
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
@of_one_week
@click.option("--times", default=40)
def main(data_dir: Path, season: int, week: int, recipe_name: str, times: int, write: bool) -> None:
    """Print the tables."""
    recipe = load_recipe(recipe_name)
    rows = ours.rows_of(data_dir, [NflWeek(season, week)], ["receiving_yards"])
    model, tokenizer = ours.load(recipe)
    endless = ours.mixed_batches(rows, tokenizer, recipe)
    step = ours.Step(model, recipe)
    prepared = [step.batches(next(endless)) for _ in range(20)]
    typical = sorted(prepared, key=lambda batches: sum(batch.tokens.size for batch in batches))[len(prepared) // 2]
    staged = stages(step, prepared)
    outside = {"drawing and tokenising fresh refusals, making the batch": lambda _: step.batches(next(endless))}
    alone = families(model, typical) | {"Adam": adam(step)}
    found = alternating(staged | outside | alone | {"large": large_products()}, times)
    whole = found[STEP].processor
    shares = {name: found[name].processor for name in [*alone, PYTHON]}
    shares[REST] = whole - sum(shares.values())
    parts = [
        f"{recipe.curriculum.batch_rows} rows a batch on {len(streams())} stream(s), recipe `{recipe_name}`, "
        f"medians of {times}; "
        f"the batch that the families are timed at: {', '.join(str(tuple(b.tokens.shape)) for b in typical)} tokens.",
        table(["stage", "clock", "processor"], [[name, *found[name].cells()] for name in staged]),
        table(["between two steps", "clock", "processor"], [[name, *found[name].cells()] for name in outside]),
        table(
            ["family, forward and backward, alone", "processor", "of the step"],
            [[name, f"{ms:.1f} ms", f"{ms / whole:.0%}"] for name, ms in sorted(shares.items(), key=lambda i: -i[1])],
        ),
        table(
            ["the BLAS", "speed of a core", "processor"],
            blas(model, typical, found[step_families.PRODUCTS], found["large"]),
        ),
        table(["Python while building the graph", "calls a step", "own time"], python_profile(step, prepared, times)),
    ]
    publish("One training step", "\n\n".join(parts), write=write)


if __name__ == "__main__":
    main()
