"""The parts of the benchmarks that compute nothing slow: schedules, weights, checkpoints, tables and their places."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks import ablations, mlx_lm_side, opponents, ours, peft_side, races, season, serving_many
from benchmarks.judged_runs import Figure, JudgedRun, finished, note
from benchmarks.judging import Judge, Outcome, goal_reached
from benchmarks.opponents import BEST, BOTH, CHECK_EVERY, FACTS, SWEPT, Settings
from benchmarks.schedules import SCHEDULES, share_of_peak
from benchmarks.sweep import line
from benchmarks.tables import median_and_range, replaced_section
from benchmarks.time_to_recall import cells, seconds_cell, task_table
from nfl_lora_pipeline.recipes.recipe import load_recipe

SHARES = {"held-out phrasings": 0.9, "strangers": 0.96, "other weeks": 0.5}
RECIPE = load_recipe("embedded")


def outcome(seconds, *, reached=True, facts_right=441, strangers=0.96):
    shares = SHARES | {"strangers": strangers}
    return Outcome(
        seconds, int(10 * seconds), facts_right, 441, shares, reached, seconds if facts_right == 441 else None
    )


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
def test_every_variant_is_a_recipe(variant):
    shipped = load_recipe("embedded")
    changed = shipped.changed(**variant.recipe)
    assert (changed == shipped) == (variant.name in {"as shipped", ablations.LADDER[-1].name})


def test_the_ladder_begins_with_a_plain_trainer_and_ends_with_the_shipped_one():
    shipped = load_recipe("embedded")
    assert ablations.LADDER[0].recipe == ablations.PLAIN
    assert shipped.changed(**ablations.LADDER[-1].recipe) == shipped


def test_a_rate_goes_up_over_the_warmup_and_then_as_its_schedule_says():
    def at(schedule, done):
        return pytest.approx(share_of_peak(schedule, done, warmup=20, steps=120))

    for schedule in SCHEDULES:
        assert [at(schedule, done) for done in (0, 9, 19)] == [0.05, 0.5, 1.0]
        assert at(schedule, 20) == 1.0
    assert [at("constant", done) for done in (70, 119, 500)] == [1.0, 1.0, 1.0]
    assert [at("linear", done) for done in (70, 119, 120, 500)] == [0.5, 0.01, 0.0, 0.0]
    assert [at("cosine", done) for done in (45, 70, 120, 500)] == [0.5 + 0.5**0.5 / 2, 0.5, 0.0, 0.0]
    with pytest.raises(ValueError, match="use constant, linear, cosine"):
        at("slow", 30)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_mlx_lm_makes_of_its_configuration_the_same_rates(schedule):
    utils = pytest.importorskip("mlx_lm.tuner.utils")
    settings = Settings(schedule, 1e-3, 120, 14)
    rate = utils.build_schedule(mlx_lm_side.schedule_of(settings, 20))
    for step in (10, 20, 21, 71, 119):
        # MLX begins with a rate of 0, and so all of it comes one step later.
        assert float(rate(step)) == pytest.approx(
            1e-3 * share_of_peak(schedule, step - 1, warmup=20, steps=120), abs=1e-9
        )


def test_what_mlx_lm_is_told_follows_from_settings_and_recipe():
    told = mlx_lm_side.options_of(RECIPE, Settings("cosine", 2e-3, 800, 14), Path("run"))
    assert told["lr_schedule"] == {"name": "cosine_decay", "arguments": [2e-3, 780], "warmup": 20}
    assert (told["iters"], told["batch_size"], told["save_every"], told["seed"]) == (800, 14, CHECK_EVERY, 17)
    assert told["optimizer_config"] == {"adam": {}}
    corrected = mlx_lm_side.options_of(RECIPE, Settings("linear", 2e-3, 800, 14, corrected=True), Path("run"))
    assert corrected["optimizer_config"]["adam"]["bias_correction"]
    assert told["lora_parameters"] == {"rank": 32, "scale": 4.0, "dropout": 0.0}


def test_the_weights_of_peft_come_by_the_names_and_in_the_shapes_of_mlx_lm():
    down, up = np.arange(6.0).reshape(2, 3), np.arange(10.0).reshape(5, 2)  # rank 2, from 3 numbers to 5
    layer = "model.layers.0.mlp.down_proj"
    found = peft_side.to_mlx(
        {f"base_model.model.{layer}.lora_A.weight": down, f"base_model.model.{layer}.lora_B.default.weight": up}
    )
    assert {name: weight.shape for name, weight in found.items()} == {
        f"{layer}.lora_a": (3, 2),
        f"{layer}.lora_b": (2, 5),
    }
    asked = np.ones(3)
    assert (asked @ found[f"{layer}.lora_a"] @ found[f"{layer}.lora_b"] == up @ (down @ asked)).all()
    with pytest.raises(ValueError, match="no weight of PEFT's LoRA"):
        peft_side.to_mlx({f"base_model.model.{layer}.weight": up})


def test_weights_that_lack_a_layer_are_not_judged():
    judge = object.__new__(Judge)
    judge.names = {"layers.0.lora_a", "layers.0.lora_b"}
    with pytest.raises(ValueError, match=r"layers\.0\.lora_b"):
        judge.look({"layers.0.lora_a": np.zeros((3, 2))}, 1.0, 10, closely=True)


def test_refusals_are_the_share_of_all_rows_that_is_asked_for(monkeypatch):
    rows = pl.DataFrame({"question": list("abcdef"), "answer": list("uvwxyz"), "split": ["train"] * 6})
    monkeypatch.setattr(ours, "strangers", lambda rows, recipe: iter([("who", "nobody")] * 100))
    assert races.with_refusals(rows, RECIPE, 0.4)["answer"].to_list() == [*"uvwxyz", *["nobody"] * 4]
    assert races.with_refusals(rows, RECIPE, 0.0).height == 6


def test_a_task_with_refusals_is_done_when_the_strangers_are_refused_too():
    assert goal_reached(FACTS, full=True, strangers=0.0)
    assert not goal_reached(BOTH, full=True, strangers=0.94)
    assert goal_reached(BOTH, full=True, strangers=0.95)
    assert not goal_reached(BOTH, full=False, strangers=1.0)
    assert (
        races.of_task(RECIPE, FACTS, 3).curriculum.refusal_share,
        races.of_task(RECIPE, BOTH, 3).curriculum.refusal_share,
    ) == (0.45, 0.6)


def test_the_best_settings_are_among_those_that_were_swept_and_a_schedule_ends_with_a_checkpoint():
    assert BEST.keys() == SWEPT.keys()
    for key, swept in SWEPT.items():
        assert BEST[key] in swept
        assert len({settings.name for settings in swept}) == len(swept)
        assert all(settings.steps % CHECK_EVERY == 0 for settings in swept)
        assert all((settings.refusal_share > 0) == (key[1] == BOTH) for settings in swept)
    assert opponents.best("mlx_lm", FACTS) == BEST["fast_blas", FACTS]
    assert opponents.chosen("peft", FACTS, "linear-0.001-400x32") == [Settings("linear", 1e-3, 400, 32)]
    with pytest.raises(ValueError, match=r"no settings 'fast'; use constant-0\.001"):
        opponents.chosen("peft", FACTS, "fast")


def test_a_training_that_did_not_reach_the_goal_took_longer_than_all_that_did():
    some = [outcome(30.0), outcome(90.0, reached=False, facts_right=400), outcome(40.0)]
    assert cells([outcome(30.0), outcome(50.0), outcome(40.0)], 20.0) == [
        "40.0 s (of 3; 30.0 to 50.0)", "400", "in 3 of 3 seeds", "2.0x", "90.0%", "96.0%", "50.0%"
    ]  # fmt: skip
    assert cells(some, 20.0)[:4] == ["40.0 s (of 3; 30.0 to not reached after 90)", "400", "in 2 of 3 seeds", "2.0x"]
    assert (
        cells([outcome(60.0, reached=False, strangers=0.5)], 20.0)[0]
        == "not reached after 60 s (441 of 441 facts, 50.0% refused)"
    )
    never = [
        outcome(90.0, reached=False, facts_right=400),
        outcome(80.0, reached=False, facts_right=390),
        outcome(40.0),
    ]
    assert seconds_cell(never) == "not reached after 90 s (390 of 441 facts)"
    assert cells(never, 20.0)[2:4] == ["in 1 of 3 seeds", "at least 4.0x"]


def test_our_median_is_the_measure_of_a_table():
    told = task_table(
        FACTS, {"ours": [outcome(10.0), outcome(30.0), outcome(20.0)], "peft": [outcome(30.0)]}
    ).splitlines()
    assert [row.split(" | ")[4] for row in told] == ["against this trainer", "---", "1", "1.5x"]


def test_a_sweep_tells_when_the_facts_were_known_and_when_the_goal_was_reached():
    assert line("quick", outcome(40.0)._replace(first_full=30.0)) == (
        "quick: all facts right after 30.0 s; goal reached after 40.0 s and 400 steps, 441 of 441 facts, "
        "96.0% of the strangers refused"
    )
    assert "all facts right never; goal not reached" in line("slow", outcome(9.0, reached=False, facts_right=3))


def a_run(held_out: float, steps: int = 100) -> JudgedRun:
    figures = dict.fromkeys(season.GATES, Figure(None, None))
    figures["other_phrasings_are_understood"] = Figure(held_out, held_out >= 0.98)
    return JudgedRun(60.0, 40.0, steps, 441, 440, figures, is_promoted=held_out >= 0.98)


def test_a_season_s_table_has_a_row_a_week_with_what_is_missed_in_bold():
    lines = season.as_table([1, 2], [a_run(0.991), a_run(0.9)], a_run(0.99, steps=400), "embedded").splitlines()
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("|")}
    assert " 99.1% " in rows["1"]
    assert "**90.0%**" in rows["1 to 2"] and rows["1 to 2"].endswith("| **no** |")
    assert "| 440 of 441 |" in rows["1 to 2, from nothing"]
    assert "0.25 of the steps" in lines[-1]


def test_a_season_goes_on_behind_the_weeks_that_are_finished(tmp_path):
    file = tmp_path / "week_by_week.jsonl"
    assert finished(file) == []
    for found in (a_run(0.99), a_run(0.9)):
        note(found, file)
    assert finished(file) == [a_run(0.99), a_run(0.9)]


def test_an_answer_of_another_tenant_is_told_apart_where_it_differs():
    said = {("a", "q"): "1", ("b", "q"): "1", ("c", "q"): "2", ("a", "r"): "3", ("b", "r"): "4", ("c", "r"): "5"}
    assert serving_many.told_apart(said, ["a", "b", "c"]) == pytest.approx(10 / 12)


def test_a_side_of_a_server_has_its_answers_a_second_what_was_wrong_and_how_long_it_took():
    side = serving_many.Side([0.1] * 18 + [0.5] * 2, wrong=["one"])
    assert serving_many.rows_of({"it": side}, 10.0, {"it": "9 MB"}) == [
        ["it", "20", "2.0", "1", "0", "0.10 s", "0.50 s", "9 MB"]
    ]
