"""All questions of an evaluation, and which of them the base is asked."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import polars as pl
import yaml

from nfl_lora_pipeline.dataset.people import share, strangers
from nfl_lora_pipeline.dataset.qa_pairs import FACT_COLUMNS, PAIR_COLUMNS, SharedNames, qa_pairs
from nfl_lora_pipeline.dataset.templates import NOUNS, Question, Templates, load_templates, spoken_stat, untaught
from nfl_lora_pipeline.dataset.typed import fill
from nfl_lora_pipeline.dataset.unanswerable import OUTSIDE
from nfl_lora_pipeline.dataset.wordings import wordings
from nfl_lora_pipeline.evaluation.alterations import (
    ABBREVIATIONS,
    CARELESS,
    in_plain_letters,
    shared_last_names,
    typo,
    unique_last_names,
)
from nfl_lora_pipeline.stats import POSITIONS
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import Provenance
from nfl_lora_pipeline.weeks.names import name_key
from nfl_lora_pipeline.weeks.players import OTHER_POSITIONS, names_beside, strangers_to
from nfl_lora_pipeline.weeks.week import LAST_WEEK, NflWeek

KNOWN, INVENTED = "known", "invented_names"  # the rows of the splits
INCOMPLETE = "incomplete"
ALTERATIONS = {
    "hand_written": "one of 30 wordings written by hand",
    "bare_words": "bare words alone, as into a search box",
    "lower_case": "the whole question in lower case",
    "no_mark": "no mark at the end",
    "two_blanks": "two blanks in places",
    "abbreviated": '"yds", "TDs" or "pts"',
    "plain_letters": "ASCII for the accents of a name",
    "typo": "a typo in the name",
    "last_name": "the last name alone, where nobody else bears it",
    "reworded": "one of 60 other wordings, from the making of the embedded base",
}
"""Known facts, each asked once: how, in words."""
SHARED = "shared_last_name"
UNANSWERABLE = {
    INVENTED: "people who do not exist, in phrasings never trained",
    "reworded_strangers": "people who do not exist, in other wordings",
    "wide_receivers": "real wide receivers of the week",
    "tight_ends": "real tight ends of the week",
    "running_backs": "real running backs of the week",
    "next_week": "known players, next week",
    "unseen_weeks": "known players, in other weeks not taught",
    "unseen_seasons": "known players, in seasons not taught",
    "untaught_stats": "known players, in their weeks, and stats not taught",
    INCOMPLETE: "more or less than one stat of one player in one week",
}
"""What has no fact, about whom and when, in words."""
IN_WORDS = {KNOWN: "as taught", **ALTERATIONS, SHARED: "a last name that several bear", **UNANSWERABLE}
"""Every group of questions, for people."""
ALTERED, WITHOUT_FACT, GROUPS = tuple(ALTERATIONS), tuple(UNANSWERABLE), tuple(IN_WORDS)
BESIDE = tuple(OTHER_POSITIONS)

HAND_WRITTEN_FILE = Path(str(files("nfl_lora_pipeline"))) / "hand_written.yaml"
BARE_WORDS_FILE = HAND_WRITTEN_FILE.with_name("bare_words.yaml")
INCOMPLETE_FILE = HAND_WRITTEN_FILE.with_name("incomplete.yaml")
IN_LOWER_CASE = ("lower_case", "bare_words")  # the groups whose questions are, and whose answers are not
MOST = 1500  # questions of a group
FIRST = 60  # of a part that are asked in any case: who is far from a limit is so after these
ENOUGH = 200  # of a part, for who is near a limit: all of 189 right is the least that tells 98% from less
FIRST_OF_LARGE_BASE = 30  # that a base is asked which takes seconds for one: it knows none of it, and that shows soon
TRAINED = "trained"  # the part of the known facts in the phrasings that they are taught in
STRANGERS = 150
WORDINGS = 60  # of the grammar's, chosen by a hash
SEASONS = (-3, -2, -1, 1, 2)  # how far from a known season an unknown one lies


@cache
def exam_texts(file: Path) -> list[str]:
    """The texts of a file of the exam. They are for the evaluation: nothing that trains may ask for them."""
    texts: list[str] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return texts


def _exam_wordings(file: Path) -> dict[str, Question]:
    return {text: Question(split="test", text=text) for text in exam_texts(file)}


def wording_text(column: str = "phrasing") -> pl.Expr:
    """A phrasing's text in place of its key in `templates.yaml`; what is no key stays."""
    return pl.col(column).replace({key: question.text for key, question in load_templates().questions.items()})


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

    Every one is asked in one phrasing, drawn by a hash of what it asks, so that the same splits have the same probes. Last
    names are asked about in held-out phrasings, since training asks about them in trained ones.

    Args:
        rows: those of the splits.
        templates: the wordings.
        stats: the stats that were taught, to ask about; those with a number are asked about the others too.
        others: real people by week and by a name of `BESIDE`; who is among the rows is left out.
        shared: names of several people, who are asked about in no group.

    Returns:
        The columns of `qa_pairs.qa_pairs`, and `group`. `player` is the one meant; question and answer may write him
        otherwise;
        `kind` is "recorded" for known facts and "stranger" for what has no fact, where the refusal is the answer;
        `phrasing` is a key of the templates or, in the reworded and the hand-written groups, the wording itself; `split` is
        "test". Where a last name is shared, `player` are all who bear it, joined by " and ".
    """
    taught = rows.filter(pl.col("kind") == "recorded", pl.col("split") == "train").unique("fact", maintain_order=True)
    ambiguous = frozenset[str]().union(*shared.values())
    taught = taught.filter(~pl.col("player").is_in(list(ambiguous))).select(FACT_COLUMNS).sort("fact")
    known = ambiguous | frozenset(rows["player"])
    names = known | {name for week in others.values() for group in week.values() for name in group}
    trained = {name: templates.questions[name] for name in templates.phrasings("train")}
    held_out = {name: templates.questions[name] for name in templates.phrasings("valid") | templates.phrasings("test")}
    reworded = _some_wordings(templates)
    frames = [
        *_altered(taught, names, templates, (trained, held_out, reworded)),
        _of_shared_last_names(taught, templates, held_out),
        _asked(_strangers(rows, names, stats), templates, reworded, "reworded_strangers"),
        *(_asked(_people(others, known, group, stats), templates, trained, group) for group in BESIDE),
        _asked(_moved(taught, rows, "next_week"), templates, trained, "next_week"),
        _asked(_moved(taught, rows, "unseen_weeks"), templates, trained, "unseen_weeks"),
        _asked(_moved(taught, rows, "unseen_seasons"), templates, trained, "unseen_seasons"),
        _asked(_of_other_stats(taught, untaught(stats, "test")), templates, trained, "untaught_stats"),
        _incomplete(taught),
    ]
    return pl.concat(frames)


def _altered(
    taught: pl.DataFrame,
    names: frozenset[str],
    templates: Templates,
    phrasings: tuple[Mapping[str, Question], Mapping[str, Question], Mapping[str, Question]],
) -> list[pl.DataFrame]:
    trained, held_out, reworded = phrasings
    people = taught["player"].unique().to_list()
    typos = {name: slip for name in people if (slip := typo(name, known=names))}
    lasts = {name: last for name, last in unique_last_names(names).items() if name in set(people)}
    spellings = {
        "lower_case": {name: name.lower() for name in people},
        "plain_letters": {name: plain for name in people if (plain := in_plain_letters(name))},
    }
    bare_words = _asked(
        taught, templates, _exam_wordings(BARE_WORDS_FILE), "bare_words", spelling=spellings["lower_case"]
    )
    short = [stat for stat, noun in NOUNS.items() if noun.plural.split()[-1] in ABBREVIATIONS]
    facts = {"abbreviated": taught.filter(pl.col("stat").is_in(short))}
    careless = [
        _rewritten(_asked(facts.get(group, taught), templates, trained, group, spelling=spellings.get(group)), group)
        for group in CARELESS
    ]
    return [
        *careless,
        _asked(taught, templates, _exam_wordings(HAND_WRITTEN_FILE), "hand_written"),
        _rewritten(bare_words, "lower_case"),
        _asked(taught, templates, trained, "typo", spelling=typos),
        _asked(taught, templates, held_out, "last_name", spelling=lasts),
        _asked(taught, templates, reworded, "reworded"),
    ]


def _rewritten(asked: pl.DataFrame, group: str) -> pl.DataFrame:
    return asked.with_columns(question=pl.Series(map(CARELESS[group], asked["question"]), dtype=pl.String))


def _of_shared_last_names(taught: pl.DataFrame, templates: Templates, held_out: Mapping[str, Question]) -> pl.DataFrame:
    """Every last name of several people with a number of the same stat in the same week, asked about in that week."""
    frames: list[pl.DataFrame] = []
    spelling: dict[str, str] = {}
    one_name_each = taught.unique(["season", "week", "stat", "player_id"], keep="first", maintain_order=True)
    for (season, week, stat), rows in one_name_each.group_by("season", "week", "stat", maintain_order=True):
        people = dict(rows.select("player_id", "player").iter_rows())
        bearers = {" and ".join(names): last for last, names in shared_last_names(people).items()}
        spelling |= bearers
        frames.append(_without_fact(list(bearers), int(str(season)), int(str(week)), SHARED, [str(stat)]))
    nobody = _without_fact([], 0, 0, SHARED, [])
    return _asked(pl.concat([nobody, *frames]), templates, held_out, SHARED, spelling=spelling)


def _asked(
    facts: pl.DataFrame,
    templates: Templates,
    questions: Mapping[str, Question],
    group: str,
    *,
    spelling: Mapping[str, str] | None = None,
) -> pl.DataFrame:
    """Every fact once; with `spelling`, those of the people in it alone, with their names written so in the question.

    The answer names people as they were asked about, but for the case.
    """
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
    asked = templates.model_copy(update={"questions": dict(questions)})
    plain = choice.select(FACT_COLUMNS)
    written = plain.with_columns(pl.col("player").replace(spelling or {}))
    said = ["answer", "refusal"]
    answers = qa_pairs((plain if group in IN_LOWER_CASE else written).lazy(), asked).select("fact", "phrasing", *said)
    return (
        qa_pairs(written.lazy(), asked)
        .drop("player", *said)
        .join(answers, on=["fact", "phrasing"])
        .collect()
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
    """Everybody with a number, asked about the week after the newest, about another week of the same season, or about the
    same week of another season, none of which is taught."""
    weeks = {(season, week) for season, week in rows.select("season", "week").unique().iter_rows()}
    season_now, newest = max(weeks, default=(0, LAST_WEEK))
    following = [(season_now, newest + 1)] if newest < LAST_WEEK else []
    seasons = {season for season, _ in weeks}
    places = []
    for player, stat, season, week in taught.select("player", "stat", "season", "week").iter_rows():
        if group == "next_week":
            free = following
        elif group == "unseen_weeks":
            others = ((season, at) for at in range(1, LAST_WEEK + 1))
            free = [place for place in others if place not in weeks and place not in following]
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


def _incomplete(taught: pl.DataFrame) -> pl.DataFrame:
    """Everybody with a number, asked for what no one number answers; others that a question names are drawn among them."""
    people, texts = sorted(taught["player"].unique()), exam_texts(INCOMPLETE_FILE)
    facts = _as_strangers(taught.unique(["player", "stat"], maintain_order=True), INCOMPLETE)
    places = pl.Series([share(f"{INCOMPLETE}/{fact}") for fact in facts["fact"]], dtype=pl.Float64)
    facts = facts.with_columns(place=places).sort("place").head(MOST)
    phrasings, questions = [], []
    for fact, player, stat, week, season in facts.select("fact", "player", "stat", "week", "season").iter_rows():
        text = texts[int(share(f"{INCOMPLETE}/phrasing/{fact}") * len(texts))]
        other = people[int(share(f"{INCOMPLETE}/other/{fact}") * len(people))]
        phrasings.append(text)
        questions.append(fill(text.replace("{other}", other), player, spoken_stat(stat), week, season))
    asked = {"phrasing": pl.Series(phrasings, dtype=pl.String), "question": pl.Series(questions, dtype=pl.String)}
    said = {"answer": pl.lit(OUTSIDE), "refusal": pl.lit(OUTSIDE), "split": pl.lit("test"), "group": pl.lit(INCOMPLETE)}
    asked_once = facts.with_columns(**asked, **said).unique("question", keep="first", maintain_order=True)
    return asked_once.sort("fact").select(*PAIR_COLUMNS, "group")


def _as_strangers(asked: pl.DataFrame, group: str) -> pl.DataFrame:
    week_key = pl.format("{}-W{}", "season", pl.col("week").cast(pl.String).str.zfill(2))
    return asked.with_columns(
        status=pl.lit("stranger"),
        kind=pl.lit("stranger"),
        value=pl.lit(None, pl.Float64),
        fact=pl.concat_str(week_key, pl.lit(group), "player", "stat", separator="/"),
    ).select(FACT_COLUMNS)


def questions_of(store: Store, provenance: Provenance) -> tuple[pl.DataFrame, list[str]]:
    """All questions of an evaluation, those of the splits first and in their order, and what cannot be asked.

    The questions have `group`, and `part` and `turn` of `in_turn`.
    """
    rows = store.read_rows()
    others: dict[NflWeek, Mapping[str, list[str]]] = {}
    notes: list[str] = []
    for week in map(NflWeek.parse, provenance.weeks):
        origin = store.read_raw_origin(week)
        if origin.kind == "folder":
            known_ids = frozenset(rows["player_id"])
            file = Path(origin.origin)
            others[week], lacking = names_beside(file, week, position=origin.position, known_ids=known_ids)
            notes += lacking
        else:
            people = " and ".join(POSITIONS[other].plural for other in strangers_to(origin.position).values())
            notes.append(f"{week}: real {people}, since the week came from no folder")
    more = probe_questions(
        rows,
        load_templates(),
        stats=provenance.stats,
        others=others,
        shared=provenance.shared_names,
    )
    return in_turn(pl.concat([rows.with_columns(of_the_splits()), more])), notes


def in_turn(asked: pl.DataFrame) -> pl.DataFrame:
    """Questions with `part` (the group; `TRAINED` is a part of its own) and `turn` (UInt32, 0 for the first of a part).

    A hash of the question gives the order, so that the first ones are a sample, the same at every evaluation.
    """
    is_trained = (pl.col("group") == KNOWN) & (pl.col("split") == "train")
    draws = pl.Series([share(f"turn/{text}") for text in asked["question"]], dtype=pl.Float64)
    return asked.with_columns(
        part=pl.when(is_trained).then(pl.lit(TRAINED)).otherwise("group"), turn=draws
    ).with_columns(turn=pl.col("turn").rank("ordinal").over("part").cast(pl.UInt32) - 1)


def comes_first(first: int = FIRST) -> pl.Expr:
    """Whether a question of `in_turn` is asked in any case, as are so many of a part, whatever is answered to the others."""
    return (pl.col("part") == TRAINED) | (pl.col("turn") < first)


def asked_of_base(asked: pl.DataFrame, *, most: int = FIRST) -> list[bool]:
    """For each question, whether the base is asked it.

    Every fact of the splits once, its phrasing drawn by a hash; what has no fact in one stat a person; nothing altered. Of
    each group up to `most`, and of those that come first.

    Args:
        asked: of `in_turn`.
        most: of a group, `FIRST` at most.
    """
    phrasings = sorted(load_templates().questions)
    stats = {group: sorted(rows["stat"].unique()) for (group,), rows in asked.group_by("group")}
    rows = asked.select("group", "fact", "player", "stat", "phrasing").iter_rows()
    once = [
        phrasing == _drawn(phrasings, fact)
        if group == KNOWN
        else group in WITHOUT_FACT and stat == _drawn(stats[group], f"{group}/{player}")
        for group, fact, player, stat, phrasing in rows
    ]
    chosen = asked.select(
        "group", "turn", chosen=pl.Series(once, dtype=pl.Boolean) & asked.select(comes_first()).to_series()
    )
    place = pl.when("chosen").then("turn").rank("ordinal").over("group")
    return chosen.select(pl.col("chosen") & (place <= most)).to_series().fill_null(value=False).to_list()


def _drawn(choices: Sequence[str], key: str) -> str:
    return choices[int(share(f"base/{key}") * len(choices))]
