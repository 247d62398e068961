"""Every stat, one row each: its column, upstream's key for it, its words and its plausible range.

A new stat is a new row here and nothing else: the frame, the checks, the questions, the command's options and the code
versions of the assets are made from this table. Upstream's keys are in `weeks.players.UPSTREAM_KEYS`.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Stat:
    """One row of the table.

    Attributes:
        column: our name, `receiving_yards`; the column of the players frame and what `--stats` takes.
        upstream: upstream's key; empty where the frame has no such column.
        singular: "receiving yard"; empty, as `plural`, where nobody is asked about it.
        plural: "receiving yards".
        plausible: the lowest and the highest number that raise no warning; None for no limit.
        refused: the split in which questions about it are refused, for a stat that people ask about and nobody is taught:
            "train" while training, "test" in the report alone. Empty for a stat that can be taught.
        whole: whether upstream gives whole numbers only.
    """

    column: str
    upstream: str = ""
    singular: str = ""
    plural: str = ""
    plausible: tuple[float, float] | None = None
    refused: Literal["", "train", "test"] = ""
    whole: bool = True

    def __post_init__(self) -> None:
        if not self.column.isidentifier():
            raise ValueError(f"stat {self.column!r}: a column is a name such as receiving_yards")
        if bool(self.singular) != bool(self.plural):
            raise ValueError(f"stat {self.column}: give it both a singular and a plural, or neither")
        if self.refused not in ("", "train", "test"):
            raise ValueError(f"stat {self.column}: refused {self.refused!r}: use 'train' or 'test', or leave it out")
        if self.refused and not self.singular:
            raise ValueError(f"stat {self.column}: it cannot be refused without words: give it a singular and a plural")
        if not (self.upstream or self.refused):
            raise ValueError(f"stat {self.column}: name upstream's key for it")
        if self.plausible and self.plausible[0] > self.plausible[1]:
            raise ValueError(f"stat {self.column}: plausible {self.plausible}: give the lowest number first")

    @property
    def taught(self) -> bool:
        """Whether it can be taught: upstream has it, there are words for it, and it is not one of those to refuse."""
        return bool(self.upstream and self.singular and not self.refused)

    @property
    def nouns(self) -> tuple[str, ...]:
        """What people call it, in the singular and the plural; none where nobody is asked about it."""
        return (self.singular, self.plural) if self.singular else ()


STATS = (
    Stat("receiving_yards", "ReceivingYDS", "receiving yard", "receiving yards", (-50, 400)),
    Stat("receptions", "ReceivingRec", "reception", "receptions", (0, 30)),
    Stat("targets", "Targets", "target", "targets", (0, 40)),
    Stat("receiving_touchdowns", "ReceivingTD", "receiving touchdown", "receiving touchdowns", (0, 8)),
    Stat("fantasy_points", "TotalPoints", "fantasy point", "fantasy points", (-20, 80), whole=False),
    # Columns that nobody is asked about.
    Stat("reception_pct", "ReceptionPercentage", "", "", (0, 100)),
    # What people ask about and nobody is taught. Whoever holds a number of some stat is refused in all others: in those of
    # the above that are not in use, and in these.
    Stat("rushing_yards", "RushingYDS", "rushing yard", "rushing yards", (-60, 350), refused="train"),
    Stat("carries", "TouchCarries", "carry", "carries", refused="train"),
    Stat("passing_touchdowns", "", "passing touchdown", "passing touchdowns", refused="train"),
    Stat("fumbles", "Fum", "fumble", "fumbles", refused="train"),
    Stat("red_zone_targets", "", "red zone target", "red zone targets", refused="train"),
    Stat("touches", "", "touch", "touches", refused="train"),
    Stat("rushing_touchdowns", "RushingTD", "rushing touchdown", "rushing touchdowns", refused="test"),
    Stat("passing_yards", "", "passing yard", "passing yards", refused="test"),
    Stat("two_point_conversions", "2PT", "two-point conversion", "two-point conversions", refused="test"),
    Stat("return_touchdowns", "RetTD", "return touchdown", "return touchdowns", refused="test"),
)

TAUGHT = tuple(stat.column for stat in STATS if stat.taught)
COLUMNS = tuple(stat.column for stat in STATS if stat.upstream)
"""The columns of the players frame that hold a number."""


def stats_hash() -> str:
    """A hash of the whole table, for whatever has to be made anew when a row of it changes."""
    return hashlib.sha256(repr(STATS).encode()).hexdigest()[:8]
