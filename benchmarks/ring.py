"""A training step by one process and by two of a ring, on the cores of this machine, and what a cable would add.

    python -m benchmarks.ring --write

Every side makes the same steps, on facts of the bundled sample and questions drawn afresh, in turn with the others. Two
processes of a ring have a core each: beside one process with one core one sees what sharing the rows gives, and beside one
process with two cores what it costs.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks import ours
from benchmarks.options import recipe_option, write_option
from benchmarks.serving_many import taught_rows
from benchmarks.tables import median_and_range, publish
from deploy.loopback import free_port
from nfl_lora_pipeline.markdown import table
from nfl_lora_pipeline.recipes.recipe import load_recipe

SIDES = {"one process, one core": (1, 1), "one process, two cores": (1, 2), "two processes, a core each": (2, 1)}
WARM = 5
LINKS = {"Ethernet, 1 Gbit/s": 1e9, "Ethernet, 10 Gbit/s": 1e10, "Thunderbolt, 40 Gbit/s": 4e10}


def work(recipe_name: str, steps: int) -> None:
    """One process of a side: the first one prints the milliseconds of its steps, and how many bytes of gradients each has."""
    from mlx.utils import tree_flatten

    from nfl_lora_pipeline.tuning.adaptation import adapt, uncompiled_on_cpu
    from nfl_lora_pipeline.tuning.learner import Learner, joined

    with joined(lambda line: None) as leads, uncompiled_on_cpu():
        if not leads:
            return
        recipe = load_recipe(recipe_name)
        model, tokenizer = ours.load(recipe)
        adapt(model, recipe)
        model.train()
        learner = Learner(model, recipe)
        learner.lead()
        milliseconds = []
        for rows in itertools.islice(ours.mixed_batches(taught_rows(), tokenizer, recipe), steps):
            began = time.perf_counter()
            learner.step(rows, [None] * len(rows), rows, recipe.optimizer.learning_rate)
            milliseconds.append(1000 * (time.perf_counter() - began))
        size = sum(array.nbytes for _, array in tree_flatten(model.trainable_parameters()))
        click.echo(json.dumps({"milliseconds": milliseconds[WARM:], "bytes": size}))


def measured(side: str, recipe_name: str, steps: int) -> tuple[list[float], int]:
    """Milliseconds of the steps of a side, and the bytes of a step's gradients.

    The processes are told of one another as `mlx.launch` tells them, and without it: it keeps a core busy, looking whether it
    may write to them, and on two cores that doubles the time of a step.
    """
    processes, cores = SIDES[side]
    own = ["--recipe", recipe_name, "--steps", str(steps), "--cores", str(cores)]
    command = [sys.executable, "-m", "benchmarks.ring", "--work", *own]
    with tempfile.TemporaryDirectory() as folder:
        hosts = Path(folder) / "hosts.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{free_port()}"] for _ in range(processes)]))
        ring = {"MLX_HOSTFILE": str(hosts)} if processes > 1 else {}
        started = [
            subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, env={**os.environ, **ring, "MLX_RANK": str(rank)}
            )
            for rank in range(processes)
        ]
        said = [process.communicate()[0] for process in started]
    found = json.loads(said[0].splitlines()[-1])
    return found["milliseconds"], found["bytes"]


def keep_to(cores: int) -> None:
    """Begin this process anew on so many cores, those of its rank: threads that MLX has by now would stay where they are."""
    first = int(os.environ.get("MLX_RANK", "0")) * cores
    if len(os.sched_getaffinity(0)) > cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[first : first + cores])
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.ring", *sys.argv[1:]])


def described(milliseconds: dict[str, list[float]], recipe_name: str, size: int) -> str:
    """The table, and what follows from it."""
    medians = {side: statistics.median(spent) for side, spent in milliseconds.items()}
    alone, both, shared = medians.values()
    rows = [
        [side, median_and_range(spent, "ms"), f"{alone / medians[side]:.2f}x"] for side, spent in milliseconds.items()
    ]
    links = ", ".join(f"{name} {1000 * 8 * size / speed:,.1f} ms" for name, speed in LINKS.items())
    count = load_recipe(recipe_name).curriculum.batch_rows
    return (
        f"Recipe `{recipe_name}`, {count} rows a step, facts of the bundled sample.\n\n"
        f"{table(['side', 'a step', 'times one core'], rows)}\n\n"
        f"Two processes are {both / shared:.2f} times as fast as one that has both cores; {shared - alone / 2:,.0f} ms of "
        f"their step are beyond half of what one core takes. In each step {size / 1e6:,.1f} MB of gradients go from each to "
        f"the other; between two machines the cable alone takes for that: {links}."
    )


@click.command()
@recipe_option
@click.option("--steps", default=40, show_default=True, help="Of each side in each turn.")
@click.option("--turns", default=3, show_default=True)
@click.option("--work", "works", is_flag=True, hidden=True, help="Be one process of a side.")
@click.option("--cores", default=2, hidden=True, help="That it may use.")
@write_option
def main(recipe_name: str, steps: int, turns: int, works: bool, cores: int, write: bool) -> None:
    """Print the table."""
    if works:
        keep_to(cores)
        work(recipe_name, steps)
        return
    milliseconds: dict[str, list[float]] = {side: [] for side in SIDES}
    size = 0
    for side in [*SIDES] * turns:
        more, size = measured(side, recipe_name, steps)
        milliseconds[side] += more
    body = described(milliseconds, recipe_name, size)
    publish("One training by two processes", body, write=write)


if __name__ == "__main__":
    main()
