"""Somebody's own facts, from a CSV file to examples: of questions and answers, or of subjects, attributes and values and a
templates file that puts them into words.
"""

import csv
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator

from nfl_lora_pipeline.dataset.people import Split, bearers_of, last_name, last_word, share, strangers
from nfl_lora_pipeline.dataset.qa_pairs import SharedNames
from nfl_lora_pipeline.dataset.templates import Templates, checked_fields, read_yaml
from nfl_lora_pipeline.dataset.unanswerable import Drawn, FreshQuestions, Mixture, Week
from nfl_lora_pipeline.weeks.week import NflWeek


@dataclass(frozen=True)
class Example:
    """A question and the answer to learn.

    Attributes:
        fact: which it is about; the questions of a fact are its wordings, in the same order for all facts.
        teaches: False where the answer is a refusal that a base gives anyway.
        subject: what the fact is about, where others are about the same: a player and a stat, in other weeks.
    """

    question: str
    answer: str
    fact: str
    teaches: bool
    subject: str = ""


HAS_ANSWER = pl.col("answer") != pl.col("refusal")
SUBJECT = pl.concat_str("player_id", "stat", separator="/").alias("subject")


def train_examples(rows: pl.DataFrame) -> list[Example]:
    """The rows of the train split, in their order.

    A refusal teaches where the player has a number or a bye in another week: a base refuses everybody, but what is learnt
    about one week of a player spills over into the others.
    """
    train = rows.filter(pl.col("split") == "train").with_columns(
        teaches=HAS_ANSWER.any().over("season", "player_id", "stat") | HAS_ANSWER
    )
    columns = ("question", "answer", "fact", "teaches", SUBJECT)
    return [Example(*row) for row in train.select(*columns).iter_rows()]


def examples_of(
    rows: pl.DataFrame, templates: Templates, *, last_names: bool, shared: SharedNames = MappingProxyType({})
) -> list[Example]:
    """What is trained on: the rows of the train split, and where that is wanted each fact by the last name alone."""
    return train_examples(rows) + (list(by_last_names(rows, templates, shared=shared)) if last_names else [])


def by_last_names(
    rows: pl.DataFrame, templates: Templates, *, shared: SharedNames = MappingProxyType({})
) -> Iterator[Example]:
    """Each fact of the train split that has an answer, asked about by the last name alone.

    It is asked in one trained wording, which a hash chooses. Where others are called so too, those who are `shared` in a week
    among them, what is to be said is the refusal.
    """
    texts = list(templates.phrasings("train").values())
    held = rows.filter(pl.col("kind") != "stranger")["player"]
    bearers = bearers_of(chain(held, *shared.values()))
    facts = rows.filter(pl.col("split") == "train", HAS_ANSWER).unique("fact", keep="first", maintain_order=True)
    columns = ("fact", SUBJECT, "player", "stat", "season", "week", "answer")
    for fact, subject, player, stat, season, week, answer in facts.select(columns).iter_rows():
        if last := last_name(player):
            text = texts[int(share(f"by_last_name/{fact}") * len(texts))]
            question = templates.question(text, last, stat, week, season)
            is_one = bearers[last_word(last)] == 1
            said = answer.replace(player, last) if is_one else templates.no_record(last, stat, week, season)
            yield Example(question, said, fact, teaches=True, subject=subject)


def fresh_questions(
    rows: pl.DataFrame,
    templates: Templates,
    stats: Sequence[str],
    mixture: Mixture,
    *,
    seed: int,
    shared: SharedNames = MappingProxyType({}),
) -> Iterator[Drawn]:
    """Taught facts in other words, and questions that the rows do not answer; see `unanswerable.FreshQuestions`.

    A name that is `shared` in a week is not asked about there: it has an answer, and more than one.
    """
    known = _weeks_by_name(rows.filter(pl.col("kind") != "stranger"))
    for key, names in shared.items():
        week = NflWeek.parse(key)
        for name in names:
            known[name] = known.get(name, frozenset()) | {(week.season, week.week)}
    return FreshQuestions(known, _told(rows), stats, templates, mixture).draw(seed=seed)


