"""`nfl-lora`, as whoever types it sees it."""

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline_tests import upstream


def typed(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def run_in(folder: Path, *options: str) -> Result:
    """`run` with a store in that folder."""
    return typed("run", "--store", str(folder / "data"), *options)


def is_one_clear_line(result: Result) -> bool:
    """What a mistake should look like; an exception other than click's own would have been a traceback."""
    stays = isinstance(result.exception, SystemExit) and "Traceback" not in result.output
    return stays and len([line for line in result.stderr.splitlines() if line.startswith("Error: ")]) == 1


@pytest.mark.parametrize(
    "words", [[], ["run"], ["ask"], ["ui"], ["build-base"], ["export"], ["serve"], ["verify"], ["compare"]]
)
def test_help_imports_neither_dagster_nor_a_library_of_models(words):
    code = (
        "import sys; from nfl_lora_pipeline.cli.main import main\n"
        f"try: main({[*words, '--help']!r})\n"
        "except SystemExit as end: print(end.code, sorted({'dagster', 'mlx', 'mlx_lm', 'polars'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("Usage: ")
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--recipe", "best"],
        ["run", "--stats", "yards"],
        ["run", "--weeks", "19"],
        ["run", "--data-dir", "nowhere"],
        ["ui", "--recipe", "best"],
        ["ui", "--stats", "yards"],
    ],
)
def test_a_wrong_choice_is_refused_before_anything_heavy_is_imported(words):
    code = (
        "import sys; from nfl_lora_pipeline.cli.main import main\n"
        f"try: main({words!r})\n"
        "except SystemExit as end: print(end.code, sorted({'dagster', 'mlx', 'mlx_lm', 'polars'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "1 []\n"
    assert done.stderr.startswith("Error: ")


def test_the_command_is_installed_and_knows_its_version():
    command = Path(sys.executable).with_name("nfl-lora")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert "version 0." in done.stdout


@pytest.mark.parametrize(
    ("words", "meant"), [(["run", "--week", "1"], "--weeks"), (["run", "--sorce", "sample"], "--source")]
)
def test_a_mistyped_option_is_refused_with_the_one_that_was_meant(words, meant):
    result = typed(*words)
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert meant in line.partition("Did you mean")[2]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--stats", "yards"], "stat 'yards': use receiving_yards, "),
        (["--weeks", "0"], "'0' is not within 1 to 18"),
        (["--weeks", "19"], "'19' is not within 1 to 18"),
        (["--weeks", "3-1"], "'3-1' is not within 1 to 18"),
        (["--weeks", "x"], "'x' is not a week"),
        (["--weeks", ""], "'' is not a week"),
        (["--recipe", "best"], "recipe 'best': no such recipe; use embedded"),
        (["--data-dir", "nowhere/at/all"], "--data-dir nowhere/at/all: no such folder"),
        (["--source", "sample", "--base-model", "nowhere"], "base model 'nowhere': no such folder"),
    ],
)
def test_a_value_that_nothing_can_be_done_with_is_one_line_and_exit_code_1(tmp_path, options, named):
    result = run_in(tmp_path, *options)
    assert result.exit_code == 1
    assert is_one_clear_line(result)
    assert named in result.stderr


@pytest.mark.parametrize(
    "options", [["--season", "1999"], ["--source", "web"], ["--season", "now"], ["--split-mode", "random"]]
)
def test_a_value_outside_an_options_choices_is_exit_code_2(tmp_path, options):
    result = run_in(tmp_path, *options)
    assert result.exit_code == 2
    assert is_one_clear_line(result)


