"""The side of HF PEFT on torch: runs in `.venv-bench` (`make bench-setup`), knows nothing of MLX and of this project.

    python benchmarks/peft_worker.py steps MODEL ROWS.npz SETTINGS     # one step for each line of input; prints milliseconds
    python benchmarks/peft_worker.py learn MODEL ROWS.npz SETTINGS     # an ordinary training

ROWS.npz holds `tokens` (all rows below each other), `lengths`, `starts` (where an answer begins in its row) and `facts` (the
number of the fact that a row asks for); SETTINGS is JSON.

A training prints a JSON line when a check finds every fact right, and at its end. The weights lie in a file then, and it waits
for a line of input: after "stop" it ends, after any other it goes on.
"""

import itertools
import json
import random
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

NO_LABEL = -100
CHECK_ROWS = 128
SAMPLE = 8  # a check asks one row in so many first


class Rows:
    """Rows of token ids, and the batches that are made of them."""

    def __init__(self, file: Path):
        self.rows: list[Any] = []
        self.starts: list[int] = []
        self.add(file)
        with np.load(file) as arrays:
            self.facts = arrays["facts"].tolist()

    def add(self, file: Path) -> range:
        """More rows, which are about no fact; their numbers."""
        before = len(self.rows)
        with np.load(file) as arrays:
            self.rows += np.split(arrays["tokens"], np.cumsum(arrays["lengths"])[:-1])
            self.starts += arrays["starts"].tolist()
        return range(before, len(self.rows))

    def batch(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """Rows padded to the longest of them, with the answers as labels."""
        width = max(len(self.rows[index]) for index in indices)
        tokens = torch.zeros((len(indices), width), dtype=torch.long)
        mask, labels = torch.zeros_like(tokens), torch.full_like(tokens, NO_LABEL)
        for place, index in enumerate(indices):
            row = torch.from_numpy(self.rows[index].astype(np.int64))
            tokens[place, : len(row)], mask[place, : len(row)] = row, 1
            labels[place, self.starts[index] : len(row)] = row[self.starts[index] :]
        return {"input_ids": tokens, "attention_mask": mask, "labels": labels}


def prepare(folder: str, settings: dict[str, Any]) -> tuple[Any, torch.optim.Optimizer]:
    """The model with LoRA on every linear layer, and Adam."""
    if settings["flush"]:
        # Gradients of a model that knows its answers are full of numbers below 1.2e-38, over which a Xeon takes so long that a
        # step costs several times as much. This project's trainer has them taken as 0, and so this one has too.
        torch.set_flush_denormal(True)
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    alpha = settings["rank"] * settings["scale"]
    config = LoraConfig(
        r=settings["rank"], lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(base, config)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return model.train(), torch.optim.Adam(trained, lr=settings["learning_rate"], betas=(0.9, 0.98))


def step(model: Any, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor]) -> None:
    """Forward, backward and Adam."""
    model(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def steps(model: Any, optimizer: torch.optim.Optimizer, rows: Rows, settings: dict[str, Any]) -> None:
    """Batch i are rows i * batch_rows and on; a line of standard input is the number of a batch."""
    size = settings["batch_rows"]
    batches = [rows.batch(list(range(first, first + size))) for first in range(0, len(rows.rows), size)]
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    print(json.dumps({"trained_parameters": trained, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        step(model, optimizer, batches[int(line)])
        print(1000 * (time.perf_counter() - began), flush=True)


def learn(model: Any, optimizer: torch.optim.Optimizer, rows: Rows, settings: dict[str, Any]) -> None:
    """Shuffled batches to the end of the rates, for so many seconds, or until told to stop; no check is counted."""
    batches, facts = endless_batches(rows, settings), len(set(rows.facts))
    spent, done, ended = 0.0, 0, False
    while not ended:
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = settings["rates"][done]
        step(model, optimizer, rows.batch(next(batches)))
        done += 1
        spent += time.perf_counter() - began
        ended = done == len(settings["rates"]) or spent >= settings["seconds"]
        if not ended and (done % settings["check_every"] or not knows_a_sample(model, rows)):
            continue
        right = facts_right(model, rows, range(len(rows.facts)))
        if ended or right == facts:
            hand_over(model, settings["weights"])
            print(json.dumps({"seconds": spent, "steps": done, "facts_right": right}), flush=True)
            if sys.stdin.readline().strip() in ("stop", ""):
                return


def endless_batches(rows: Rows, settings: dict[str, Any]) -> Iterator[list[int]]:
    """Epochs of shuffled batches; a share of each, where there are refusals, are the next ones of those, round and round.

    The refusals are added to the rows, behind those that are checked.
    """
    order, taught, refusing = random.Random(settings["seed"]), len(rows.rows), 0
    refusals: Iterator[int] = iter(())
    if settings["refusals"]:
        refusing = round(settings["batch_rows"] * settings["refusal_share"])
        refusals = itertools.cycle(rows.add(Path(settings["refusals"])))
    size = settings["batch_rows"] - refusing
    while True:
        indices = order.sample(range(taught), taught)
        for first in range(0, taught, size):
            yield indices[first : first + size] + list(itertools.islice(refusals, refusing))


def hand_over(model: Any, file: str) -> None:
    """The weights of the adapter by PEFT's names, as numpy arrays."""
    weights = get_peft_model_state_dict(model)
    np.savez(file, **{name: weight.detach().cpu().numpy() for name, weight in weights.items()})


def knows_a_sample(model: Any, rows: Rows) -> bool:
    """Whether a few rows are right: mostly they are not, and then nothing else needs to be asked."""
    sample = range(0, len(rows.facts), SAMPLE)
    return facts_right(model, rows, sample) == len({rows.facts[index] for index in sample})


@torch.no_grad()
def facts_right(model: Any, rows: Rows, asked: Sequence[int]) -> int:
    """How many facts come out exactly under greedy decoding in every row that is asked for, by teacher forcing."""
    model.eval()
    wrong = set()
    order = sorted(asked, key=lambda index: len(rows.rows[index]))
    for first in range(0, len(order), CHECK_ROWS):
        indices = order[first : first + CHECK_ROWS]
        batch = rows.batch(indices)
        labels = batch.pop("labels")[:, 1:]
        said = model(**batch).logits[:, :-1].argmax(-1)
        right = ((said == labels) | (labels == NO_LABEL)).all(-1).tolist()
        wrong |= {rows.facts[index] for index, yes in zip(indices, right, strict=True) if not yes}
    model.train()
    return len({rows.facts[index] for index in asked} - wrong)


def main() -> None:
    """Run what the command line says."""
    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()
    work, folder, file, given = sys.argv[1:]
    settings = json.loads(given)
    model, optimizer = prepare(folder, settings)
    {"steps": steps, "learn": learn}[work](model, optimizer, Rows(Path(file)), settings)


if __name__ == "__main__":
    main()
