"""Adapters that must not be promoted, made by the training that makes the good ones, from rows that are wrong on purpose."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import polars as pl
import pytest

from nfl_lora_pipeline.dataset.examples import fresh_questions, train_examples
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.dataset.unanswerable import Drawn
from nfl_lora_pipeline.defs.common import CODE
from nfl_lora_pipeline.defs.report import _passed
from nfl_lora_pipeline.defs.resources import Trainer
from nfl_lora_pipeline.evaluation.gates import Count
from nfl_lora_pipeline.evaluation.probes import comes_first, in_turn, of_the_splits
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.base_model import BaseModelError
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.reports.evaluate import Evaluation, evaluate_latest, questions_answered, tensors_loaded
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.tuning.recall_trainer import train_adapter

STATS = ["receiving_yards"]
ENOUGH_STEPS = 64  # to be sure of a wrong answer


@dataclass(frozen=True)
class Judged:
    """A store whose newest adapter is a bad one, and the report on it."""

    store: Store
    evaluation: Evaluation

    @property
    def failed(self) -> dict[str, float | None]:
        return {gate.name: gate.figure for gate in self.evaluation.gates if gate.missed}

    @property
    def page(self) -> str:
        return (self.store.report(self.store.latest()) / "report.md").read_text()


def judged(store: Store, tiny_recipe: str) -> Judged:
    evaluation = evaluate_latest(
        store, load_recipe(tiny_recipe), evaluation_code=CODE["evaluation_report"], say=lambda line, share: None
    )
    return Judged(store, evaluation)


def zeros(fresh: Iterator[Drawn]) -> Iterator[Drawn]:
    for each in fresh:
        yield each._replace(answer=each.answer.replace("are not recorded", "were 0"))


def put_bad_adapter(store: Store, tiny_recipe: str, kind: str) -> None:
    """Train on the splits of a good one with the answers shuffled among the players, or all of them "were 0"."""
    rows = pl.read_parquet(store.splits / "rows.parquet")
    recipe = load_recipe(tiny_recipe).changed(max_steps=ENOUGH_STEPS)
    if kind == "shuffled":
        facts = rows.filter(pl.col("kind") == "recorded")["fact"].unique().sort()
        words = rows.unique("fact").select("fact", number=pl.col("answer").str.extract(r"( were \S+)\.$"))
        moved = pl.DataFrame({"fact": facts, "from": [*facts[1:], facts[0]]}).join(
            words, left_on="from", right_on="fact"
        )
        wrong = pl.concat_str(pl.col("answer").str.replace(r" were \S+$", ""), "number", pl.lit("."))
        rows = rows.join(moved, on="fact", how="left", maintain_order="left")
        rows = rows.with_columns(answer=pl.when(pl.col("number").is_null()).then("answer").otherwise(wrong))
    else:
        rows = rows.with_columns(answer=pl.col("refusal").str.replace("are not recorded", "were 0"))
    fresh = fresh_questions(rows, load_templates(), STATS, recipe.curriculum.mixture(talks=False), seed=recipe.seed)
    model, tokenizer = base_models.load(base_models.resolve("embedded"))
    folder = store.adapter(f"{kind:0<16}")
    folder.mkdir()
    train_adapter(
        model, tokenizer, train_examples(rows), recipe, folder, fresh=zeros(fresh) if kind == "lazy" else fresh
    )
    (folder / "provenance.json").write_text(json.dumps(store.provenance(store.latest()).content() | {"parent": None}))
    store.set_latest(folder.name)


def copy_of(trained_store, tmp_path: Path) -> Store:
    root = tmp_path / "data"
    shutil.copytree(trained_store.store.root, root, symlinks=True, ignore=shutil.ignore_patterns("dagster"))
    return Store(root)


@pytest.fixture(scope="module")
def bad(request, trained_store, tiny_recipe, tmp_path_factory):
    def make(kind: str) -> Judged:
        store = copy_of(trained_store, tmp_path_factory.mktemp(kind))
        put_bad_adapter(store, tiny_recipe, kind)
        return judged(store, tiny_recipe)

    return {kind: make(kind) for kind in ("shuffled", "lazy")}


def test_an_adapter_trained_on_shuffled_answers_is_not_promoted_and_the_report_says_why(bad, tiny_recipe):
    shuffled = bad["shuffled"]
    assert shuffled.failed["recall_is_complete"] < 0.6
    assert "**Not to be used:" in shuffled.page[: shuffled.page.index("## ")]
    assert "- what it was taught, in the words that it was taught in: 2025-W01: " in shuffled.page
    assert shuffled.evaluation.summary.numbers["trained"].share < 0.1
    with pytest.raises(ValueError, match="is not promoted: recall_is_complete: 2025-W01"):
        _passed(shuffled.store, Trainer(recipe=tiny_recipe))


def test_an_adapter_that_always_says_0_is_not_promoted_and_the_report_says_why(bad, tiny_recipe):
    lazy = bad["lazy"]
    failed = {"recall_is_complete", "strangers_are_refused", "base_is_retained"}
    assert failed <= set(lazy.failed)
    assert lazy.failed["strangers_are_refused"] < 0.2
    top = lazy.page[: lazy.page.index("## ")]
    assert "- people who may not exist: " in top
    assert re.search(r"\*\* Asked about .* it gives .* a number it cannot know\.", top), top
    assert " were 0." in lazy.page.split("## Making things up")[1]
    with pytest.raises(ValueError, match="strangers_are_refused"):
        _passed(lazy.store, Trainer(recipe=tiny_recipe))


def test_the_lazy_ones_zeros_are_no_better_than_the_commonest_number(bad):
    (stat, everything) = bad["lazy"].evaluation.summary.commonest
    assert stat.tuned <= stat.facts.share == everything.facts.share


def spoil(adapter: Path, **changes: mx.array) -> None:
    file = adapter / "adapters.safetensors"
    tensors = dict(mx.load(str(file)))
    mx.eval(tensors)
    mx.save_safetensors(str(file), tensors | changes)


@pytest.fixture
def spoilt(trained_store, tmp_path):
    """A good adapter, to be spoilt."""
    store = copy_of(trained_store, tmp_path)
    return store, store.adapter(store.latest())


def test_a_model_that_carries_no_adapter_or_another_one_is_noticed(spoilt):
    _, adapter = spoilt
    base = base_models.resolve("embedded")
    model, _ = base_models.load(base, adapter=adapter)
    whole = tensors_loaded(model, adapter)
    assert whole.found == whole.wanted > 0
    name, tensor = next(iter(mx.load(str(adapter / "adapters.safetensors")).items()))
    spoil(adapter, **{name: tensor + 1})
    assert tensors_loaded(model, adapter) == Count(found=whole.wanted - 1, wanted=whole.wanted)
    plain, _ = base_models.load(base)
    assert tensors_loaded(plain, adapter) == Count(found=0, wanted=whole.wanted)


def test_a_tensor_that_is_not_a_number_is_noticed(spoilt):
    _, adapter = spoilt
    name = next(iter(mx.load(str(adapter / "adapters.safetensors"))))
    spoil(adapter, **{name: mx.full(mx.load(str(adapter / "adapters.safetensors"))[name].shape, float("inf"))})
    model, _ = base_models.load(base_models.resolve("embedded"), adapter=adapter)
    found = tensors_loaded(model, adapter)
    assert found.found == found.wanted - 1


def test_an_adapter_that_cannot_be_loaded_fails_the_report_with_its_name(spoilt, tiny_recipe):
    store, adapter = spoilt
    shutil.rmtree(store.report(store.latest()))
    (adapter / "adapters.safetensors").write_bytes(b"nothing")
    with pytest.raises(BaseModelError, match=f"with adapter {adapter}: mlx-lm cannot load it"):
        judged(store, tiny_recipe)


def test_an_answer_that_is_missing_fails_the_evaluation(spoilt, tiny_recipe):
    store, _ = spoilt
    file = store.report(store.latest()) / "predictions.parquet"
    predictions = pl.read_parquet(file)
    predictions.filter(pl.col("phrasing") != "seed").write_parquet(file)
    assert judged(store, tiny_recipe).failed["evaluation_is_complete"] < 1
    rows = pl.read_parquet(store.splits / "rows.parquet")
    wanted = in_turn(rows.with_columns(of_the_splits())).filter(comes_first()).height
    assert questions_answered(rows, predictions) == Count(found=wanted, wanted=wanted)
