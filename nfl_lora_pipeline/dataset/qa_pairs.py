"""A week's facts, and every fact as questions and answers.

A person is an id, whatever the name, and a name that two people bear is nobody's: upstream spells a dozen of 838
people in several ways ("D.J. Moore", "DJ Moore"; "Gabe Davis", "Gabriel Davis").
"""

from collections.abc import Mapping, Sequence
from string import Formatter

import polars as pl

from nfl_lora_pipeline.dataset.templates import NOUNS, Templates
from nfl_lora_pipeline.weeks.names import plain_names

FACT_COLUMNS = ["fact", "season", "week", "player_id", "player", "stat", "status", "kind", "value"]
PAIR_COLUMNS = [*FACT_COLUMNS, "phrasing", "split", "question", "answer", "refusal"]


def facts(players: pl.LazyFrame, stats: Sequence[str]) -> pl.LazyFrame:
    """What a week says about each player, one row a player and stat.

    Args:
        players: the frame of `players.parse_week`, one row a player-week.
        stats: the columns of it to speak about.

    Returns:
        `fact` (a stable key, "2025-W01/2566127/receiving_yards"), `season`, `week`, `player_id`, `player` (the published
        name as one types it, see `names.plain_name`), `stat`, `status`, `kind` ("recorded": there is a number; "bye";
        "no_record": nothing is on record, which says the same of a free agent) and `value` (Float64, null unless
        recorded). Sorted by player, id and stat.
    """
    return (
        players.unpivot(
            on=list(stats),
            index=["season", "week", "player_id", "player", "status"],
            variable_name="stat",
            value_name="value",
        )
        .with_columns(
            plain_names(),
            pl.col("status").cast(pl.String),
            pl.col("value").cast(pl.Float64),
            fact=pl.concat_str(_week_key(), "player_id", "stat", separator="/"),
            kind=pl.when(pl.col("status").is_in(["recorded", "bye"])).then("status").otherwise(pl.lit("no_record")),
        )
        .with_columns(pl.col("kind").cast(pl.String))
        .select(FACT_COLUMNS)
        .sort("player", "player_id", "stat")
    )


def qa_pairs(facts: pl.LazyFrame, templates: Templates) -> pl.LazyFrame:
    """Every fact in every phrasing, one row each.

    Returns:
        The columns of `facts`, then `phrasing` (its id in `templates.yaml`), `split` (train, valid or test),
        `question`, `answer` and `refusal` (what a model without the fact should say). Sorted by player, id, stat and
        phrasing.
    """
    worded = _with_words(facts).with_columns(
        answer=_answer(templates), refusal=_filled(templates.answers.no_record, _words())
    )
    return (
        pl.concat(
            worded.with_columns(phrasing=pl.lit(name), split=pl.lit(question.split), question=_question(question.text))
            for name, question in templates.questions.items()
        )
        .select(PAIR_COLUMNS)
        .sort("player", "player_id", "stat", "phrasing")
    )


def stranger_pairs(
    names: Sequence[str], *, season: int, week: int, stats: Sequence[str], templates: Templates, split: str
) -> pl.LazyFrame:
    """Questions of one split's phrasings about people who hold no fact, with the refusal as the answer.

    Returns:
        The columns of `qa_pairs`; `kind` and `status` are "stranger", `player_id` is empty.
    """
    strangers = pl.LazyFrame({"player": names}).with_columns(
        season=pl.lit(season, pl.Int32), week=pl.lit(week, pl.Int8), player_id=pl.lit(""), status=pl.lit("stranger")
    )
    facts_of_strangers = strangers.join(pl.LazyFrame({"stat": list(stats)}), how="cross").with_columns(
        kind=pl.lit("stranger"),
        value=pl.lit(None, pl.Float64),
        fact=pl.concat_str(_week_key(), pl.lit("stranger"), "player", "stat", separator="/"),
    )
    return qa_pairs(facts_of_strangers, templates).filter(pl.col("split") == split)


def number_words() -> pl.Expr:
    """`value` as it is spoken: 25.0 to "25", 24.6 to "24.6"."""
    value = pl.col("value").round(2)
    whole = value.round() == value
    return pl.when(whole).then(value.cast(pl.Int64).cast(pl.String)).otherwise(value.cast(pl.String))


def possessive_words() -> pl.Expr:
    """`player` in the genitive: "Nico Collins'", "Rome Odunze's"."""
    ends_in_s = pl.col("player").str.ends_with("s")
    return pl.col("player") + pl.when(ends_in_s).then(pl.lit("'")).otherwise(pl.lit("'s"))


def _week_key() -> pl.Expr:
    return pl.format("{}-W{}", "season", pl.col("week").cast(pl.String).str.zfill(2))


def _with_words(facts: pl.LazyFrame) -> pl.LazyFrame:
    nouns = pl.LazyFrame(
        [{"stat": stat, "singular": noun.singular, "plural": noun.plural} for stat, noun in NOUNS.items()]
    )
    return facts.join(nouns, on="stat", how="left", maintain_order="left").with_columns(
        possessive=possessive_words(),
        n=number_words(),
        noun=pl.when(pl.col("value") == 1).then("singular").otherwise("plural"),
    )


def _words() -> Mapping[str, pl.Expr]:
    return {
        "player": pl.col("player"),
        "possessive": pl.col("possessive"),
        "stats": pl.col("plural"),
        "week": pl.col("week").cast(pl.String),
        "season": pl.col("season").cast(pl.String),
        "n": pl.col("n"),
        "noun": pl.col("noun"),
    }


def _question(text: str) -> pl.Expr:
    words = dict(_words())
    if text.startswith("{stats}"):
        plural = pl.col("plural")
        words["stats"] = plural.str.head(1).str.to_uppercase() + plural.str.slice(1)
    return _filled(text, words)


def _answer(templates: Templates) -> pl.Expr:
    answers, words = templates.answers, _words()
    return (
        pl.when(pl.col("kind") == "recorded")
        .then(_filled(answers.recorded, words))
        .when(pl.col("kind") == "bye")
        .then(_filled(answers.bye, words))
        .otherwise(_filled(answers.no_record, words))
    )


def _filled(template: str, words: Mapping[str, pl.Expr]) -> pl.Expr:
    parts: list[pl.Expr] = []
    for literal, field, _, _ in Formatter().parse(template):
        if literal:
            parts.append(pl.lit(literal))
        if field is not None:
            parts.append(words[field])
    return pl.concat_str(parts)


SharedNames = Mapping[str, Sequence[str]]
"""Names by partition key of the week in which several people bear them."""


def under_other_names(facts: pl.DataFrame) -> pl.DataFrame:
    """The same facts under every other name that a person has had in any of their weeks.

    Args:
        facts: the columns of `facts`, of all weeks, below each other.

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
        facts: the columns of `facts`, under every name.
    """
    question_columns = ["season", "week", "stat", pl.col("player").str.to_lowercase()]
    people = pl.col("player_id").n_unique().over(question_columns)
    answers = pl.struct("kind", "value").n_unique().over(question_columns)
    return facts.filter(people > 1, answers > 1)


def names_by_week(facts: pl.DataFrame) -> dict[str, list[str]]:
    """The names in some facts by partition key of their week, sorted."""
    week = pl.format("{}-W{}", "season", pl.col("week").cast(pl.String).str.zfill(2))
    named = facts.select(week.alias("week"), "player").unique().sort("week", "player")
    return dict(named.group_by("week", maintain_order=True).agg("player").iter_rows())
