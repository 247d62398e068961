"""Every position and every stat, one row each: what they are called, upstream's key, the plausible range, whose stat it is.

A new stat is a new row here and nothing else: the frame, the checks, the questions, the command's options and the code
versions of the assets are made from this table. Upstream's keys are in `weeks.players.UPSTREAM_KEYS`.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

Position = Literal["WR", "RB", "TE", "QB"]
"""Whose file of a week upstream is read: `{position}.json`. A deployment, and a store, is of one."""


@dataclass(frozen=True)
class People:
    """Who plays a position.

    Attributes:
        plural: what they are called.
        stat: the column of the one stat that is taught of them where nobody says which.
    """

    plural: str
    stat: str


POSITIONS: dict[Position, People] = {
    "WR": People("wide receivers", "receiving_yards"),
    "RB": People("running backs", "rushing_yards"),
    "TE": People("tight ends", "receiving_yards"),
    "QB": People("quarterbacks", "passing_yards"),
}


def position_of(name: str) -> Position:
    """The position of a name, as a deployment writes it.

    Raises:
        ValueError: there is none of that name.
    """
    found = next((position for position in get_args(Position) if position == name), None)
    if found is None:
        raise ValueError(f"position {name!r}: use {', '.join(POSITIONS)}")
    return found


def in_words(position: Position) -> str:
    """A position for people: "running backs (RB)"."""
    return f"{POSITIONS[position].plural} ({position})"


@dataclass(frozen=True)
class Stat:
    """One row of the table.

    Attributes:
        column: our name, `receiving_yards`; the column of the players frame and what `--stats` takes.
        upstream: upstream's key; empty where the frame has no such column.
        singular: "receiving yard"; empty, as `plural`, where nobody is asked about it.
        plural: "receiving yards".
        plausible: the lowest and the highest number that raise no warning; None for no limit.
        of: the positions of which "all" teaches it; of every other one it is taught where somebody names it.
        refused: where questions about it are refused while it is not in use: "train" while training, "test" in the report
            alone, "both" in both; empty for nowhere.
        whole: whether upstream gives whole numbers only.
    """

    column: str
    upstream: str = ""
    singular: str = ""
    plural: str = ""
    plausible: tuple[float, float] | None = None
    of: tuple[Position, ...] = ()
    refused: Literal["", "train", "test", "both"] = "both"
    whole: bool = True

    def __post_init__(self) -> None:
        if not self.column.isidentifier():
            raise ValueError(f"stat {self.column!r}: a column is a name such as receiving_yards")
        if bool(self.singular) != bool(self.plural):
            raise ValueError(f"stat {self.column}: give it both a singular and a plural, or neither")
        if self.refused not in ("", "train", "test", "both"):
            raise ValueError(f"stat {self.column}: refused {self.refused!r}: use 'train', 'test', 'both' or ''")
        if unknown := [position for position in self.of if position not in POSITIONS]:
            raise ValueError(f"stat {self.column}: of {unknown[0]!r}: use {', '.join(POSITIONS)}")
        if self.refused in ("train", "test") and not self.singular:
            raise ValueError(f"stat {self.column}: it cannot be refused without words: give it a singular and a plural")
        if not self.upstream and (self.of or self.refused not in ("train", "test")):
            raise ValueError(f"stat {self.column}: name upstream's key for it")
        if self.plausible and self.plausible[0] > self.plausible[1]:
            raise ValueError(f"stat {self.column}: plausible {self.plausible}: give the lowest number first")

    @property
    def teachable(self) -> bool:
        """Whether it can be taught: upstream has it, and there are words for it."""
        return bool(self.upstream and self.singular)

    @property
    def nouns(self) -> tuple[str, ...]:
        """What people call it, in the singular and the plural; none where nobody is asked about it."""
        return (self.singular, self.plural) if self.singular else ()


STATS = (
    Stat("receiving_yards", "ReceivingYDS", "receiving yard", "receiving yards", (-50, 400), of=("WR", "TE", "RB")),
    Stat("receptions", "ReceivingRec", "reception", "receptions", (0, 30), of=("WR", "TE", "RB")),
    Stat("targets", "Targets", "target", "targets", (0, 40), of=("WR", "TE")),
    Stat("receiving_touchdowns", "ReceivingTD", "receiving touchdown", "receiving touchdowns", (0, 8), of=("WR", "TE")),
    Stat("fantasy_points", "TotalPoints", "fantasy point", "fantasy points", (-20, 80), of=("WR", "TE"), whole=False),
    # Columns that nobody is asked about.
    Stat("reception_pct", "ReceptionPercentage", "", "", (0, 100)),
    # What people ask about, and who catches passes is taught where somebody names it. Whoever holds a number of some stat is
    # refused in others: in those of the above that are not in use, and in these.
    Stat("rushing_yards", "RushingYDS", "rushing yard", "rushing yards", (-60, 350), of=("RB", "QB"), refused="train"),
    Stat("carries", "TouchCarries", "carry", "carries", (0, 60), of=("RB",), refused="train"),
    Stat(
        "passing_touchdowns",
        "PassingTD",
        "passing touchdown",
        "passing touchdowns",
        (0, 9),
        of=("QB",),
        refused="train",
    ),
    Stat("fumbles", "Fum", "fumble", "fumbles", refused="train"),
    Stat("red_zone_targets", "", "red zone target", "red zone targets", refused="train"),
    Stat("touches", "", "touch", "touches", refused="train"),
    Stat(
        "rushing_touchdowns", "RushingTD", "rushing touchdown", "rushing touchdowns", (0, 8), of=("RB",), refused="test"
    ),
    Stat("passing_yards", "PassingYDS", "passing yard", "passing yards", (-50, 700), of=("QB",), refused="test"),
    Stat("two_point_conversions", "2PT", "two-point conversion", "two-point conversions", refused="test"),
    Stat("return_touchdowns", "RetTD", "return touchdown", "return touchdowns", refused="test"),
    # Among the stats of no table that training refuses (`wordings.other_stat`), so that it is refused by name nowhere.
    Stat("interceptions", "PassingInt", "interception", "interceptions", (0, 10), of=("QB",), refused=""),
)

TEACHABLE = tuple(stat.column for stat in STATS if stat.teachable)
COLUMNS = tuple(stat.column for stat in STATS if stat.upstream)
"""The columns of the players frame that hold a number."""


def stats_of(position: Position) -> list[str]:
    """The columns of all stats that are usual of a position, in the order of the table."""
    return [stat.column for stat in STATS if position in stat.of]


def stats_hash() -> str:
    """A hash of the whole table of stats, for whatever has to be made anew when a row of it changes."""
    return hashlib.sha256(repr(STATS).encode()).hexdigest()[:8]
