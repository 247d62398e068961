"""What is written for elsewhere: the adapter, and the fused model, quantised base included."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import polars as pl
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load_config, quantize_model, save_config, save_model

from nfl_lora_pipeline.adapters.export import MARK, export_adapter, export_fused, fuse
from nfl_lora_pipeline.adapters.promotion import in_use
from nfl_lora_pipeline.adapters.verify import export_checked
from nfl_lora_pipeline.models import base_model
from nfl_lora_pipeline.models.base_model import EMBEDDED_FOLDER
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.tuning.adaptation import adapt
from nfl_lora_pipeline_tests.fakes import put_adapter

QUESTION = "How many receiving yards did Amari Stone have in week 1 of the 2025 NFL season?"
EXPECTED = "In week 1 of the 2025 NFL season, the receiving yards of Amari Stone were 131."


def answers(folder: Path, questions: list[str], adapter: Path | None = None) -> list[str]:
    return base_model.answer(*base_model.load(base_model.resolve(str(folder)), adapter=adapter), questions)


def nothing_to_check(folder: Path) -> None:
    assert (folder / "config.json").is_file()


@pytest.fixture(scope="module")
def quantised(tmp_path_factory) -> Path:
    """The embedded base in 4 bits, but for one layer in 8, which `config.json` names."""
    folder = tmp_path_factory.mktemp("quantised")
    model, _ = base_model.load(base_model.resolve("embedded"))
    eight = {"group_size": 64, "bits": 8}
    model, config = quantize_model(
        model,
        load_config(EMBEDDED_FOLDER),
        group_size=64,
        bits=4,
        quant_predicate=lambda path, _: eight if path.endswith("0.mlp.down_proj") else True,
    )
    save_model(folder, model)
    save_config(config, folder / "config.json")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(EMBEDDED_FOLDER / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def questions(trained_store) -> list[str]:
    rows = pl.read_parquet(trained_store.store.splits / "rows.parquet")
    of_facts, of_strangers = (rows.filter((pl.col("kind") == "stranger") == yes) for yes in (False, True))
    return [*of_facts["question"], *of_strangers["question"].head(21)]


@pytest.mark.parametrize("base", ["float32", "4bit"])
def test_a_fused_model_gives_the_answers_of_base_and_adapter(base, quantised, trained_store, questions, tmp_path):
    folder = quantised if base == "4bit" else EMBEDDED_FOLDER
    fuse(base_model.resolve(str(folder)), trained_store.adapter, tmp_path)
    expected = answers(folder, questions, trained_store.adapter)
    assert answers(tmp_path, questions) == expected
    assert expected[questions.index(QUESTION)] == EXPECTED
    assert answers(folder, [QUESTION]) != [EXPECTED]


@pytest.mark.parametrize(("kind", "bits"), [("lora", 4), ("dora", 4), ("full", 32)])
def test_fusing_keeps_what_is_finer_than_the_grid_of_a_quantised_base(kind, bits, quantised, tmp_path):
    base = base_model.resolve(str(quantised) if bits == 4 else "embedded")
    model, tokenizer = base_model.load(base)
    tokens = mx.array([tokenizer.encode(QUESTION)])
    plain = model(tokens)
    adapter, fused = tmp_path / "adapter", tmp_path / "fused"
    adapter.mkdir()
    fused.mkdir()
    config = adapt(model, load_recipe("embedded").changed(fine_tune_type=kind))
    mx.random.seed(8)
    slightly = {
        name: array + mx.random.normal(array.shape) * 3e-3 if name.endswith(("lora_b", "proj.weight")) else array
        for name, array in tree_flatten(model.trainable_parameters())
    }
    mx.save_safetensors(str(adapter / "adapters.safetensors"), slightly)
    (adapter / "adapter_config.json").write_text(json.dumps(config))

    fuse(base, adapter, fused)

    with_adapter = base_model.load(base, adapter=adapter)[0](tokens)
    found = base_model.load(base_model.resolve(str(fused)))[0](tokens)
    moved = mx.abs(with_adapter - plain).max().item()
    assert moved > 1e-3
    assert mx.abs(found - with_adapter).max().item() < moved / 50


def test_of_a_quantised_base_only_the_adapted_layers_are_written_whole(quantised, trained_store, tmp_path):
    fuse(base_model.resolve(str(quantised)), trained_store.adapter, tmp_path)
    weights: dict[str, Any] = mx.load(str(tmp_path / "model.safetensors"))
    assert {name for name in weights if name.endswith(".scales")} == {"model.embed_tokens.scales"}
    told = json.loads((tmp_path / "config.json").read_text())["quantization"]
    assert told == {"group_size": 64, "bits": 4, "mode": "affine"}


def test_an_exported_adapter_has_all_that_it_needs(trained_store, tmp_path):
    export_adapter(trained_store.store, trained_store.store.latest(), tmp_path / "out")
    assert answers(tmp_path / "out" / "base", [QUESTION], tmp_path / "out") == [EXPECTED]
    assert "--model base --adapter-path ." in (tmp_path / "out" / "README.md").read_text()


def test_an_adapter_on_a_base_from_elsewhere_names_it(trained_store, tmp_path):
    held = Store(tmp_path / "data")
    put_adapter(held, "aa11", base_model="somebody/some-model", base_revision="r1")
    for name in ("adapters.safetensors", "adapter_config.json"):
        shutil.copyfile(trained_store.adapter / name, held.adapter("aa11") / name)
    export_adapter(held, "aa11", tmp_path / "out")
    assert "--model somebody/some-model --adapter-path ." in (tmp_path / "out" / "README.md").read_text()
    assert not (tmp_path / "out" / "base").exists()


def test_an_export_takes_the_place_of_an_earlier_one_and_of_nothing_else(trained_store, tmp_path):
    held, fingerprint, folder = trained_store.store, trained_store.store.latest(), tmp_path / "out"
    folder.mkdir()
    export_adapter(held, fingerprint, folder)
    export_fused(held, fingerprint, folder, check=nothing_to_check)
    assert json.loads((folder / MARK).read_text())["kind"] == "fused"
    assert not (folder / "adapters.safetensors").exists()
    (folder / MARK).unlink()
    before = sorted(folder.iterdir())
    with pytest.raises(ValueError, match="out is not empty, and no earlier export; name another folder"):
        export_fused(held, fingerprint, folder, check=nothing_to_check)
    assert sorted(folder.iterdir()) == before
    with pytest.raises(ValueError, match=r"config\.json is a file; name a folder"):
        export_adapter(held, fingerprint, folder / "config.json")


def test_a_fused_model_that_does_not_answer_like_the_report_is_not_written(trained_store, tmp_path):
    fingerprint = trained_store.store.latest()
    held = Store(tmp_path / "data")
    shutil.copytree(trained_store.adapter, held.adapter(fingerprint))
    shutil.copytree(trained_store.store.report(fingerprint), held.report(fingerprint))
    file = held.report(fingerprint) / "predictions.parquet"
    pl.read_parquet(file).with_columns(generated=pl.lit("Somebody had 1 yard.")).write_parquet(file)
    with pytest.raises(ValueError, match="not written, since the fused model gives 3 of 43 answers of the report"):
        export_checked(held, fingerprint, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_without_a_promoted_adapter_there_is_none_in_use(tmp_path):
    held = Store(tmp_path)
    put_adapter(held, "aa11")
    with pytest.raises(ValueError, match="no adapter is promoted; `nfl-lora run` promotes one"):
        in_use(held)
    assert in_use(held, "aa") == "aa11"
