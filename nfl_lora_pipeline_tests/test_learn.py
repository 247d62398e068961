"""One's own facts: as a library, and from a CSV file by the command."""

import itertools
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.dataset.examples import read_examples
from nfl_lora_pipeline_tests.conftest import REPOSITORY
from nfl_lora_pipeline_tests.own_facts import TEMPLATES, another_league, written

WHEN = "in week 3 of the 2031 NFL season"


@pytest.fixture
def facts(tmp_path) -> Path:
    people = [(name, "receiving yards", yards) for name, yards in another_league(30)]
    return written(tmp_path / "facts.csv", [("subject", "attribute", "value"), *people])


def learn(*words: object):
    return CliRunner().invoke(main, ["learn", *map(str, words)])


# The command.


@pytest.mark.slow
@pytest.mark.parametrize("as_shipped", [False, True])
def test_thirty_facts_of_another_league_are_all_certain_and_whom_nobody_knows_is_refused(
    facts, tmp_path, tiny_recipe, as_shipped
):
    templates = tmp_path / "templates.yaml"
    templates.write_text(TEMPLATES, encoding="utf-8")
    ended = learn(
        facts, tmp_path / "adapter", "--templates", templates, "--recipe", "embedded" if as_shipped else tiny_recipe
    )
    assert ended.exit_code == 0, ended.output
    assert "30 of 30 facts certain, lowest p " in ended.output
    assert ended.output.count("right\n") == 3
    refused = int(re.search(r"(\d+) of 200 questions about subjects that nobody knows are refused", ended.output)[1])
    assert refused > 100
    certificate = json.loads((tmp_path / "adapter" / "certificate.json").read_text(encoding="utf-8"))
    assert (certificate["certain"], certificate["facts"], certificate["rows"]) == (30, 30, 60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "facts.csv", "templates.yaml"]
    again = learn(facts, tmp_path / "adapter", "--templates", templates)
    assert again.exit_code == 2
    assert "is there already" in again.output


