"""A training that is broken off goes on as if it had not been."""

import random

import mlx.core as mx
import pytest

from nfl_lora_pipeline.tuning.records import (
    Checkpoint,
    Course,
    TrainingLog,
    TrainingState,
    load_checkpoint,
    save_checkpoint,
)
from nfl_lora_pipeline.tuning.sampler import FreshState, SamplerState

STATE = TrainingState(
    of="these rows",
    course=Course(step=3, to_learn=4, budget=10, ending=10, end=12, peak_share=1 / 3, loss_sum=0.1),
    log=TrainingLog(losses=[(1, 1 / 3)], uncertain={"somebody": 1e-30}),
    rng=random.Random(1).getstate(),
    random=2**63 + 1,
    fresh=FreshState(drawn=7, right=[True, False]),
    sampler=SamplerState(latest=[1 / 3], lowest=[0.1, 1e-300], shown=[0, 1], waiting=[1]),
)


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    file = tmp_path / "new" / "checkpoint.safetensors"
    arrays = {"model/a": mx.array([0.1, 1e-30]), "random/0": mx.array([1, 2**32 - 1], mx.uint32)}
    save_checkpoint(file, Checkpoint(arrays, STATE))
    found = load_checkpoint(file)
    assert found.state == STATE
    assert {name: array.tolist() for name, array in found.arrays.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }
    assert [name for name, _ in found.part("model")] == ["a"]
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("content", [b"", b"{}", b"\x08\x00\x00\x00\x00\x00\x00\x00{}{}{}{}"])
def test_what_is_no_checkpoint_is_as_none(tmp_path, content):
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(content)
    assert load_checkpoint(file) is None
    assert load_checkpoint(tmp_path / "nowhere.safetensors") is None
