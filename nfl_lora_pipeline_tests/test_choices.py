"""What a folder's file, the environment and the command line choose, and what a shell completes; whole commands."""

import os
import pty
import re
import select
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.recipes.recipe import recipe_for
from nfl_lora_pipeline.settings import Settings
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline_tests.fakes import put_adapter

CHOSEN = """
season = 2024
weeks = 2
source = "folder"
data-dir = "elsewhere"
store = "kept"
recipe = "embedded"
"""
SHORTLY = 60.0  # seconds, on a busy machine


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    return tmp_path


def typed(*words, **environment):
    return CliRunner(env=environment).invoke(main, list(words))


def completed(*words, **environment):
    """What bash is given where these words are typed, without the kinds."""
    asked = {"_NFL_LORA_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    result = CliRunner(env=asked | environment).invoke(main, prog_name="nfl-lora")
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


@pytest.mark.parametrize("name", ["nfl-lora.toml", "pyproject.toml"])
def test_the_command_line_goes_before_the_environment_and_that_before_the_file(folder, name):
    (folder / name).write_text(CHOSEN if name == "nfl-lora.toml" else f"[tool.nfl-lora]{CHOSEN}")
    for options, environment, season in [
        ([], {}, 2024),
        ([], {"NFL_LORA_SEASON": "2023"}, 2023),
        (["--season", "2022"], {"NFL_LORA_SEASON": "2023"}, 2022),
    ]:
        result = typed("plan", *options, **environment)
        assert result.exit_code == 1
        assert f"{folder / 'elsewhere' / str(season) / '2' / 'WR.json'}: no such file" in result.stderr
    assert typed("history").stdout.startswith("kept holds no adapter yet")
    assert typed("history", NFL_LORA_STORE="other").stdout.startswith("other holds no adapter yet")


def test_the_file_holds_for_commands_of_a_group_as_well(folder):
    (folder / "nfl-lora.toml").write_text(CHOSEN)
    assert typed("tenants", "list").exit_code == 0
    assert (folder / "kept" / "leases.db").is_file()
    assert not (folder / "data").exists()
    assert "default: kept]" in " ".join(typed("experiment", "list", "--help").stdout.split())


def test_the_environment_names_weeks_as_the_option_does(folder):
    result = typed(
        "plan", "--source", "folder", "--data-dir", "elsewhere", NFL_LORA_WEEKS="3-4", NFL_LORA_SEASON="2024"
    )
    assert f"{folder / 'elsewhere' / '2024' / '3' / 'WR.json'}: no such file" in result.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NFL_LORA_WEEKS", "1-2,4")
        with pytest.raises(ValueError, match=r"NFL_LORA_WEEKS='1-2,4': .*of which season\?"):
            Settings.read()
        patch.setenv("NFL_LORA_SEASON", "2025")
        assert Settings.read().weeks == ("2025-W01", "2025-W02", "2025-W04")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("seson = 2025", "seson: no such key; did you mean season?"),
        ("data_dir = 'raw'", "data_dir: no such key; did you mean data-dir?"),
        ("x = 1", "x: no such key; use season, weeks, position, stats, source, data-dir, store, recipe, base-model"),
        ("season = 1999", "season: 1999 is not in the range 2000<=x<=2099."),
        ("season = true", "season: expected a text, a number or a list of these (given: True)"),
        ("weeks = 19", "weeks: weeks '19': '19' is not within 1 to 18"),
        ("source = 'web'", "source: 'web' is not one of 'auto', 'folder', 'github', 'sample'."),
        ("stats = ['yards']", "stats: stat 'yards': use receiving_yards, "),
        ("recipe = 'best'", "recipe: recipe 'best': no such recipe; use embedded, "),
        ("store = data", "not valid TOML: Invalid value (at line 1, column 9); texts stand in quotes"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_with_file_key_and_mend(folder, content, line):
    (folder / "nfl-lora.toml").write_text(content)
    result = typed("history")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: nfl-lora.toml: {line}")
    assert len(result.stderr.splitlines()) == 1


def test_a_table_in_pyproject_toml_is_named_and_somebody_elses_file_is_let_be(folder):
    (folder / "pyproject.toml").write_text("[tool.nfl-lora]\nseson = 2025\n")
    assert "Error: pyproject.toml: [tool.nfl-lora]: seson: no such key" in typed("history").stderr
    (folder / "pyproject.toml").write_text("not TOML")
    assert typed("history").exit_code == 0


@pytest.mark.parametrize(
    ("device", "is_there", "recipe", "other"),
    [
        ("", True, "embedded", "MLX computes on the CPU here, .*; --recipe smollm2-135m has one"),
        ("Metal", True, "smollm2-135m", "there is Metal; --recipe embedded is smaller"),
        ("CUDA", True, "smollm2-135m", "there is CUDA; --recipe embedded is smaller"),
        ("CUDA", False, "embedded", "neither on this machine nor to be downloaded; `make smollm2` has it"),
    ],
)
def test_the_recipe_auto_says_which_why_and_how_to_have_the_other(device, is_there, recipe, other):
    name, why = recipe_for(device, lambda base: is_there)
    assert name == recipe
    assert why.startswith(f"{recipe}, since ")
    assert re.search(other, why)


def test_recipes_weeks_and_fingerprints_are_completed(folder):
    put_adapter(Store(folder / "data"), "a1" * 8)
    put_adapter(Store(folder / "data"), "b2" * 8)
    for number in ("02", "12"):
        (folder / "data" / "weeks" / f"2025-W{number}").mkdir(parents=True)
    assert completed("nfl-lora", "run", "--recipe", "smo") == ["smollm2-135m"]
    assert completed("nfl-lora", "recipe", "show", "phi") == ["phi-3.5-mini", "phi-3.5-mini-4bit"]
    assert completed("nfl-lora", "run", "--weeks", "") == ["2", "12"]
    assert completed("nfl-lora", "run", "--weeks", "2,1") == ["2,12"]
    assert completed("nfl-lora", "run", "--season", "2024", "--weeks", "17") == ["17"]
    assert completed("nfl-lora", "rollback", "") == ["a1" * 8, "b2" * 8]
    assert completed("nfl-lora", "export", "--adapter", "b") == ["b2" * 8]
    assert completed("nfl-lora", "export", "--store", "other", "--adapter", "") == []
    assert completed("nfl-lora", "run", "--source", "g") == ["github"]
    (folder / "nfl-lora.toml").write_text("seson = 1")
    assert completed("nfl-lora", "run", "--recipe", "smo") == ["smollm2-135m"], "where a file has a mistake too"


@pytest.mark.parametrize(("shell", "begins"), [("zsh", "#compdef nfl-lora"), ("fish", "function _nfl_lora_completion")])
def test_other_shells_have_their_scripts(shell, begins):
    assert typed("completion", shell).stdout.startswith(begins)


def test_bash_completes_a_recipe_at_the_tabulator_key():
    pid, terminal = pty.fork()
    if pid == 0:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], os.environ | {"PATH": path, "TERM": "dumb"})
    os.write(terminal, b'eval "$(nfl-lora completion bash)" && echo is""ready\n')
    shown = ""

    def read_until(wanted: str) -> None:
        nonlocal shown
        while wanted not in shown:
            assert select.select([terminal], [], [], SHORTLY)[0], shown
            shown += os.read(terminal, 65_536).decode(errors="replace")

    read_until("isready")
    os.write(terminal, b"nfl-lora run --recipe smo\t")
    read_until("nfl-lora run --recipe smollm2-135m")
    os.write(terminal, b"\x15exit\n")
    os.close(terminal)
    os.waitpid(pid, 0)
