"""The parts of the benchmarks that compute nothing slow: checkpoints, tables and their places in the document."""

import os

import pytest

from benchmarks import ablations, mlx_lm_side
from benchmarks.tables import median_and_range, replaced_section
from nfl_lora_pipeline.tuning.recipe import Recipe, load_recipe


def written(folder, name, content, at):
    file = folder / name
    file.write_bytes(content)
    os.utime(file, (at, at))


def test_a_section_is_renewed_where_it_stands_and_added_where_it_is_not():
    document = replaced_section(replaced_section("# All\n", "one", "old"), "two", "other")
    renewed = replaced_section(document, "one", "new \\1")
    assert renewed == document.replace("old", "new \\1")
    assert renewed.index("new") < renewed.index("other")


def test_a_checkpoint_counts_from_where_training_began_and_one_that_was_cut_off_is_none(tmp_path):
    written(tmp_path, "adapter_config.json", b"{}", 1000.0)
    written(tmp_path, "0000050_adapters.safetensors", b"whole", 1004.5)
    written(tmp_path, "0000100_adapters.safetensors", b"whole", 1009.0)
    written(tmp_path, "0000150_adapters.safetensors", b"cut", 1013.0)
    found = mlx_lm_side.checkpoints(tmp_path)
    assert [(checkpoint.steps, checkpoint.seconds) for checkpoint in found] == [(50, 4.5), (100, 9.0)]


def test_a_median_stands_with_the_range_of_its_values():
    assert median_and_range([3.0, 1.0, 2.04], "s") == "2.0 s (of 3; 1.0 to 3.0)"
    assert median_and_range([1234.5], "ms") == "1,234.5 ms"


@pytest.mark.parametrize("variant", ablations.VARIANTS, ids=lambda variant: variant.name)
def test_what_is_left_out_is_there_and_comes_back(variant):
    Recipe.model_validate(load_recipe("embedded").model_dump() | variant.recipe)
    before = [getattr(owner, name) for owner, name, _ in variant.changed]
    with ablations.without(variant):
        assert [getattr(owner, name) for owner, name, _ in variant.changed] == [
            value for _, _, value in variant.changed
        ]
    assert [getattr(owner, name) for owner, name, _ in variant.changed] == before
