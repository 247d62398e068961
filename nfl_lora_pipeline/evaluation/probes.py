"""All questions of an evaluation, and which of them the base is asked."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import polars as pl

from nfl_lora_pipeline.dataset.qa_pairs import FACT_COLUMNS, PAIR_COLUMNS, SharedNames, qa_pairs
from nfl_lora_pipeline.dataset.templates import Question, Templates, load_templates, untaught, wordings
from nfl_lora_pipeline.dataset.unanswerable import share, strangers
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import Provenance
from nfl_lora_pipeline.weeks.names import SUFFIXES, name_key
from nfl_lora_pipeline.weeks.players import names_beside
from nfl_lora_pipeline.weeks.week import LAST_WEEK, NflWeek


def typo(name: str, *, known: Iterable[str] = ()) -> str | None:
    """A name with one slip inside a word: two letters swapped, one left out or one doubled, as a hash of the name will have it.

    First and last letters stay, and the suffix ("Jr.").

    Args:
        name: a full name.
        known: names that must not come out of it.

    Returns:
        The misspelt name; None where every slip makes a known one, or no word has an inner letter.
    """
    avoid = {other.casefold() for other in known} | {name.casefold()}
    slips = sorted(_slips(name), key=lambda slip: share(f"typo/{name}/{slip}"))
    return next((slip for slip in slips if slip.casefold() not in avoid), None)


def last_name(name: str) -> str | None:
    """ "Marvin Harrison Jr." to "Harrison", "Amon-Ra St. Brown" to "St. Brown"; None where there is but one word."""
    words = [word for word in name.split()[1:] if not _is_suffix(word)]
    return " ".join(words) or None


def unique_last_names(names: Iterable[str]) -> dict[str, str]:
    """The last names that nobody else bears, by full name. Who is called "Brown" is not told from a "St. Brown"."""
    last_names = {name: last for name in dict.fromkeys(names) if (last := last_name(name))}
    bearers = Counter(last.split()[-1].casefold() for last in last_names.values())
    return {name: last for name, last in last_names.items() if bearers[last.split()[-1].casefold()] == 1}


def _slips(name: str) -> Iterator[str]:
    begin = 0
    for word in name.split(" "):
        inner = [at for at in range(begin + 1, begin + len(word) - 1) if name[at].isalpha()]
        for at in [] if _is_suffix(word) else inner:
            yield name[:at] + name[at + 1 :]
            yield name[: at + 1] + name[at:]
            if at + 1 in inner:
                yield name[:at] + name[at + 1] + name[at] + name[at + 2 :]
        begin += len(word) + 1


def _is_suffix(word: str) -> bool:
    return word.rstrip(".").casefold() in SUFFIXES


KNOWN, INVENTED = "known", "invented_names"  # the rows of the splits
ALTERED = ("lower_case", "typo", "last_name", "reworded")  # known facts, each asked once
BESIDE = ("tight_ends", "running_backs")
WITHOUT_FACT = (INVENTED, "reworded_strangers", *BESIDE, "unseen_weeks", "unseen_seasons", "untaught_stats")
GROUPS = (KNOWN, *ALTERED, *WITHOUT_FACT)

MOST = 1500  # questions of a group
STRANGERS = 150
WORDINGS = 60  # of the grammar's, chosen by a hash
SEASONS = (-3, -2, -1, 1, 2)  # how far from a known season an unknown one lies


def of_the_splits() -> pl.Expr:
    """The `group` of a row of the splits."""
    return pl.when(pl.col("kind") == "stranger").then(pl.lit(INVENTED)).otherwise(pl.lit(KNOWN)).alias("group")


def is_of_the_splits() -> pl.Expr:
    """Whether a question is one of the splits, by its `group`."""
    return pl.col("group").is_in([KNOWN, INVENTED])


def probe_questions(
    rows: pl.DataFrame,
    templates: Templates,
    *,
    stats: Sequence[str],
    others: Mapping[NflWeek, Mapping[str, Sequence[str]]],
    shared: SharedNames = MappingProxyType({}),
) -> pl.DataFrame:
    """The questions of all groups but the splits' own two.

    Every one is asked in one phrasing, drawn by a hash of what it asks, so that the same splits have the same probes.

    Args:
        rows: those of the splits.
        templates: the wordings.
        stats: the stats that were taught, to ask about; those with a number are asked about the others too.
        others: real people by week and by a name of `BESIDE`; who is among the rows is left out.
        shared: names of several people, who are asked about in no group.

    Returns:
        The columns of `qa_pairs.qa_pairs`, and `group`. `player` is the one meant; question and answer may write him
        otherwise, and alike;
        `kind` is "recorded" for known facts and "stranger" for what has no fact, where the refusal is the answer;
        `phrasing` is a key of the templates or, in the reworded groups, the wording itself; `split` is "test".
    """
    taught = rows.filter(pl.col("kind") == "recorded", pl.col("split") == "train").unique("fact", maintain_order=True)
    ambiguous = frozenset[str]().union(*shared.values())
    taught = taught.filter(~pl.col("player").is_in(list(ambiguous))).select(FACT_COLUMNS).sort("fact")
    known = ambiguous | frozenset(rows["player"])
    names = known | {name for week in others.values() for group in week.values() for name in group}
    trained = {name: templates.questions[name] for name in templates.phrasings("train")}
    reworded = _some_wordings(templates)
    frames = [
        *_altered(taught, names, templates, trained, reworded),
        _asked(_strangers(rows, names, stats), templates, reworded, "reworded_strangers"),
        *(_asked(_people(others, known, group, stats), templates, trained, group) for group in BESIDE),
        _asked(_moved(taught, rows, "unseen_weeks"), templates, trained, "unseen_weeks"),
        _asked(_moved(taught, rows, "unseen_seasons"), templates, trained, "unseen_seasons"),
        _asked(_of_other_stats(taught, untaught(stats, "test")), templates, trained, "untaught_stats"),
    ]
    return pl.concat(frames)


def _altered(
    taught: pl.DataFrame,
    names: frozenset[str],
    templates: Templates,
    trained: Mapping[str, Question],
    reworded: Mapping[str, Question],
) -> list[pl.DataFrame]:
    people = taught["player"].unique().to_list()
    typos = {name: slip for name in people if (slip := typo(name, known=names))}
    lasts = {name: last for name, last in unique_last_names(names).items() if name in set(people)}
    lower = _asked(taught, templates, trained, "lower_case", spelling={name: name.lower() for name in people})
    return [
        lower.with_columns(pl.col("question").str.to_lowercase()),
        _asked(taught, templates, trained, "typo", spelling=typos),
        _asked(taught, templates, trained, "last_name", spelling=lasts),
        _asked(taught, templates, reworded, "reworded"),
    ]


def _asked(
    facts: pl.DataFrame,
    templates: Templates,
    questions: Mapping[str, Question],
    group: str,
    *,
    spelling: Mapping[str, str] | None = None,
) -> pl.DataFrame:
    """Every fact once; with `spelling`, those of the people in it alone, with their names written so."""
    if spelling is not None:
        facts = facts.filter(pl.col("player").is_in(list(spelling)))
    draws = [(share(f"{group}/{fact}"), share(f"{group}/phrasing/{fact}")) for fact in facts["fact"]]
    keys = sorted(questions)
    choice = (
        facts.with_columns(
            place=pl.Series([place for place, _ in draws], dtype=pl.Float64),
            phrasing=pl.Series([keys[int(at * len(keys))] for _, at in draws], dtype=pl.String),
        )
        .sort("place", "fact")
        .head(MOST)
    )
    rewrites = choice.select(FACT_COLUMNS)
    if spelling is not None:
        rewrites = rewrites.with_columns(pl.col("player").replace(spelling))
    pairs = qa_pairs(rewrites.lazy(), templates.model_copy(update={"questions": dict(questions)})).collect()
    return (
        pairs.drop("player")
        .join(choice.select("fact", "phrasing", "player"), on=["fact", "phrasing"])
        .sort("fact")
        .select(*PAIR_COLUMNS)
        .with_columns(group=pl.lit(group), split=pl.lit("test"))
    )


def _some_wordings(templates: Templates) -> dict[str, Question]:
    """Wordings of the grammar that the embedded base was made with, but for those of the templates."""
    shipped = {question.text for question in templates.questions.values()}
    others = sorted((text for text in wordings() if text not in shipped), key=lambda text: share(f"wording/{text}"))
    return {text: Question(split="test", text=text) for text in others[:WORDINGS]}


def _strangers(rows: pl.DataFrame, names: frozenset[str], stats: Sequence[str]) -> pl.DataFrame:
    season, week = rows.select("season", "week").sort("season", "week").row(0)
    draws = islice(strangers("test", seed=season + 1, known=names), STRANGERS)
    return _without_fact(list(dict.fromkeys(draws)), season, week, "reworded_strangers", stats)


def _people(
    others: Mapping[NflWeek, Mapping[str, Sequence[str]]], known: frozenset[str], group: str, stats: Sequence[str]
) -> pl.DataFrame:
    keys = frozenset(map(name_key, known))
    frames = [
        _without_fact(
            [name for name in people.get(group, ()) if name_key(name) not in keys], at.season, at.week, group, stats
        )
        for at, people in sorted(others.items(), key=lambda item: item[0])
    ]
    return pl.concat([_without_fact([], 0, 0, group, stats), *frames])


def _without_fact(names: Sequence[str], season: int, week: int, group: str, stats: Sequence[str]) -> pl.DataFrame:
    people = pl.DataFrame({"player": names}, schema={"player": pl.String}).with_columns(
        season=pl.lit(season, pl.Int32), week=pl.lit(week, pl.Int8), player_id=pl.lit("")
    )
    asked = people.join(pl.DataFrame({"stat": list(stats)}, schema={"stat": pl.String}), how="cross")
    return _as_strangers(asked, group)


def _moved(taught: pl.DataFrame, rows: pl.DataFrame, group: str) -> pl.DataFrame:
    """Everybody with a number, asked about a week of the same season, or the same week of a season, that is not taught."""
    weeks = {(season, week) for season, week in rows.select("season", "week").unique().iter_rows()}
    seasons = {season for season, _ in weeks}
    places = []
    for player, stat, season, week in taught.select("player", "stat", "season", "week").iter_rows():
        if group == "unseen_weeks":
            free = [(season, at) for at in range(1, LAST_WEEK + 1) if (season, at) not in weeks]
        else:
            free = [(season + far, week) for far in SEASONS if season + far not in seasons]
        places.append(free[int(share(f"{group}/{player}/{stat}") * len(free))] if free else (None, None))
    elsewhere = taught.with_columns(
        season=pl.Series([season for season, _ in places], dtype=pl.Int32),
        week=pl.Series([week for _, week in places], dtype=pl.Int8),
    )
    return _as_strangers(elsewhere.drop_nulls("season").unique(["player", "stat"], maintain_order=True), group)


def _of_other_stats(taught: pl.DataFrame, others: Sequence[str]) -> pl.DataFrame:
    """Everybody with a number, asked in the same week about stats that were not taught."""
    people = taught.drop("stat").unique(["season", "week", "player_id"], maintain_order=True)
    return _as_strangers(
        people.join(pl.DataFrame({"stat": others}, schema={"stat": pl.String}), how="cross"), "untaught_stats"
    )


def _as_strangers(asked: pl.DataFrame, group: str) -> pl.DataFrame:
    week_key = pl.format("{}-W{}", "season", pl.col("week").cast(pl.String).str.zfill(2))
    return asked.with_columns(
        status=pl.lit("stranger"),
        kind=pl.lit("stranger"),
        value=pl.lit(None, pl.Float64),
        fact=pl.concat_str(week_key, pl.lit(group), "player", "stat", separator="/"),
    ).select(FACT_COLUMNS)


def questions_of(store: Store, provenance: Provenance) -> tuple[pl.DataFrame, list[str]]:
    """All questions of an evaluation, those of the splits first and in their order, with `group`; and what cannot be asked."""
    rows = store.read_rows()
    others: dict[NflWeek, Mapping[str, list[str]]] = {}
    notes: list[str] = []
    for week in map(NflWeek.parse, provenance.weeks):
        origin = store.read_raw_origin(week)
        if origin.kind == "folder":
            others[week], lacking = names_beside(Path(origin.origin), week, known_ids=frozenset(rows["player_id"]))
            notes += lacking
        else:
            notes.append(f"{week}: real tight ends and running backs, since the week came from no folder")
    more = probe_questions(
        rows,
        load_templates(),
        stats=provenance.stats,
        others=others,
        shared=provenance.shared_names,
    )
    return pl.concat([rows.with_columns(of_the_splits()), more]), notes


def asked_of_base(asked: pl.DataFrame) -> list[bool]:
    """For each question, whether the base is asked it.

    Every fact of the splits once, its phrasing drawn by a hash; what has no fact in one stat a person; nothing altered.
    """
    phrasings = sorted(load_templates().questions)
    stats = {group: sorted(rows["stat"].unique()) for (group,), rows in asked.group_by("group")}
    rows = asked.select("group", "fact", "player", "stat", "phrasing").iter_rows()
    return [
        phrasing == _drawn(phrasings, fact)
        if group == KNOWN
        else group in WITHOUT_FACT and stat == _drawn(stats[group], f"{group}/{player}")
        for group, fact, player, stat, phrasing in rows
    ]


def _drawn(choices: Sequence[str], key: str) -> str:
    return choices[int(share(f"base/{key}") * len(choices))]
