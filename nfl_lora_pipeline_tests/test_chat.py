"""`nfl-lora ask` and `nfl-lora chat` as somebody uses them: through a pipe, and at a terminal."""

import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from nfl_lora_pipeline.adapters.lineage import origin_of

COMMAND = [sys.executable, "-m", "nfl_lora_pipeline.cli.main", "chat", "--store"]
QUESTION = "How many receiving yards did Amari Stone have in week 1 of the 2025 NFL season?"
SHORTLY = 20.0  # seconds, on a busy machine
TOO_SOON = """
import os, readline, signal, sys
from nfl_lora_pipeline.cli.main import main
pressed = []
def press():
    if not pressed:
        pressed.append(True)
        os.kill(os.getpid(), signal.SIGINT)
readline.set_pre_input_hook(press)
main(["chat", "--store", sys.argv[1]])
"""
ANSWER = "In week 1 of the 2025 NFL season, the receiving yards of Amari Stone were 131."


def piped(store: Path, *lines: str, options: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    said = "".join(f"{line}\n" for line in lines)
    return subprocess.run(
        [*COMMAND, str(store), *options], input=said, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_pipe_gives_one_answer_a_line_and_nothing_else_on_standard_output(trained_store):
    done = piped(trained_store.store.root, QUESTION, "", "/why", "/help", "x" * 3000, QUESTION)
    assert done.returncode == 0, done.stderr
    first, why, *help_lines, refused, last = done.stdout.splitlines()
    assert first == last == ANSWER
    assert "taught from 2025-W01 (folder: " in why
    assert "certified with p 0." in why
    assert help_lines[0].startswith("Ask for one stat of one player")
    assert refused.startswith("the question has 3,000 characters")
    assert "knows receiving yards in weeks: 2025 1." in done.stderr


def test_what_was_not_taught_has_no_origin_and_nothing_was_asked_before_the_first_question(trained_store):
    done = piped(trained_store.store.root, "/why", QUESTION.replace("week 1", "week 2"), "/why", "/quit", QUESTION)
    before, _, why = done.stdout.splitlines()
    assert before == "Nothing was asked yet."
    assert why.endswith("; nothing that was taught")


def test_an_answer_is_traced_to_its_fact_by_the_full_name_in_any_case_and_by_a_last_name_that_is_one_persons(
    trained_store,
):
    store = trained_store.store
    fingerprint = store.latest()
    facts = store.read_taught_facts(fingerprint).filter(pl.col("player") == "Amari Stone")
    for said in (ANSWER, ANSWER.lower(), ANSWER.replace("Amari ", "")):
        origin = origin_of(store, fingerprint, said)
        assert origin is not None
        assert (origin.fact, origin.week, origin.source) == (facts["fact"][0], "2025-W01", "folder")
    assert origin_of(store, fingerprint, ANSWER.replace("131", "132")) is None
    assert origin_of(store, fingerprint, "") is None


def read_to_the_end(pid: int, terminal: int, patience: float) -> tuple[int, str]:
    """The exit code of a process and what its terminal shows; it is killed where it is silent for so many seconds."""
    shown = ""
    try:
        while select.select([terminal], [], [], patience)[0]:
            shown += os.read(terminal, 65_536).decode(errors="replace")
        os.kill(pid, signal.SIGKILL)
    except OSError:  # which the end of the other side is
        pass
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown


@pytest.mark.parametrize(("key", "code", "last"), [(b"\x04", 0, ""), (b"\x03", 130, "Interrupted.")])
def test_at_a_terminal_it_answers_and_ends_at_a_key(trained_store, key, code, last):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(COMMAND[0], [*COMMAND, str(trained_store.store.root)])
    shown = ""

    def read_until(wanted: str) -> None:
        nonlocal shown
        while wanted not in shown:
            shown += os.read(terminal, 65_536).decode(errors="replace")

    read_until("> ")
    os.write(terminal, QUESTION.encode() + b"\n")
    read_until(ANSWER)
    shown = shown.partition(ANSWER)[2]
    read_until("> ")
    os.write(terminal, key)
    ended, rest = read_to_the_end(pid, terminal, SHORTLY)
    shown += rest
    assert ended == code
    assert "Traceback" not in shown
    assert shown.strip().endswith(last)


def test_a_ctrl_c_that_comes_before_the_line_is_read_is_not_lost(trained_store):
    """It comes within a hook of the line editor, between the prompt and the first key, where an exception is dropped."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", TOO_SOON, str(trained_store.store.root)])
    ended, shown = read_to_the_end(pid, terminal, 2 * SHORTLY)
    assert ended == 130, shown
    assert shown.strip().endswith("Interrupted.")
    assert "Traceback" not in shown
