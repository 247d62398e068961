"""Figures as Markdown, and their places in `docs/benchmarks.md`: a section a benchmark, renewed where it stands."""

import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import click

from nfl_lora_pipeline.files import replace_file
from nfl_lora_pipeline.markdown import marked, sections_of

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
WORTH_A_WORD = 0.05
HEADING = """# Benchmarks

Printed by `make bench` and `make bench-deploy`, each section by the command that it names. Other machines give other figures;
the sides of one table ran on one machine in one run.
"""


def median_and_range(values: Sequence[float], unit: str, digits: int = 1) -> str:
    """A median, and between what the values lie: `7.5 s (of 3; 7.1 to 8.0)`."""
    middle, least, most = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} {unit}" if len(values) == 1 else f"{middle} {unit} (of {len(values)}; {least} to {most})"


def machine() -> str:
    """The machine in words: cores, processor, memory and system, and no name of a host."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {_processor()}, {memory:.0f} GiB, {platform.system()} {platform.machine()}"


def versions(*packages: str) -> str:
    """Python and some packages with their versions."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)])


def replaced_section(document: str, name: str, content: str) -> str:
    """`document` with the section `name` renewed, or added at its end."""
    if (old := sections_of(document).get(name)) is not None:
        return document.replace(marked(name, old), marked(name, content), 1)
    return f"{document.rstrip()}\n\n{marked(name, content)}\n"


def publish(
    title: str,
    body: str,
    *,
    packages: Sequence[str] = ("mlx", "mlx-lm"),
    write: bool,
    part: str = "",
    document: Path = DOCUMENT,
    heading: str = HEADING,
) -> None:
    """Print a benchmark's result, and with `write` renew its section of the document, or that of a part of it."""
    program = Path(sys.argv[0]).stem
    name = f"{program}_{part}" if part else program
    command = f"python -m benchmarks.{program} {' '.join(_without_paths(sys.argv[1:]))}".strip()
    source = f"`{command}`, {date.today()}, {machine()}{_others()}; {versions(*packages)}."
    content = re.sub(r"\n{3,}", "\n\n", f"## {title}\n\n{body.strip()}\n\n{source}")
    click.echo(content)
    if write:
        text = document.read_text(encoding="utf-8") if document.is_file() else heading
        replace_file(document, replaced_section(text, name, content).encode())


def _others() -> str:
    """What other processes took of the cores meanwhile, where it is worth a word and can be known (on Linux)."""
    if not START.ticks:
        return ""
    now = _Load.now()
    others = (now.ticks - START.ticks) / os.sysconf("SC_CLK_TCK") - (now.own - START.own)
    share = others / ((now.clock - START.clock) * (os.cpu_count() or 1))
    return f", of which other processes took {share:.0%}" if share >= WORTH_A_WORD else ""


class _Load(NamedTuple):
    """Seconds of the clock and of this process with its children; ticks of the clock that all cores have worked."""

    clock: float
    own: float
    ticks: int

    @classmethod
    def now(cls) -> "_Load":
        file = Path("/proc/stat")
        cores = file.read_text().splitlines()[0].split()[1:] if file.is_file() else []
        user, nice, system, _, _, interrupts, soft = (int(field) for field in cores[:7]) if cores else [0] * 7
        return cls(time.monotonic(), sum(os.times()[:4]), user + nice + system + interrupts + soft)


START = _Load.now()


def _without_paths(arguments: list[str]) -> list[str]:
    """A folder of this machine means nothing to a reader."""
    return ["DIR" if "/" in argument else argument for argument in arguments]


def _processor() -> str:
    if sys.platform == "darwin":
        found = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        return found.stdout.strip() or platform.processor()
    information = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", information.read_text()) if information.is_file() else []
    return names[0] if names else platform.processor() or "an unknown processor"