def _told(rows: pl.DataFrame) -> dict[str, dict[tuple[Week, str], str]]:
    """The answers that tell something, by name, and by (season, week) and stat."""
    told: dict[str, dict[tuple[Week, str], str]] = {}
    facts = rows.filter(pl.col("split") == "train", HAS_ANSWER).unique("fact").sort("fact")
    for player, season, week, stat, answer in facts.select("player", "season", "week", "stat", "answer").iter_rows():
        told.setdefault(player, {})[(season, week), stat] = answer
    return told


def _weeks_by_name(rows: pl.DataFrame) -> dict[str, frozenset[Week]]:
    """The (season, week) pairs that each name has a row in."""
    weeks = rows.select("player", week=pl.concat_list("season", "week")).group_by("player").agg("week")
    return {player: frozenset((season, week) for season, week in pairs) for player, pairs in weeks.iter_rows()}


PAIRS, TRIPLES = ("question", "answer"), ("subject", "attribute", "value")
ASKED, VALUE = frozenset(TRIPLES[:2]), frozenset(TRIPLES[2:])
CROSSED_SHARE = 0.5  # this share of the unknown subjects is put together from two known ones
Row = tuple[int, tuple[str, ...]]  # the number of the line that the row begins in, and its cells


class FactTemplates(BaseModel):
    """How facts are asked and answered; each key is a text with fields in braces.

    Attributes:
        questions: one or more, of {subject} and {attribute}; every fact is taught in all of them.
        answer: of {subject}, {attribute} and {value}.
        refusal: of {subject} and {attribute}; what is to be said of a subject that is not known. Empty for nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    questions: list[str] = Field(min_length=1)
    answer: str
    refusal: str = ""

    @field_validator("questions")
    @classmethod
    def _questions_name_their_fact(cls, texts: list[str]) -> list[str]:
        for text in texts:
            checked_fields(text, allowed=ASKED, needed=ASKED)
        return texts

    @field_validator("answer")
    @classmethod
    def _an_answer_gives_the_value(cls, text: str) -> str:
        checked_fields(text, allowed=ASKED | VALUE, needed=VALUE)
        return text

    @field_validator("refusal")
    @classmethod
    def _a_refusal_gives_none(cls, text: str) -> str:
        checked_fields(text, allowed=ASKED, needed=frozenset())
        return text


@dataclass(frozen=True)
class OwnExamples:
    """What a file holds.

    Attributes:
        examples: in the file's order; all phrasings of a fact behind each other.
        known: the subjects, each once, and the attributes; empty for a file of questions and answers.
        templates: None for such a file.
    """

    examples: list[Example]
    known: tuple[list[str], list[str]]
    templates: FactTemplates | None

    def unanswerable(self, *, seed: int, held_out: bool = False) -> Iterator[tuple[str, str]] | None:
        """Questions about subjects that nobody knows, and the refusal, without end; None where there are no words for it.

        Half of the subjects are put together from the words of two known ones, the others are people's names that are made
        up. Those that are `held_out` are never among the others.
        """
        if self.templates is None or not self.templates.refusal:
            return None
        return self._drawn(self.templates, random.Random(seed), "test" if held_out else "train")

    def _drawn(self, templates: FactTemplates, rng: random.Random, split: Split) -> Iterator[tuple[str, str]]:
        subjects, attributes = self.known
        people = strangers(split, seed=rng.randrange(1 << 30), known=frozenset(subjects))
        while True:
            subject = next(people)
            if split == "train" and rng.random() < CROSSED_SHARE:
                first_words, last_words = rng.choice(subjects).split()[:1], rng.choice(subjects).split()[1:]
                mixture = " ".join(first_words + last_words)
                subject = mixture if last_words and mixture not in subjects else subject
            fields = {"subject": subject, "attribute": rng.choice(attributes)}
            yield rng.choice(templates.questions).format(**fields), templates.refusal.format(**fields)


def read_examples(file: Path, templates_file: Path | None = None) -> OwnExamples:
    """Read a CSV file in UTF-8 with a header: `question,answer`, or `subject,attribute,value` with a templates file.

    Args:
        file: the facts; a cell may stand in quotes.
        templates_file: YAML, see `FactTemplates`.

    Raises:
        OSError: a file cannot be read.
        ValueError: it is not such a file, or a cell is blank, or a row is there twice, or two rows contradict each other; names
            file and line, and what to do.
    """
    columns, rows = _rows(file)
    if columns == TRIPLES and templates_file is None:
        raise ValueError(f"{file}: subject, attribute and value need words: name a templates file (--templates)")
    if columns == PAIRS and templates_file is not None:
        raise ValueError(f"{file}: questions and answers need no templates file: leave {templates_file} out")
    _refuse_doubles(file, rows)
    if templates_file is None:
        pairs = [Example(question, answer, fact=question, teaches=True) for _, (question, answer) in rows]
        return OwnExamples(pairs, ([], []), None)
    templates = read_yaml(templates_file, FactTemplates)
    examples = [
        Example(_filled(text, cells), _filled(templates.answer, cells), f"{cells[0]}: {cells[1]}", teaches=True)
        for _, cells in rows
        for text in templates.questions
    ]
    known = tuple(list(dict.fromkeys(cells[at] for _, cells in rows)) for at in (0, 1))
    return OwnExamples(examples, (known[0], known[1]), templates)


def _rows(file: Path) -> tuple[tuple[str, ...], list[Row]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            columns, rows = tuple(cell.strip().lower() for cell in next(reader, [])), []
            if columns not in (PAIRS, TRIPLES):
                names = ", ".join(columns) or "nothing"
                raise ValueError(
                    f"{file}, line 1: expected the columns {' and '.join(PAIRS)}, or {', '.join(TRIPLES)}; found {names}"
                )
            line = reader.line_num + 1
            for cells in reader:
                if cells:
                    rows.append((line, _cells(file, line, cells, columns)))
                line = reader.line_num + 1
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not CSV in UTF-8: {error}") from error
    if not rows:
        raise ValueError(f"{file}: no rows under the header")
    return columns, rows


def _cells(file: Path, line: int, cells: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    if len(cells) != len(columns):
        raise ValueError(
            f"{file}, line {line}: {len(cells)} cells for the columns {', '.join(columns)}; put a cell with a comma in quotes"
        )
    texts = tuple(" ".join(cell.split()) for cell in cells)
    if blank := [column for column, cell in zip(columns, texts, strict=True) if not cell]:
        raise ValueError(f"{file}, line {line}: {blank[0]} is blank; fill it in or delete the row")
    return texts


def _refuse_doubles(file: Path, rows: Sequence[Row]) -> None:
    first_rows: dict[tuple[str, ...], Row] = {}
    for line, cells in rows:
        key = tuple(cell.casefold() for cell in cells[:-1])
        line_before, cells_before = first_rows.setdefault(key, (line, cells))
        if line_before == line:
            continue
        what, answer, answer_before = " ".join(cells[:-1]), cells[-1], cells_before[-1]
        if answer == answer_before:
            raise ValueError(f"{file}, line {line}: {what!r} stands in line {line_before} already; delete one of them")
        raise ValueError(
            f"{file}, line {line}: {what!r} is {answer!r} here and {answer_before!r} in line {line_before}; "
            "a question has one answer: correct or delete one of them"
        )


def _filled(text: str, cells: Sequence[str]) -> str:
    fields: Mapping[str, str] = dict(zip(TRIPLES, cells, strict=True))
    return text.format(**fields)