def test_a_truncated_week_ends_in_the_one_clear_error(tmp_path):
    content = upstream.week_bytes(upstream.tiny_week())
    raw = upstream.write_week(tmp_path / "raw", content[:500])
    command = [sys.executable, "-m", "nfl_lora_pipeline.cli.main", "run", "--source", "folder", "--data-dir", str(raw)]
    done = subprocess.run(
        [*command, "--store", str(tmp_path / "data")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    plan, error = done.stderr.splitlines()
    assert plan.startswith("plan: receiving yards of 2025 week 1; recipe "), "which recipe it is, and why"
    assert "--recipe " in plan, "and how to have the other"
    assert [error] == [
        f"Error: {raw / '2025' / '1' / 'WR.json'}: the file ends early, at byte 500 (line 1); fetch the week again"
    ]


def test_what_is_to_be_done_is_said_before_anything_slow_begins(tmp_path):
    code = "import sys; sys.modules['dagster'] = None; from nfl_lora_pipeline.cli.main import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "run",
        "--store",
        str(tmp_path / "data"),
        "--stats",
        "all",
        "--weeks",
        "1-3,7",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    first = done.stderr.splitlines()[0]
    assert first.startswith("plan: receiving yards, receptions, targets, "), (
        "without Dagster, whose import takes seconds"
    )
    assert " of 2025 week 1-3, 7; recipe embedded" in first


def test_an_error_in_the_second_week_names_it_and_keeps_the_first(tmp_path, tiny_week_folder):
    result = run_in(tmp_path, "--source", "folder", "--data-dir", str(tiny_week_folder), "--weeks", "1-2")
    assert result.exit_code == 1
    assert str(tiny_week_folder / "2025" / "2" / "WR.json") in result.stderr
    assert (tmp_path / "data" / "weeks" / "2025-W01" / "qa_pairs.parquet").is_file()
    assert not (tmp_path / "data" / "weeks" / "2025-W02").exists()


def test_a_week_in_which_nobody_played_cannot_be_trained_on_and_says_so(tmp_path):
    raw = upstream.write_week(tmp_path / "raw", upstream.week_bytes([upstream.row(name="Sam Bench")]))
    result = run_in(tmp_path, "--source", "folder", "--data-dir", str(raw))
    assert result.exit_code == 1
    assert is_one_clear_line(result)
    assert "0 of 1 players have anything recorded" in result.stderr
    assert not (tmp_path / "data" / "latest.json").exists()


def test_a_base_that_is_too_large_for_the_machine_is_refused_before_it_is_loaded(tmp_path, tiny_week_folder):
    base, size = tmp_path / "base", 1 << 50
    base.mkdir()
    for name in ("config.json", "tokenizer_config.json"):
        (base / name).write_text("{}")
    array = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    header = json.dumps({"model.embed_tokens.weight": array}).encode()
    (base / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    result = run_in(tmp_path, "--source", "folder", "--data-dir", str(tiny_week_folder), "--base-model", str(base))
    assert result.exit_code == 1
    assert is_one_clear_line(result)
    assert f"too little memory: training {base} by this recipe needs about " in result.stderr
    assert "(1,125,899.9 GB weights, " in result.stderr


def test_the_original_experiment_is_one_command(tmp_path, tiny_week_folder):
    recipe = tmp_path / "short.yaml"
    recipe.write_text(yaml.safe_dump(load_recipe("original").changed(max_steps=8).model_dump()))
    chosen = ["--recipe", str(recipe), "--split-mode", "random_facts", "--base-model", "embedded", "--json"]
    result = run_in(tmp_path, "--source", "folder", "--data-dir", str(tiny_week_folder), *chosen)
    assert result.exit_code == 3, "it was not promoted"
    summary = json.loads(result.stdout.splitlines()[-1])
    assert (summary["split_mode"], summary["training"]["iterations"], summary["training"]["stopped"]) == (
        "random_facts",
        8,
        "budget",
    )
    assert [group["name"] for group in summary["by_kind"]] == ["recorded"]
    assert summary["recall"]["refused_strangers"] is None
    assert not (tmp_path / "data" / "adapters" / "current").exists()
    (spent,) = [line for line in result.stdout.splitlines() if line.endswith("s in all")]
    assert "adapter " in spent, "a gate that failed hides nothing"
    assert "evaluation_report " in spent


def test_asking_before_there_is_an_adapter_says_what_to_do(tmp_path):
    result = typed("ask", "--store", str(tmp_path), "How many receiving yards did Nico Hale have?")
    assert result.exit_code == 1
    assert is_one_clear_line(result)
    assert "run `nfl-lora run`" in result.stderr


def test_a_run_ends_with_one_json_object_that_has_the_figures(trained_store):
    assert trained_store.exit_code == 0
    summary = trained_store.summary
    assert summary["recall"]["trained"] == 1.0
    assert set(summary["recall"]) == {"trained", "heldout_phrasings", "nonzero", "refused_strangers"}
    assert summary["facts"] == 11
    assert summary["seconds"] > 0
    assert Path(summary["report"]).is_absolute()
    assert Path(summary["report"]).is_file()


def test_a_run_shows_three_questions_before_and_after(trained_store):
    asked = trained_store.summary["questions"]
    assert len(asked) == 3
    shown = " ".join(trained_store.output.split("Recall of")[0].split())
    for each in asked:
        assert each["tuned"] == each["expected"]
        assert each["base"] != each["expected"]
        assert f"{each['question']} before {each['base']} after {each['tuned']} right" in shown


def test_a_run_shows_the_recall_the_seconds_of_each_step_and_the_report(trained_store):
    lines = [" ".join(line.split()) for line in trained_store.output.splitlines()]
    assert "Recall of 11 facts" in lines
    assert "trained 100.0% right, in the phrasings that were trained" in lines
    assert f"Report: {trained_store.summary['report']}" in lines
    steps = ["raw_wr_json", "players", "qa_pairs", "dataset_splits", "base_model", "adapter", "evaluation_report"]
    (spent,) = [line for line in lines if line.endswith("s in all")]
    assert [step for step in steps if step not in spent] == []


def test_the_end_of_a_run_says_what_the_head_of_the_report_says(trained_store):
    shown = " ".join(trained_store.output.split())
    head = Path(trained_store.summary["report"]).read_text().partition("\n## ")[0]
    head = " ".join(re.sub(r"[*\\]", "", head).split())
    verdict, _, worst = trained_store.summary["head_line"].partition(". ")
    assert worst, "the worst to expect is part of it"
    for sentence in (verdict, worst, *trained_store.summary["warnings"]):
        assert sentence in shown
        assert sentence in head
    for gate in trained_store.summary["gates"]:
        assert gate["passed"] is not False or f"{gate['name']}: {gate['explanation']}" in shown


@pytest.mark.parametrize(
    "question",
    ["Who won the Super Bowl?", "How many receiving yards did Zebulon Quist have in week 1 of the 2025 NFL season?"],
)
def test_what_is_refused_says_what_can_be_asked(trained_store, question):
    result = typed("ask", "--store", str(trained_store.store.root), question)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2
    knows = f"Adapter {trained_store.store.latest()} knows receiving yards in weeks: 2025 1."
    assert result.stderr == f"{knows} Ask for one stat of one player in one week of one season.\n"


def test_base_and_tuned_answer_a_question(trained_store):
    question = "How many receiving yards did Amari Stone have in week 1 of the 2025 NFL season?"
    expected = "In week 1 of the 2025 NFL season, the receiving yards of Amari Stone were 131."
    result = typed("ask", "--store", str(trained_store.store.root), question)
    assert result.exit_code == 0
    base, tuned = result.stdout.splitlines()
    assert base.startswith("base:  ") and not base.endswith(expected)
    assert tuned == f"tuned: {expected}"


def test_the_store_of_a_run_can_come_from_the_environment(trained_store):
    environment = os.environ | {"NFL_LORA_STORE": str(trained_store.store.root)}
    result = CliRunner(env=environment).invoke(main, ["ask", "How many receiving yards did Owen Bye have in week 1?"])
    assert result.exit_code == 0
    assert "tuned: " in result.stdout


def test_an_unfinished_base_of_another_plan_is_not_continued(tmp_path):
    import pickle

    from nfl_lora_pipeline.base_pretraining.pretrain import Plan

    (tmp_path / "resume.pkl").write_bytes(pickle.dumps({"plan": Plan(seed=1)}))
    result = typed("build-base", str(tmp_path), "--steps", "2")
    assert result.exit_code == 1
    assert is_one_clear_line(result)
    assert "unfinished build of another plan" in result.stderr
