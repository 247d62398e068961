"""`nfl-lora plan`: what a run would do and take, told without doing it."""

import hashlib
import re
import shutil

import pytest
import yaml
from click.testing import CliRunner

from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.sources.folder import week_file
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests import upstream


@pytest.fixture
def planned(tiny_week_folder, tiny_recipe):
    def plan(store, *options):
        words = ["--source", "folder", "--data-dir", str(tiny_week_folder), "--recipe", tiny_recipe]
        return CliRunner().invoke(main, ["plan", *words, "--store", str(store), *options])

    return plan


def lines_of(result):
    """Each line by its subject."""
    assert result.exit_code == 0, result.output
    return dict(re.split(r":? +", line, maxsplit=1) for line in result.stdout.splitlines())


def contents(folder):
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


def test_a_training_is_forecast_by_two_steps_and_nothing_is_written(planned, tmp_path, tiny_week_folder):
    lines = lines_of(planned(tmp_path / "data"))
    assert list(lines) == "plan 2025-W01 dataset base adapter tokens memory steps time".split()
    assert lines["plan"].startswith("receiving yards of 2025 week 1; recipe ")
    assert lines["2025-W01"].endswith(f"would be read, from {tiny_week_folder}/2025/1/WR.json")
    assert lines["dataset"] == "11 facts in 75 rows to train on"
    assert lines["base"] == "embedded, which is on this machine"
    assert lines["adapter"].endswith("would be trained from nothing")
    assert re.fullmatch(r"[\d,]{4,} in 75 rows", lines["tokens"])
    assert re.fullmatch(r"about 0\.\d GB of memory needed, of \d+\.\d GB", lines["memory"])
    assert re.fullmatch(r"about \d+, \d+ at most", lines["steps"])
    assert re.fullmatch(
        r"about \d+ (s|min) of training \(\d+ (s|min) at most\), by a trial step of [\d.e-]+ s", lines["time"]
    )
    assert not (tmp_path / "data").exists()


def test_what_is_there_would_be_reused_and_the_store_stays_as_it_is(planned, trained_store):
    before = contents(trained_store.store.root)
    lines = lines_of(planned(trained_store.store.root))
    assert lines["2025-W01"].startswith("held already, and unchanged, from ")
    assert lines["adapter"].startswith(f"{trained_store.store.latest()} is made of just that and would be reused")
    assert contents(trained_store.store.root) == before


def test_another_stat_would_go_on_from_nothing_that_does_not_fit_and_says_why(planned, trained_store):
    lines = lines_of(planned(trained_store.store.root, "--stats", "targets"))
    assert f"not going on from adapter {trained_store.store.latest()}: made with another stats" in lines["adapter"]


def test_a_training_makes_no_more_steps_than_the_plan_says_at_most(planned, trained_store, tmp_path):
    steps = lines_of(planned(tmp_path / "data"))["steps"]
    expected, most = map(int, re.findall(r"\d+", steps))
    assert trained_store.summary["training"]["iterations"] <= most
    assert expected <= most


def test_an_update_is_expected_to_take_what_is_new_would_and_not_what_is_known(
    planned, trained_store, tiny_week_folder, tiny_recipe, tmp_path
):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(load_recipe(tiny_recipe).changed(ending_steps=8).model_dump()))
    raw = shutil.copytree(tiny_week_folder, tmp_path / "raw")
    first, *others = upstream.tiny_week()
    file = week_file(raw, NflWeek(2025, 2))
    file.parent.mkdir(parents=True)
    file.write_bytes(upstream.week_bytes([first | {"ReceivingYDS": "31"}, *others]))
    both = ("--data-dir", str(raw), "--weeks", "1-2", "--recipe", str(recipe))
    update, anew = lines_of(planned(trained_store.store.root, *both)), lines_of(planned(tmp_path / "data", *both))
    assert "would be trained, in fewer steps than from nothing" in update["adapter"]
    (expected, most), (from_nothing, most_anew) = (
        map(int, re.findall(r"\d+", line["steps"])) for line in (update, anew)
    )
    assert expected < 0.8 * from_nothing
    assert most == most_anew


def test_a_base_that_would_be_downloaded_is_named_and_not_downloaded(planned, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nothing listens there
    lines = lines_of(planned(tmp_path / "data", "--base-model", "nobody/nothing"))
    assert lines["base"].startswith("nobody/nothing would be downloaded")
    assert "tokens" not in lines


def test_a_week_that_cannot_be_had_is_the_one_line_that_a_run_would_end_with(planned, tmp_path):
    result = planned(tmp_path / "data", "--weeks", "2")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].endswith(
        "2/WR.json: no such file; put 2025-W02 there, or let it be downloaded (github)"
    )
    assert not Store(tmp_path / "data").root.exists()
