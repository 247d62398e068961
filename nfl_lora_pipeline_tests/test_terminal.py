"""What a terminal shows while a job runs, and what is left of it; the job is one whose steps find nothing new."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

STEPS = "raw_wr_json base_model dataset_splits adapter evaluation_report promoted_adapter".split()
LEFT = re.compile(rf"^({'|'.join(STEPS)}) +\d+:\d\d  \S")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def again(trained_store, tiny_week_folder, tiny_recipe):
    words = ["--source", "folder", "--data-dir", str(tiny_week_folder), "--recipe", tiny_recipe]
    return [sys.executable, "-m", "nfl_lora_pipeline.cli.main", "run", *words, "--store", str(trained_store.store.root)]


def lines_of(shown):
    """What was written, without colours; a line that is written over is two."""
    return ESCAPES.sub("", re.sub(r"\x1b\[(2K|1A)|\r", "\n", shown)).splitlines()


def on_screen(command, columns, **environment):
    """All that is written to a terminal of so many columns, and the exit code."""
    pid, terminal = pty.fork()
    if pid == 0:
        size = struct.pack("HHHH", 40, columns, 0, 0)
        fcntl.ioctl(0, termios.TIOCSWINSZ, size)
        plain = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        os.execve(command[0], command, plain | {"TERM": "xterm-256color"} | environment)
    shown = b""
    try:
        while chunk := os.read(terminal, 65_536):
            shown += chunk
    except OSError:  # which the end of the other side is
        pass
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return shown.decode(), os.waitstatus_to_exitcode(status)


COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")


@pytest.mark.parametrize(
    ("columns", "environment"), [(60, {"NO_COLOR": "1"}), pytest.param(120, {}, marks=pytest.mark.slow)]
)
def test_every_step_is_seen_while_it_runs_and_leaves_one_line_that_fits(again, columns, environment):
    shown, code = on_screen(again, columns, **environment)
    assert bool(COLOUR.search(shown)) is not bool(environment)
    assert code == 0, shown[-500:]
    left = [match[1] for line in lines_of(shown) if (match := LEFT.match(line))]
    assert left == STEPS, "each once, in the order of the job"
    while_it_ran, after = shown.split("\x1b[?25h")
    assert max(map(len, lines_of(while_it_ran))) <= columns
    assert any(re.search(r"^adapter +━+.* \d+% +\d+:\d\d$", line) for line in lines_of(while_it_ran))
    assert "Report: " in after


@pytest.mark.slow  # a pipe gets the same, below
def test_a_dumb_terminal_gets_plain_lines(again):
    shown, code = on_screen(again, 80, TERM="dumb")
    assert code == 0
    assert "\x1b" not in shown
    assert [step for step in STEPS if f"{step}: " in shown] == STEPS


def test_a_pipe_gets_plain_lines_of_any_length(again):
    done = subprocess.run(again, capture_output=True, text=True, timeout=120, check=True)
    assert "\x1b" not in done.stdout + done.stderr
    assert [step for step in STEPS if f"{step}: " in done.stderr] == STEPS
    assert re.search(r"refused strangers .*people who do not exist", done.stdout), "each figure says of what it is"


@pytest.mark.slow
def test_quiet_shows_the_verdict_and_the_report_and_verbose_every_line_with_its_time(again):
    shown, code = on_screen([*again, "--quiet"], 200)
    assert code == 0
    verdict, report = ESCAPES.sub("", shown).splitlines()
    assert verdict.startswith("It may be used")
    assert report.startswith("Report: ")
    done = subprocess.run([*again, "--verbose"], capture_output=True, text=True, timeout=240, check=True)
    first, *lines = done.stderr.splitlines()
    assert first.startswith("plan: receiving yards of 2025 week 1; recipe ")
    assert [line for line in lines if not re.match(r" ?\d+:\d\d \w+: ", line)] == []
    refused = subprocess.run([*again, "-q", "-v"], capture_output=True, text=True, timeout=240, check=False)
    assert refused.returncode == 2
