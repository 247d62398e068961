"""Tiny weeks in upstream's format, for tests."""

import json
import os
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import nfl_lora_pipeline
from nfl_lora_pipeline.weeks.players import UPSTREAM_KEYS

_ids = count(1)


def row(*, name: str, team: str = "KC", opponent: str = "@BUF", **fields: Any) -> dict[str, Any]:
    """One object of a week's file: blank but for `fields`, which go by upstream's names (`ReceivingYDS="12"`).

    `PlayerId` is a fresh one and `TotalPoints` "0.00" unless given; `**{"2PT": "1"}` for the name that is none.
    """
    if unknown := set(fields) - set(UPSTREAM_KEYS):
        raise ValueError(f"upstream has no field {min(unknown)}")
    number = next(_ids)
    blank = dict.fromkeys(UPSTREAM_KEYS, "")
    given = {"PlayerName": name, "PlayerId": str(8_000_000 + number), "Pos": "WR"}
    given |= {"Team": team, "PlayerOpponent": opponent, "TotalPoints": "0.00", "Rank": number}
    return blank | given | fields


def week_bytes(rows: list[dict[str, Any]]) -> bytes:
    """The file with these rows, on one line as upstream writes it."""
    return json.dumps(rows, separators=(",", ":")).encode()


def tiny_week() -> list[dict[str, Any]]:
    """Eight players with numbers, one on a bye, one without a team and one with nothing recorded."""
    yards = {"Nico Hale": 84, "Rome Carter": 12, "Tyrell Banks": 0, "Amari Stone": 131, "Jalen Price": 47}
    yards |= {"Devin Marsh": 25, "Chris Okand": -3, "De'Quor Vance": 66}
    played = [
        row(
            name=name,
            PlayerId=str(7_000_000 + number),
            Rank=number,
            ReceivingRec="2",
            Targets="3",
            ReceptionPercentage="67",
            ReceivingYDS=str(gained or ""),
            TotalPoints=f"{gained / 10 + 2:.2f}",
        )
        for number, (name, gained) in enumerate(yards.items(), 1)
    ]
    return [
        *played,
        row(name="Owen Bye", PlayerId="7000101", Rank=101, opponent="Bye"),
        row(name="Frank Loose", PlayerId="7000102", Rank=102, team="FA", opponent="Bye"),
        row(name="Sam Bench", PlayerId="7000103", Rank=103),
    ]


def large_week(number: int, *, rows: int = 300, recorded: int = 110) -> list[dict[str, Any]]:
    """A week large enough to be compared with others: the same people in every week, with other numbers."""
    people = []
    for person in range(rows):
        yards = (37 * person + 53 * number) % 97 + 1
        numbers = {"ReceivingRec": "2", "Targets": "3", "ReceivingYDS": str(yards), "TotalPoints": f"{yards / 10:.2f}"}
        fields: dict[str, Any] = {"PlayerId": str(6_000_000 + person), "Rank": person + 1}
        people.append(row(name=f"Person {person}", **fields, **(numbers if person < recorded else {})))
    return people


def copy_of_package(folder: Path) -> Path:
    """The package in a folder of its own, to change a file of it; run it with that folder as PYTHONPATH."""
    package = Path(nfl_lora_pipeline.__file__).parent
    return shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))


def python_with(package: Path, code: str) -> str:
    """What a program prints that imports the package from a copy."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=package.parent,
        env=os.environ | {"PYTHONPATH": str(package.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_week(folder: Path, content: bytes, number: int = 1, *, position: str = "WR") -> Path:
    """Put a file where a week of 2025 is looked for, and return `folder`."""
    file = folder / "2025" / str(number) / f"{position}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return folder
