"""What the definitions say of themselves, what they are built from, and what an asset's body may be."""

import ast
import inspect
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import dagster as dg
import pytest
import yaml

import nfl_lora_pipeline
from nfl_lora_pipeline.definitions import build_definitions
from nfl_lora_pipeline.defs.common import CODE
from nfl_lora_pipeline.defs.experiments import shipped_experiments
from nfl_lora_pipeline.defs.resources import Resources
from nfl_lora_pipeline.defs.update import assets_of
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.settings import Settings

PACKAGE = Path(nfl_lora_pipeline.__file__).parent
LONGEST_BODY = 19  # lines


@pytest.fixture(scope="module")
def repository() -> dg.RepositoryDefinition:
    return build_definitions(Settings()).get_repository_def()


def test_every_asset_has_owners_tags_kinds_and_a_description(repository):
    nodes = repository.asset_graph.asset_nodes
    assert len(nodes) == len(CODE)
    lacking = [
        node.key
        for node in nodes
        if not (node.owners and node.tags and node.kinds and len(node.description or "") > 20)
    ]
    assert lacking == []


def test_every_check_has_a_description_of_its_own(repository):
    graph = repository.asset_graph
    descriptions = [graph.get_check_spec(key).description for key in graph.asset_check_keys]
    assert all(description and len(description) > 20 for description in descriptions)
    assert len(set(descriptions)) == len(descriptions) > 20


def test_every_sensor_and_schedule_and_job_has_an_owner_tags_and_a_description(repository):
    jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]  # those are Dagster's own
    found = [*repository.sensor_defs, *repository.schedule_defs, *jobs]
    assert {each.name for each in found} == {
        "new_weeks",
        "automation",
        "dead_runs",
        "weekly_retraining",
        "update_season",
        "fetch_week",
    }
    for each in found:
        assert getattr(each, "owners", None) or each.metadata["owner"], each.name
        assert each.tags, each.name
        assert len(each.description or "") > 20, each.name


def test_no_description_has_the_blanks_of_a_docstring_which_the_ui_would_show_as_code(repository):
    graph = repository.asset_graph
    texts = [graph.get_check_spec(key).description or "" for key in graph.asset_check_keys]
    found = [*graph.asset_nodes, *repository.sensor_defs, *repository.schedule_defs, *repository.get_all_jobs()]
    texts += [each.description or "" for each in found]
    assert [text for text in texts if "\n    " in text] == []


def test_descriptions_stand_alone(repository):
    """Nobody who reads one in the UI has read another before it."""
    graph = repository.asset_graph
    texts = [graph.get_check_spec(key).description or "" for key in graph.asset_check_keys]
    texts += [node.description or "" for node in graph.asset_nodes]
    assert [text for text in texts if text.startswith(("The same", "Also", "As above", "It "))] == []


def test_a_backfill_is_a_run_a_week_and_the_promoted_adapter_is_expected_every_week(repository):
    for node in repository.asset_graph.asset_nodes:
        several = node.backfill_policy and node.backfill_policy.max_partitions_per_run
        assert several == (1 if node.partitions_def else None), node.key
        policy = node.freshness_policy
        assert bool(policy) == (node.key.to_user_string() == "promoted_adapter"), node.key


def versions(**settings: object) -> dict[str, str | None]:
    assets = assets_of(Resources.of(Settings(**settings)))
    return {name: asset.code_versions_by_key[asset.key] for name, asset in assets.items()}


def changed(**settings: object) -> set[str]:
    before, after = versions(), versions(**settings)
    return {name for name in before if before[name] != after[name]}


def test_other_stats_or_another_recipe_in_the_same_process_have_their_own_code_versions(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(yaml.safe_dump(load_recipe("embedded").changed(min_recall=0.5).model_dump()))
    assert changed() == set()
    assert changed(stats=("receptions",)) == {"players", "qa_pairs", "dataset_splits"}
    assert changed(mode="random_facts") == {"dataset_splits"}
    assert changed(recipe=str(recipe)) == {"adapter", "evaluation_report"}
    assert changed(base_model="owner/name") == {"base_model"}
    assert changed(replace=True) == {"evaluation_report"}
    assert changed() == set()


def test_a_deployments_choice_of_weeks_is_part_of_the_splits_code_version():
    found = [
        build_definitions(Settings(weeks=keys)).resolve_assets_def("dataset_splits").code_versions_by_key
        for keys in ((), ("2025-W01",), ("2025-W01", "2025-W02"))
    ]
    assert len({str(each) for each in found}) == 3


def test_importing_any_module_reads_no_setting_and_changes_no_environment():
    code = (
        "import importlib, os, pkgutil, nfl_lora_pipeline as package; before = dict(os.environ)\n"
        "for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "    if '__main__' not in module.name and not module.name.startswith(package.__name__ + '.models'):\n"
        "        importlib.import_module(module.name)\n"
        "changed = {name for name in os.environ if name.startswith('NFL_LORA') and before.get(name) != os.environ[name]}\n"
        "print(sorted(changed))"
    )
    wrong = os.environ | {"NFL_LORA_SEASON": "now", "NFL_LORA_WATCH": "maybe", "NFL_LORA_RECIPE": "nowhere"}
    done = subprocess.run([sys.executable, "-c", code], env=wrong, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_nobody_imports_what_dagster_keeps_private():
    imports = [
        f"{file.relative_to(PACKAGE)}: {name}"
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        if name.startswith("dagster._")
    ]
    assert imports == []


def test_the_body_of_an_asset_is_short():
    """What it does stands in functions that know no Dagster."""
    lengths = {}
    for asset in [*assets_of(Resources.of(Settings())).values(), *shipped_experiments()]:
        function = asset.op.compute_fn.decorated_fn
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        assert isinstance(tree, ast.FunctionDef)
        body = tree.body[1:]  # behind the docstring
        lengths[asset.key.to_user_string()] = (body[-1].end_lineno or 0) - body[0].lineno + 1
    assert len(lengths) == len(CODE)
    assert {name: length for name, length in lengths.items() if length > LONGEST_BODY} == {}
