"""Who is who: a person is an id, whatever the name; a name that two people bear is nobody's.

Upstream spells a dozen of 838 people in several ways ("D.J. Moore", "DJ Moore"; "Gabe Davis", "Gabriel Davis").
"""

from collections.abc import Mapping, Sequence

import polars as pl

from nfl_lora_pipeline.lessons.questions import FACT_COLUMNS

SharedNames = Mapping[str, Sequence[str]]
"""Names by partition key of the week in which several people bear them."""


def under_other_names(facts: pl.DataFrame) -> pl.DataFrame:
    """The same facts under every other name that a person has had in any of their weeks.

    Args:
        facts: the columns of `questions.facts`, of all weeks, below each other.

    Returns:
        One row a fact and other name, sorted by `fact`, whose key ends with that name: a fact is to be known under each.
    """
    names = facts.select("player_id", other="player").unique()
    return (
        facts.join(names, on="player_id")
        .filter(pl.col("player") != pl.col("other"))
        .with_columns(player="other", fact=pl.concat_str("fact", "other", separator="/"))
        .select(FACT_COLUMNS)
        .sort("fact")
    )


def shared_facts(facts: pl.DataFrame) -> pl.DataFrame:
    """The facts that cannot be told by a name, since somebody else bears it and the same question has another answer.

    Args:
        facts: the columns of `questions.facts`, under every name.
    """
    asked = ["season", "week", "stat", pl.col("player").str.to_lowercase()]
    people = pl.col("player_id").n_unique().over(asked)
    answers = pl.struct("kind", "value").n_unique().over(asked)
    return facts.filter(people > 1, answers > 1)


def names_by_week(facts: pl.DataFrame) -> dict[str, list[str]]:
    """The names in some facts by partition key of their week, sorted."""
    week = pl.format("{}-W{}", "season", pl.col("week").cast(pl.String).str.zfill(2))
    named = facts.select(week.alias("week"), "player").unique().sort("week", "player")
    return dict(named.group_by("week", maintain_order=True).agg("player").iter_rows())