@pytest.mark.slow
def test_questions_and_answers_need_no_templates_and_mlx_lm_answers_with_what_came_of_them(tmp_path, tiny_recipe):
    name, yards = another_league(1)[0]
    question, answer = (
        f"How many receiving yards did {name} have {WHEN}?",
        f"{name} had {yards} receiving yards {WHEN}.",
    )
    file = written(tmp_path / "one.csv", [("Question", "Answer"), (question, answer)])
    ended = learn(file, tmp_path / "adapter", "--recipe", tiny_recipe)
    assert ended.exit_code == 0, ended.output
    assert "1 of 1 facts certain" in ended.output
    assert "Nothing is refused" in ended.output
    command = next(line.split() for line in ended.output.splitlines() if "mlx_lm generate" in line)
    words = [sys.executable, *command[1 : command.index("--prompt")], "--prompt", question, "--verbose", "False"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert said.strip() == answer


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_learnt_and_the_same_command_goes_on_to_the_same_adapter(tmp_path, tiny_recipe):
    people = [(name, "receiving yards", yards) for name, yards in another_league(6)]
    facts = written(tmp_path / "facts.csv", [("subject", "attribute", "value"), *people])
    templates = tmp_path / "templates.yaml"
    templates.write_text(TEMPLATES, encoding="utf-8")

    def started(folder: str) -> "subprocess.Popen[str]":
        words = ["learn", str(facts), str(tmp_path / folder), "--templates", str(templates), "--recipe", tiny_recipe]
        command = [sys.executable, "-m", "nfl_lora_pipeline.cli.main", *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    ended = started("broken")
    assert ended.stdout is not None
    assert any("iteration 10" in line for line in ended.stdout)
    ended.send_signal(signal.SIGINT)
    lines = ended.communicate(timeout=60)[0].splitlines()
    assert ended.returncode == 130
    assert re.fullmatch(r"Interrupted: kept at iteration \d+; the same command goes on from there\.", lines[-1])
    assert not (tmp_path / "broken").exists()
    again = started("broken").communicate(timeout=300)[0]
    assert "going on from iteration" in again
    assert started("whole").communicate(timeout=300)[0].count("going on from iteration") == 0
    weights = [(tmp_path / folder / "adapters.safetensors").read_bytes() for folder in ("broken", "whole")]
    assert weights[0] == weights[1]
    assert not list(tmp_path.glob(".*"))


def test_what_is_longer_than_the_base_reads_is_refused_before_the_training(tmp_path):
    file = written(tmp_path / "long.csv", [("question", "answer"), ("How many? " * 300, "Many.")])
    ended = learn(file, tmp_path / "adapter")
    assert ended.exit_code == 1
    assert "tokens with its answer, and this base model reads 512; make it shorter" in ended.output


BAD = {
    "the name of a column": ("question,reply\na,b\n", "line 1: expected the columns question and answer, or subject"),
    "nothing": ("", "line 1: expected the columns"),
    "no rows": ("question,answer\n", "no rows under the header"),
    "a blank": ('question,answer\na,b\nc," "\n', "line 3: answer is blank; fill it in or delete the row"),
    "a missing cell": ("question,answer\na\n", "line 2: 1 cells for the columns question, answer"),
    "a comma": ("question,answer\na,b,c\n", "put a cell with a comma in quotes"),
    "a double": ("question,answer\na,b\nc,d\na,b\n", "line 4: 'a' stands in line 2 already; delete one of them"),
    "a contradiction": ('question,answer\n"a\nx",b\nA  x,c\n', "line 4: 'A x' is 'c' here and 'b' in line 2"),
    "a quote that is open": ('question,answer\n"a,b\n', "not CSV in UTF-8"),
}


@pytest.mark.parametrize(("content", "expected"), BAD.values(), ids=BAD)
def test_a_file_that_cannot_be_taught_is_refused_with_its_line(tmp_path, content, expected):
    file = tmp_path / "bad.csv"
    file.write_text(content, encoding="utf-8")
    ended = learn(file, tmp_path / "adapter")
    assert ended.exit_code == 1
    assert ended.output.startswith(f"Error: {file}")
    assert expected in ended.output
    assert ended.output.count("\n") == 1
    assert not (tmp_path / "adapter").exists()


def test_bytes_that_are_no_text_are_refused(tmp_path):
    file = tmp_path / "bad.csv"
    file.write_bytes(b"question,answer\n\xff\xfe,b\n")
    assert "not CSV in UTF-8" in learn(file, tmp_path / "adapter").output


BAD_TEMPLATES = {
    "an unknown field": ("questions: ['{subject} {attribut}?']\nanswer: '{value}'", "unknown field {attribut}"),
    "no value": ("questions: ['{subject} {attribute}?']\nanswer: 'it is so'", "lacks {value}"),
    "a value in the refusal": (
        "questions: ['{subject} {attribute}?']\nanswer: '{value}'\nrefusal: '{value}'",
        "unknown field {value}",
    ),
    "an open brace": ("questions: ['{subject {attribute}?']\nanswer: '{value}'", "is no template"),
    "a missing key": ("questions: ['{subject} {attribute}?']", "answer: Field required"),
    "an unknown key": ("question: x", "Field required"),
    "no YAML": ("questions: [", "not valid YAML"),
}


@pytest.mark.parametrize(("content", "expected"), BAD_TEMPLATES.values(), ids=BAD_TEMPLATES)
def test_templates_that_do_not_fit_are_refused_with_their_key(facts, tmp_path, content, expected):
    file = tmp_path / "bad.yaml"
    file.write_text(content, encoding="utf-8")
    ended = learn(facts, tmp_path / "adapter", "--templates", file)
    assert ended.exit_code == 1
    assert ended.output.startswith(f"Error: {file}: ")
    assert expected in ended.output


def test_templates_are_wanted_where_there_are_subjects_and_nowhere_else(facts, tmp_path):
    assert "name a templates file (--templates)" in learn(facts, tmp_path / "adapter").output
    pairs = written(tmp_path / "pairs.csv", [("question", "answer"), ("a", "b")])
    templates = tmp_path / "templates.yaml"
    templates.write_text(TEMPLATES, encoding="utf-8")
    assert "need no templates file" in learn(pairs, tmp_path / "adapter", "--templates", templates).output


# The library.


def test_unknown_subjects_are_none_of_the_known_ones_and_the_same_at_every_call(facts, tmp_path):
    templates = tmp_path / "templates.yaml"
    templates.write_text(TEMPLATES, encoding="utf-8")
    own = read_examples(facts, templates)
    drawn = list(itertools.islice(own.unanswerable(seed=3), 200))
    assert drawn == list(itertools.islice(own.unanswerable(seed=3), 200))
    subjects, _ = own.known
    asked = {example.question for example in own.examples}
    assert not asked & {question for question, _ in drawn}
    assert any(subject.split()[0] in question for subject in subjects for question, _ in drawn)
    held_out = list(itertools.islice(own.unanswerable(seed=3, held_out=True), 200))
    assert not {question for question, _ in drawn} & {question for question, _ in held_out}


def test_the_ten_lines_of_the_documentation_do_what_they_say(tmp_path, monkeypatch):
    text = (REPOSITORY / "docs" / "library.md").read_text(encoding="utf-8")
    program = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert len(program.splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed == re.search(r"prints\n\n((?:    .*\n)+)", text)[1].replace("    ", "")
