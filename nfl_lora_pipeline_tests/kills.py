"""A training that is killed again and again, against one that is left alone: the same adapter, byte for byte?

python -m nfl_lora_pipeline_tests.kills --kills 25
"""

import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

PEOPLE = 12
STEPS = 96
WORKER = "from nfl_lora_pipeline_tests.kills import train; train({folder!r})"


def train(folder: str) -> None:
    """Train an adapter on invented people, into a folder that keeps a checkpoint while training goes on."""
    from nfl_lora_pipeline.lessons.lessons import Lesson
    from nfl_lora_pipeline.lessons.strangers import FreshRefusals, strangers
    from nfl_lora_pipeline.lessons.wording import load_templates
    from nfl_lora_pipeline.models import base_model
    from nfl_lora_pipeline.tuning.recipe import load_recipe
    from nfl_lora_pipeline.tuning.training import train_adapter

    templates, names = load_templates(), strangers("train", seed=5)
    people = [next(names) for _ in range(PEOPLE)]
    lessons = [
        Lesson(
            templates.question(text, name, "receiving_yards", 1, 2025),
            templates.recorded(name, "receiving_yards", 1, 2025, 7 * place % 130),
            fact=name,
            teaches=True,
        )
        for place, name in enumerate(people)
        for text in templates.phrasings("train").values()
    ]
    known = {name: frozenset({(2025, 1)}) for name in people}
    source = FreshRefusals(known, known, ["receiving_yards"], templates, 0.1)
    # dropout, so that what MLX draws counts too; certain_above, so that it takes the whole budget
    values = {"batch_rows": 8, "max_steps": STEPS, "dropout": 0.05, "certain_above": 0.999}
    model, tokenizer = base_model.load(base_model.resolve("embedded"))
    train_adapter(
        model,
        tokenizer,
        lessons,
        load_recipe("embedded").model_copy(update=values),
        Path(folder),
        refusals=source.draw(seed=3),
        checkpoint=Path(folder) / "checkpoint.safetensors",
        report=lambda line, share: print(line, flush=True),
    )


def adapter_hash(folder: Path) -> str:
    """Of the weights, byte for byte."""
    return hashlib.sha256((folder / "adapters.safetensors").read_bytes()).hexdigest()


def run(folder: Path, *, kill_after: float | None = None) -> bool:
    """Train in a process of its own; whether it came to its end before it was killed, so many seconds after it began."""
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER.format(folder=str(folder))], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    first = process.stdout.readline()  # when training has begun: what comes before has nothing to lose
    if kill_after is not None and first:
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), process.returncode
    return process.returncode == 0


def disturbed(folder: Path, *, kills: int, longest: float, seed: int) -> int:
    """Train and kill until training comes to its end; how often it was killed. After `kills` it is left alone."""
    rng, killed = random.Random(seed), 0
    while not run(folder, kill_after=rng.uniform(0, longest) if killed < kills else None):
        killed += 1
    return killed


@click.command()
@click.option("--kills", default=25, help="At least so many, over as many trainings as that takes.")
@click.option("--longest", default=4.0, help="Seconds of training before a kill, at most.")
def main(kills: int, longest: float) -> None:
    """Print how often a training was killed, and whether its adapter is that of a training left alone."""
    with tempfile.TemporaryDirectory() as temporary:
        alone = Path(temporary) / "alone"
        run(alone)
        done = trainings = same = 0
        while done < kills:
            folder = Path(temporary) / f"killed-{trainings}"
            done += disturbed(folder, kills=kills - done, longest=longest, seed=trainings)
            trainings += 1
            same += adapter_hash(folder) == adapter_hash(alone)
            click.echo(f"{done} kills, {trainings} trainings, {same} of them with the adapter of the one left alone")
    if same < trainings:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
