"""Makes the bundled sample: three weeks of invented receivers in upstream's format, for a first run without a network.

`python -m nfl_lora_pipeline.base_pretraining.sample_weeks` writes the files anew; the same seed gives the same bytes. Three
lines of week 1 are real: the players whom the first questions of the pipeline were about.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from nfl_lora_pipeline.base_pretraining.league import invented_record
from nfl_lora_pipeline.dataset.people import invented_name
from nfl_lora_pipeline.weeks.players import TEAMS, UPSTREAM_KEYS
from nfl_lora_pipeline.weeks.sources.folder import SAMPLE_FOLDER, week_file
from nfl_lora_pipeline.weeks.week import NflWeek

SEASON = 2025
FIRST_ID = 9_000_001
PEOPLE, FREE_AGENTS = 157, 45
REGULARS, SUBSTITUTES = 44, 28
PLAYED_SHARE = {"regular": 0.88, "substitute": 0.45, "reserve": 0.04, "free agent": 0.0}
BYES = {3: ("GB", "SEA")}
REAL_GAMES = (("CHI", "MIN"), ("LAC", "KC"), ("LAR", "HOU"))
"""Home and away in week 1, where the three real players were."""

Row = dict[str, str | int]


@dataclass(frozen=True)
class _Person:
    name: str
    player_id: str
    team: str
    role: str


def sample_rows(seed: int = 2025) -> dict[int, list[Row]]:
    """The sample's rows in upstream's fields and order, by week (1 to 3), best fantasy points first."""
    rng = random.Random(seed)
    people = _people(rng)
    weeks: dict[int, list[Row]] = {}
    for week in (1, 2, 3):
        opponents = _opponents(rng, week)
        rows = [_invented_row(rng, person, opponents.get(person.team, "Bye")) for person in people]
        rows = sorted(rows + (_real_rows() if week == 1 else []), key=lambda row: -float(row["TotalPoints"]))
        weeks[week] = [row | {"Rank": rank} for rank, row in enumerate(rows, 1)]
    return weeks


def write_sample(folder: Path, seed: int = 2025) -> list[Path]:
    """Write `{folder}/2025/{1,2,3}/WR.json`, on one line each as upstream does; give the paths."""
    written = []
    for week, rows in sample_rows(seed).items():
        file = week_file(folder, NflWeek(SEASON, week))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rows, separators=(",", ":")), encoding="utf-8")
        written.append(file)
    return written


def _people(rng: random.Random) -> list[_Person]:
    names: dict[str, None] = {}
    while len(names) < PEOPLE:
        names[invented_name(rng)] = None
    roles = ["free agent"] * FREE_AGENTS + ["regular"] * REGULARS + ["substitute"] * SUBSTITUTES
    roles += ["reserve"] * (PEOPLE - len(roles))
    return [
        _Person(name, str(FIRST_ID + n), "FA" if role == "free agent" else TEAMS[n % len(TEAMS)], role)
        for n, (name, role) in enumerate(zip(names, roles, strict=True))
    ]


def _opponents(rng: random.Random, week: int) -> dict[str, str]:
    games = list(REAL_GAMES) if week == 1 else []
    taken = {team for game in games for team in game} | set(BYES.get(week, ()))
    others = [team for team in TEAMS if team not in taken]
    rng.shuffle(others)
    games += list(zip(others[::2], others[1::2], strict=True))
    return dict(games) | {away: f"@{home}" for home, away in games}


def _invented_row(rng: random.Random, person: _Person, opponent: str) -> Row:
    stats: dict[str, int] = {}
    extra_points = 0.0
    if opponent != "Bye" and rng.random() < PLAYED_SHARE[person.role]:
        trace = rng.random()
        if trace < 0.94:
            stats = _receiving(rng)
        if trace > 0.90:
            stats |= {"TouchCarries": rng.randint(1, 2), "RushingYDS": rng.randint(-2, 14)}
        if trace > 0.98:
            extra_points = round(rng.uniform(0.2, 4.0), 1)
    return _row(person.name, person.player_id, person.team, opponent, stats, extra_points=extra_points)


def _receiving(rng: random.Random) -> dict[str, int]:
    record = invented_record(rng)
    stats = {
        "Targets": int(record["targets"]),
        "ReceivingRec": int(record["receptions"]),
        "ReceivingYDS": int(record["receiving_yards"]),
        "ReceivingTD": int(record["receiving_touchdowns"]),
    }
    return stats | ({"Fum": 1} if rng.random() < 0.04 else {})


def _real_rows() -> list[Row]:
    """Real lines of 2025 week 1. Source: https://github.com/hvpkod/NFL-Data (MIT licence)."""
    caught = ("Targets", "ReceivingRec", "ReceivingYDS", "ReceivingTD")
    return [
        _row("Rome Odunze", "2571907", "CHI", "MIN", dict(zip(caught, (9, 6, 37, 1), strict=True)), against="26.20"),
        _row("Ladd McConkey", "2572477", "LAC", "KC", dict(zip(caught, (9, 6, 74, 0), strict=True)), against="51.00"),
        _row("Nico Collins", "2566127", "HOU", "@LAR", dict(zip(caught, (5, 3, 25, 0), strict=True)), against="19.10"),
    ]


def _row(
    name: str,
    player_id: str,
    team: str,
    opponent: str,
    stats: dict[str, int],
    *,
    extra_points: float = 0.0,
    against: str = "",
) -> Row:
    """One object of the file; zeros are blank, and the points are upstream's (half a point a reception)."""
    catches, carries = stats.get("ReceivingRec", 0), stats.get("TouchCarries", 0)
    targets = stats.get("Targets", 0)
    points = (stats.get("ReceivingYDS", 0) + stats.get("RushingYDS", 0)) / 10 + catches / 2 + extra_points
    points += 6 * stats.get("ReceivingTD", 0) - 2 * stats.get("Fum", 0)
    numbers = stats | {
        "TouchReceptions": catches,
        "TargetsReceptions": catches,
        "Touches": catches + carries,
        "ReceptionPercentage": round(100 * catches / targets) if targets else 0,
    }
    texts = {"PlayerName": name, "PlayerId": player_id, "Pos": "WR", "Team": team, "PlayerOpponent": opponent}
    texts |= {"FanPtsAgainst-pts": against, "TotalPoints": f"{points:.2f}"}
    filled = {field: str(number) for field, number in numbers.items() if number} | texts
    return {field: filled.get(field, "") for field in UPSTREAM_KEYS}


if __name__ == "__main__":
    for path in write_sample(SAMPLE_FOLDER):
        print(path)
