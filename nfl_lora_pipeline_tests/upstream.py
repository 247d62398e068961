"""Tiny weeks in upstream's format, for tests."""

import json
from itertools import count
from typing import Any

from nfl_lora_pipeline.upstream_format import UPSTREAM_KEYS

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
