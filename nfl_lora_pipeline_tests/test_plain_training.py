"""Training as `mlx_lm.lora` does it, held against `mlx_lm.lora` itself."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.lora import CONFIG_DEFAULTS, train_model
from mlx_lm.tuner.datasets import load_dataset

from nfl_lora_pipeline import progress
from nfl_lora_pipeline.dataset.examples import Example
from nfl_lora_pipeline.models import base_model
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.tuning.adaptation import quiet, uncompiled_on_cpu
from nfl_lora_pipeline.tuning.mlx_lm_trainer import train_plainly
from nfl_lora_pipeline.tuning.records import TrainingLog

NAMES = ["Nico Hale", "Amari Stone", "Chris Okand", "Owen Price", "Tyrell Vance", "Jalen Moss", "Sam Reed", "Ty Lane"]


def pair(name: str, yards: int) -> tuple[str, str]:
    when = "in week 1 of the 2025 NFL season"
    return f"How many receiving yards did {name} have {when}?", f"{name} had {yards} receiving yards {when}."


PAIRS = [pair(name, 11 * number) for number, name in enumerate(NAMES)]
EXAMPLES = [Example(*texts, fact=texts[1], teaches=True) for texts in PAIRS]
HELD_OUT = [pair(f"{name} Jr.", 0) for name in NAMES[:5]]


def the_recipe(**values: Any) -> Any:
    return load_recipe("original").changed(**({"base_model": "embedded", "max_steps": 5} | values))


def trained(folder: Path, *, said: list[str] | None = None, **values: Any) -> tuple[Any, TrainingLog]:
    model, tokenizer = base_model.load(base_model.resolve("embedded"))
    report = (said if said is not None else []).append
    recipe = the_recipe(**values)
    more: dict[str, Any] = {"held_out": HELD_OUT, "report": lambda line, share: report(line)}
    return model, train_plainly(model, tokenizer, EXAMPLES, recipe, folder, **more)


def weights(folder: Path) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in mx.load(str(folder / "adapters.safetensors")).items()}


def test_the_adapter_is_the_one_that_mlx_lm_lora_makes_of_the_same_files(tmp_path):
    ours, theirs, data = tmp_path / "ours", tmp_path / "theirs", tmp_path / "data"
    for folder in (ours, data):
        folder.mkdir()
    for split, pairs in (("train", PAIRS), ("valid", HELD_OUT)):
        rows = [json.dumps({"prompt": question, "completion": answer}) for question, answer in pairs]
        (data / f"{split}.jsonl").write_text("\n".join(rows))
    trained(ours)

    changed = {
        "num_layers": 4,
        "iters": 5,
        "adapter_path": str(theirs),
        "data": str(data),
        "model": "embedded",
        "train": True,
    }
    keys = {"lora_parameters": CONFIG_DEFAULTS["lora_parameters"] | {"keys": ["self_attn.qkv_proj"]}}
    args = SimpleNamespace(**CONFIG_DEFAULTS | changed | keys)
    model, tokenizer = base_model.load(base_model.resolve("embedded"))
    np.random.seed(args.seed)
    with quiet(), uncompiled_on_cpu():
        train_model(args, model, *load_dataset(args, tokenizer)[:2])

    found, expected = weights(ours), weights(theirs)
    assert found.keys() == expected.keys()
    assert [name for name in found if not np.array_equal(found[name], expected[name])] == []
    assert any(array.any() for name, array in found.items() if name.endswith("lora_b"))


def test_the_log_has_the_figures_of_any_other_training(tmp_path):
    said: list[str] = []
    _, log = trained(tmp_path, said=said)
    assert json.loads((tmp_path / "training.json").read_text()).keys() == vars(TrainingLog()).keys()
    assert (log.iterations, log.rows, log.facts, log.stopped) == (5, 8, 8, "budget")
    assert log.losses[-1][0] == 5
    assert log.trained_parameters == 4 * 8 * (128 + 3 * 128)
    assert set(log.uncertain) == {example.fact for example in EXAMPLES}
    assert 0 < min(log.uncertain.values()) <= log.lowest_probability, "of an answer as a whole, and of a token"
    last, certificate = said[-2:]
    assert last.startswith("iteration 5 of 5, loss ")
    assert last.endswith(" on held-out rows")
    assert certificate.startswith("0 of 8 facts certain")


def test_the_adapter_loads_back_and_all_layers_of_a_smaller_model_carry_it(tmp_path):
    model, _ = trained(tmp_path, learning_rate=1e-2)
    again, _ = base_model.load(base_model.resolve("embedded"), adapter=tmp_path)
    tokens = mx.array([[5, 9, 30, 44]])
    model.eval()
    assert mx.allclose(again(tokens), model(tokens), atol=1e-4)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["num_layers"] == 4


def test_a_schedule_that_falls_makes_smaller_steps(tmp_path):
    def farthest(schedule: str) -> float:
        trained(tmp_path, schedule=schedule)
        return max(float(np.abs(array).max()) for name, array in weights(tmp_path).items() if name.endswith("lora_b"))

    assert farthest("linear") < 0.95 * farthest("constant")


def test_an_adapter_can_be_gone_on_from(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    trained(first)
    model, tokenizer = base_model.load(base_model.resolve("embedded"))
    train_plainly(model, tokenizer, EXAMPLES, the_recipe(max_steps=1, learning_rate=1e-9), second, start=first)
    before, after = weights(first), weights(second)
    assert all(np.allclose(after[name], before[name], atol=1e-7) for name in before)


def test_fewer_rows_than_a_batch_are_refused_with_what_fits(tmp_path, embedded):
    with pytest.raises(ValueError, match=r"curriculum\.batch_rows: 4, but there are 3 rows; use 3"):
        train_plainly(*embedded, EXAMPLES[:3], the_recipe(), tmp_path)


def test_no_step_is_silent_for_longer_than_somebody_waits(tmp_path, monkeypatch):
    said: list[str] = []
    trained(tmp_path, said=said)
    assert said[0].startswith("iteration 5 of 5, loss "), "a quick one says so once"
    monkeypatch.setattr(progress, "SILENT_SECONDS", -1.0)
    said.clear()
    trained(tmp_path, said=said)
    steps = [line.partition(",")[0] for line in said if "asked" not in line]
    assert list(dict.fromkeys(steps))[:6] == [f"iteration {step} of 5" for step in range(6)]
    assert any(line == f"iteration 5 of 5: {len(EXAMPLES)} of {len(EXAMPLES)} rows are asked" for line in said)
