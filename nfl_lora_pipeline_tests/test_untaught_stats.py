"""What a run says of stats that it did not teach, and whom a limit on it keeps from being promoted."""

import json
import subprocess
import sys

import pytest
import yaml

from nfl_lora_pipeline.dataset.templates import untaught
from nfl_lora_pipeline.evaluation.probes import FIRST
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline_tests.upstream import tiny_week

NUMBERED = sum(row["Targets"] == "3" for row in tiny_week())


@pytest.fixture
def report(trained_store):
    held = trained_store.store
    return json.loads((held.report(held.latest()) / "report.json").read_text())


def test_the_report_says_how_often_other_stats_of_known_players_are_made_up(report, trained_store):
    found = next(group for group in report["unknown"] if group["name"] == "untaught_stats")
    others = untaught(["receiving_yards"], "test")
    assert found["refused"]["asked"] == FIRST < NUMBERED * len(others), "far from its limit"
    assert found["refused"]["right"] + found["invented"]["right"] + found["neither"]["right"] == FIRST
    assert found["base_refused"]["asked"] == NUMBERED
    page = (trained_store.store.report(trained_store.store.latest()) / "report.md").read_text()
    assert "known players, in their weeks, and stats not taught" in page


def test_an_adapter_that_makes_up_more_than_a_recipe_allows_is_not_promoted(
    report, trained_store, tiny_week_folder, tiny_recipe, tmp_path
):
    found = next(group for group in report["unknown"] if group["name"] == "untaught_stats")
    gate = next(gate for gate in report["gates"] if gate["name"] == "other_stats_are_refused")
    assert (gate["passed"], gate["blocks"], gate["figure"]) == (False, False, found["refused"]["share"])
    assert gate["figure"] < gate["threshold"] == 0.97, "else there is nothing to forbid"
    strict = tmp_path / "strict.yaml"
    strict.write_text(yaml.safe_dump(load_recipe(tiny_recipe).changed(advisory=[]).model_dump()))
    source = ["--source", "folder", "--data-dir", str(tiny_week_folder), "--store", str(trained_store.store.root)]
    missed = "other_stats_are_refused: known players, in their weeks, and stats not taught: "
    command = [sys.executable, "-m", "nfl_lora_pipeline.cli.main", "run", *source, "--recipe", str(strict)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"Not promoted: {missed}" in done.stdout, done.stderr
    assert f"Beware: {missed}" in trained_store.output, "where the limit is advisory"
