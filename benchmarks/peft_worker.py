"""The side of HF PEFT on torch: runs in `.venv-bench` (`make bench-setup`), knows nothing of MLX and of this project.

    python peft_worker.py steps MODEL ROWS.npz SETTINGS     # one step for each line on standard input; prints milliseconds
    python peft_worker.py learn MODEL ROWS.npz SETTINGS     # an ordinary training; prints a JSON line at every check

ROWS.npz holds `tokens` (all rows below each other), `lengths`, `starts` (where an answer begins in its row) and `facts` (the
number of the fact that a row asks for); SETTINGS is JSON.
"""

import json
import random
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model

NO_LABEL = -100
CHECK_ROWS = 128


class Rows:
    """Rows of token ids, and the batches that are made of them."""

    def __init__(self, file: Path):
        with np.load(file) as arrays:
            ends = np.cumsum(arrays["lengths"])
            self.rows = np.split(arrays["tokens"], ends[:-1])
            self.starts, self.facts = arrays["starts"].tolist(), arrays["facts"].tolist()

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
    """Epochs of shuffled batches until every fact is right in every row, or for so many seconds; checks are not counted."""
    order, waiting, spent, done = random.Random(settings["seed"]), [], 0.0, 0
    while spent < settings["seconds"]:
        began = time.perf_counter()
        if not waiting:
            indices = order.sample(range(len(rows.rows)), len(rows.rows))
            size = settings["batch_rows"]
            waiting = [indices[first : first + size] for first in range(0, len(indices), size)]
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * min(1.0, (done + 1) / settings["warmup_steps"])
        step(model, optimizer, rows.batch(waiting.pop()))
        done += 1
        spent += time.perf_counter() - began
        if done % settings["check_every"] == 0:
            right = facts_right(model, rows)
            print(json.dumps({"seconds": spent, "steps": done, "facts_right": right}), flush=True)
            if right == len(set(rows.facts)):
                return


@torch.no_grad()
def facts_right(model: Any, rows: Rows) -> int:
    """How many facts come out exactly under greedy decoding in every row, by teacher forcing."""
    model.eval()
    wrong = set()
    order = sorted(range(len(rows.rows)), key=lambda index: len(rows.rows[index]))
    for first in range(0, len(order), CHECK_ROWS):
        indices = order[first : first + CHECK_ROWS]
        batch = rows.batch(indices)
        labels = batch.pop("labels")[:, 1:]
        said = model(**batch).logits[:, :-1].argmax(-1)
        right = ((said == labels) | (labels == NO_LABEL)).all(-1).tolist()
        wrong |= {rows.facts[index] for index, yes in zip(indices, right, strict=True) if not yes}
    model.train()
    return len(set(rows.facts)) - len(wrong)


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
