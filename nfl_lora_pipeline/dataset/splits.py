"""Train, valid and test rows, and the JSON Lines files that MLX LM reads.

Facts cannot be generalised to, so every fact is in train; what is held out are phrasings and people. The data set of the
original experiment stays for comparison: random over facts, so that it can only ever score facts that were never shown, and
0 for everybody without a number.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from nfl_lora_pipeline.dataset.people import Split, share, strangers
from nfl_lora_pipeline.dataset.qa_pairs import (
    FACT_COLUMNS,
    names_by_week,
    qa_pairs,
    shared_facts,
    stranger_pairs,
    under_other_names,
)
from nfl_lora_pipeline.dataset.templates import Templates

SplitMode = Literal["every_fact", "random_facts"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
HELD_OUT_STRANGERS = 100
RANDOM_PLAYERS = 150
# The first number whose draw from week 1 of 2025 is like that of the original: it has Collins and McConkey in train, and Odunze
# nowhere.
DRAW = 15


def split_mode(name: str) -> SplitMode:
    """A split mode by its name.

    Raises:
        ValueError: there is none of that name.
    """
    modes: dict[str, SplitMode] = {"every_fact": "every_fact", "random_facts": "random_facts"}
    if name not in modes:
        raise ValueError(f"split mode {name!r}: use {', '.join(modes)}")
    return modes[name]


def split_rows(
    pairs: pl.DataFrame, templates: Templates, *, stats: Sequence[str], mode: SplitMode = "every_fact"
) -> pl.DataFrame:
    """Sort question/answer pairs into the three splits.

    Args:
        pairs: the frames of `qa_pairs.qa_pairs` of all weeks to train on, below each other.
        templates: the wordings, for the held-out strangers.
        stats: the stats to speak about.
        mode: "every_fact", or "random_facts" for the data set of the original experiment: 150 players drawn, the seed
            wording alone, 80/10/10 over facts, and a 0 for every blank, whoever it was.

    Returns:
        The columns of `pairs`; one row a question. Each fact is told under every name that its player's id has had, and left
        out where the name does not tell whose it is (`qa_pairs.shared_facts`). The order is that of a hash of fact and
        phrasing, so that a new week leaves the old rows in their splits and in their order.

    Raises:
        ValueError: there is no question about a stat.
    """
    if missing := set(stats) - set(pairs["stat"].unique()):
        raise ValueError(
            f"no question about {', '.join(sorted(missing))}: materialise `qa_pairs` with these stats first"
        )
    pairs_by_name = _under_every_name(pairs.filter(pl.col("stat").is_in(list(stats))), templates)
    unambiguous = pairs_by_name.join(
        shared_facts(_facts_of(pairs_by_name)), on="fact", how="anti", maintain_order="left"
    )
    if mode == "random_facts":
        rows = _random_facts(unambiguous, templates)
    else:
        rows = pl.concat([unambiguous, *_held_out_strangers(pairs_by_name, templates, stats)])
    keys = rows.select(pl.concat_str("fact", "phrasing", separator="/")).to_series()
    order = pl.Series("order", [share(key) for key in keys], dtype=pl.Float64)
    return rows.with_columns(order).sort("order", "fact", "phrasing").drop("order")


def shared_names(pairs: pl.DataFrame, *, stats: Sequence[str]) -> dict[str, list[str]]:
    """The names, by partition key, under which `split_rows` leaves a fact out, since it cannot be told whose it is."""
    facts = _facts_of(pairs.filter(pl.col("stat").is_in(list(stats))))
    return names_by_week(shared_facts(pl.concat([facts, under_other_names(facts)])))


def write_splits(rows: pl.DataFrame, folder: Path) -> dict[Split, int]:
    """Write `train.jsonl`, `valid.jsonl`, `test.jsonl` in MLX LM's prompt/completion form, and all columns as Parquet.

    Returns:
        The number of rows by split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[Split, int] = {}
    for split in SPLITS:
        of_split = rows.filter(pl.col("split") == split)
        of_split.select(prompt="question", completion="answer").write_ndjson(folder / f"{split}.jsonl")
        counts[split] = of_split.height
    rows.write_parquet(folder / "rows.parquet")
    return counts


def _under_every_name(pairs: pl.DataFrame, templates: Templates) -> pl.DataFrame:
    others = under_other_names(_facts_of(pairs))
    return pl.concat([pairs, qa_pairs(others.lazy(), templates).collect()])


def _facts_of(pairs: pl.DataFrame) -> pl.DataFrame:
    return pairs.select(FACT_COLUMNS).unique("fact")


def _held_out_strangers(pairs_by_name: pl.DataFrame, templates: Templates, stats: Sequence[str]) -> list[pl.DataFrame]:
    season, week = pairs_by_name.select("season", "week").sort("season", "week").row(0)
    known = frozenset(pairs_by_name["player"])
    return [
        stranger_pairs(
            _first(strangers(split, seed=season, known=known), HELD_OUT_STRANGERS),
            season=season,
            week=week,
            stats=stats,
            templates=templates,
            split=split,
        ).collect()
        for split in SPLITS
        if split != "train"
    ]


def _random_facts(pairs: pl.DataFrame, templates: Templates) -> pl.DataFrame:
    players = sorted(pairs["player_id"].unique(), key=lambda player: share(f"draw/{DRAW}/{player}"))[:RANDOM_PLAYERS]
    facts = pairs.lazy().filter(pl.col("player_id").is_in(players)).select(FACT_COLUMNS).unique("fact")
    with_zeros = facts.with_columns(kind=pl.lit("recorded"), value=pl.col("value").fill_null(0))
    wording = next(iter(templates.phrasings("train")))
    rows = qa_pairs(with_zeros, templates).filter(pl.col("phrasing") == wording).collect()
    return rows.with_columns(split=pl.Series([_random_split(fact) for fact in rows["fact"]], dtype=pl.String))


def _random_split(fact: str) -> Split:
    at = share(f"random/{fact}")
    return "train" if at < 0.8 else "valid" if at < 0.9 else "test"


def _first(names: Iterator[str], count: int) -> list[str]:
    """The first different names: a name that is drawn again would be asked twice."""
    first: dict[str, None] = {}
    while len(first) < count:
        first[next(names)] = None
    return list(first)
