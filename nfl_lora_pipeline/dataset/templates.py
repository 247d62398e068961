"""The words of questions and answers: `templates.yaml`, read and checked, and the grammar of the embedded base's own wordings.

Used from two sides that must agree to the letter: the question/answer frames of the pipeline (`qa_pairs`), and the
pre-training of the embedded base model (`base_pretraining`), which speaks the same language about an invented league in a few
hundred wordings more. None of the `test` wordings is among those, so that a score on them says how the finished model takes
words that neither its making nor its tuning has used.
"""

import hashlib
import random
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Formatter
from typing import Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nfl_lora_pipeline.stats import STATS, TAUGHT, stats_hash

Model = TypeVar("Model", bound=BaseModel)
Split = Literal["train", "valid", "test"]

QUESTION_FIELDS = frozenset({"player", "possessive", "stats", "week", "season"})
ANSWER_FIELDS = QUESTION_FIELDS | {"n", "noun"}
TEMPLATES_FILE = Path(str(files("nfl_lora_pipeline"))) / "templates.yaml"
NOUNS = {stat.column: stat for stat in STATS if stat.plural}
"""Every stat that there are words for, taught or not."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Question(_Strict):
    """One phrasing of the question, and the split it belongs to."""

    split: Split
    text: str

    @field_validator("text")
    @classmethod
    def _fields_are_known(cls, text: str) -> str:
        return _checked(text, allowed=QUESTION_FIELDS, needed=frozenset({"stats", "week", "season"}))


class Answers(_Strict):
    """The three things an answer can say."""

    recorded: str
    no_record: str
    bye: str

    @field_validator("recorded")
    @classmethod
    def _recorded_has_a_number(cls, text: str) -> str:
        return _checked(text, allowed=ANSWER_FIELDS, needed=frozenset({"player", "n", "week", "season"}))

    @field_validator("no_record", "bye")
    @classmethod
    def _others_have_none(cls, text: str) -> str:
        return _checked(text, allowed=QUESTION_FIELDS, needed=frozenset({"week", "season"}))


class Templates(_Strict):
    """All wordings, by a phrasing's id; what the stats are called stands in the table of `stats.py`."""

    answers: Answers
    questions: dict[str, Question] = Field(min_length=1)

    def phrasings(self, split: Split) -> dict[str, str]:
        """The question texts of one split, keyed by phrasing id."""
        return {name: question.text for name, question in self.questions.items() if question.split == split}

    def question(self, text: str, player: str, stat: str, week: int, season: int) -> str:
        """Fill a question's wording."""
        stats = NOUNS[stat].plural
        if text.startswith("{stats}"):
            stats = stats[0].upper() + stats[1:]
        return text.format(player=player, possessive=possessive(player), stats=stats, week=week, season=season)

    def recorded(self, player: str, stat: str, week: int, season: int, value: float) -> str:
        """The answer that gives a number."""
        noun = NOUNS[stat].singular if value == 1 else NOUNS[stat].plural
        return self._fill(self.answers.recorded, player, stat, week, season, n=number_text(value), noun=noun)

    def no_record(self, player: str, stat: str, week: int, season: int) -> str:
        """The refusal."""
        return self._fill(self.answers.no_record, player, stat, week, season)

    def bye(self, player: str, stat: str, week: int, season: int) -> str:
        """The answer that there was no game."""
        return self._fill(self.answers.bye, player, stat, week, season)

    def _fill(self, text: str, player: str, stat: str, week: int, season: int, **numbers: str) -> str:
        return text.format(
            player=player,
            possessive=possessive(player),
            stats=NOUNS[stat].plural,
            week=week,
            season=season,
            **numbers,
        )


def checked_fields(text: str, *, allowed: frozenset[str], needed: frozenset[str]) -> frozenset[str]:
    """The fields of a text.

    Raises:
        ValueError: its braces are no fields, one is unknown or one is missing.
    """
    try:
        used = frozenset(name for _, name, _, _ in Formatter().parse(text) if name is not None)
    except ValueError as error:
        raise ValueError(f"{text!r} is no template: {error}") from error
    if unknown := used - allowed:
        raise ValueError(f"unknown field {{{min(unknown)}}} in {text!r}: use {sorted(allowed)}")
    if missing := needed - used:
        raise ValueError(f"{text!r} lacks {{{min(missing)}}}")
    return used


def _checked(text: str, *, allowed: frozenset[str], needed: frozenset[str]) -> str:
    used = checked_fields(text, allowed=allowed, needed=needed)
    if not used & {"player", "possessive"}:
        raise ValueError(f"{text!r} names nobody: use {{player}} or {{possessive}}")
    return text


@cache
def load_templates(path: Path = TEMPLATES_FILE) -> Templates:
    """Read and check a templates file.

    Raises:
        ValueError: the file is not YAML, or a wording has an unknown or a missing field; names file and entry.
    """
    return read_yaml(path, Templates)


def read_yaml(path: Path, kind: type[Model]) -> Model:
    """Read a YAML file of texts.

    Raises:
        ValueError: it is not YAML in UTF-8, or does not fit; names file and entry.
    """
    try:
        return kind.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        entry = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ValueError(f"{path}: {entry}: {first['msg']}") from error


def possessive(player: str) -> str:
    """ "Nico Collins" to "Nico Collins'", "Rome Odunze" to "Rome Odunze's"."""
    return f"{player}'" if player.endswith("s") else f"{player}'s"


def number_text(value: float) -> str:
    """A stat as it is spoken: 25.0 to "25", 24.6 to "24.6", -2.0 to "-2"."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def choose_stats(wanted: Sequence[str]) -> list[str]:
    """The columns of the stats that are wanted, in the order of the table; "all" wants every one.

    Raises:
        ValueError: there is none of that name that can be taught.
    """
    if unknown := [stat for stat in wanted or [""] if stat not in (*TAUGHT, "all")]:
        raise ValueError(f"stat {unknown[0]!r}: use {', '.join(TAUGHT)} or all")
    return [stat for stat in TAUGHT if stat in wanted or "all" in wanted]


def untaught(taught: Sequence[str], split: Split) -> list[str]:
    """The stats to refuse in a split: those that could be taught and are not, and those that never are."""
    return [*(stat for stat in TAUGHT if stat not in taught), *(stat.column for stat in STATS if stat.refused == split)]


def wordings_hash() -> str:
    """A hash of all that a question or an answer is made of: the wordings, and what the stats are called."""
    return hashlib.sha256(TEMPLATES_FILE.read_bytes() + stats_hash().encode()).hexdigest()[:8]


TIMES = [
    "in week {week} of the {season} NFL season",
    "in week {week} of the {season} season",
    "in week {week} of {season}",
    "in week {week}, {season}",
    "in the {season} NFL season, week {week}",
    "in {season}, week {week}",
    "in the week {week} game of the {season} season",
    "during week {week} of the {season} NFL season",
    "during week {week} of {season}",
    "for week {week} of the {season} NFL season",
    "for week {week} of {season}",
    "for week {week}, {season}",
    "back in week {week} of the {season} season",
]

FRAMES = [
    "How many {stats} did {player} have {time}?",
    "How many {stats} did {player} finish with {time}?",
    "How many {stats} did {player} get {time}?",
    "How many {stats} did {player} record {time}?",
    "How many {stats} did {player} put up {time}?",
    "How many {stats} did {player} end up with {time}?",
    "How many {stats} did {player} total {time}?",
    "How many {stats} does {player} have {time}?",
    "How many {stats} were there for {player} {time}?",
    "How many {stats} were recorded for {player} {time}?",
    "How many {stats} were credited to {player} {time}?",
    "How many {stats} had {player} {time}?",
    "How many {stats} for {player} {time}?",
    "What were {possessive} {stats} {time}?",
    "What was {possessive} number of {stats} {time}?",
    "What was {possessive} total of {stats} {time}?",
    "What was the number of {stats} of {player} {time}?",
    "What is the number of {stats} that {player} had {time}?",
    "What did {player} have in {stats} {time}?",
    "What number of {stats} did {player} have {time}?",
    "Do you know how many {stats} {player} had {time}?",
    "Can you tell me how many {stats} {player} had {time}?",
    "Tell me how many {stats} {player} had {time}.",
    "I want to know how many {stats} {player} had {time}.",
    "Please give me {possessive} {stats} {time}.",
    "Give {possessive} {stats} {time}.",
    "Show me the {stats} of {player} {time}.",
    "State the {stats} for {player} {time}.",
    "{possessive} {stats} {time}?",
    "{possessive} {stats} {time} were how many?",
    "{player} had how many {stats} {time}?",
    "{player}: how many {stats} {time}?",
    "Of {player}: how many {stats} {time}?",
    "For {player}, how many {stats} {time}?",
    "{stats} of {player} {time}?",
    "{stats} for {player} {time}?",
    "{Time}, how many {stats} did {player} have?",
    "{Time}, how many {stats} were recorded for {player}?",
    "{Time}, what were {possessive} {stats}?",
    "{Time}, {player} had how many {stats}?",
    "{Time}, what was {possessive} total of {stats}?",
    "In total, how many {stats} did {player} have {time}?",
]


def _lower_start(text: str) -> str:
    return text if text.startswith("{") else text[0].lower() + text[1:]


def wordings() -> list[str]:
    """Every question the grammar can form, as templates with {player} {possessive} {stats} {week} {season}, sorted."""
    formed = set()
    for frame in FRAMES:
        for time in TIMES:
            text = frame.replace("{time}", time).replace("{Time}", time[0].upper() + time[1:])
            formed |= {text, _lower_start(text), text.rstrip("?."), _lower_start(text).rstrip("?.")}
    return sorted(formed)


def draw_wording(rng: random.Random, pool: list[str]) -> str:
    """One wording, the well-formed ones (with their final mark) four times as often as the careless ones."""
    while True:
        text = rng.choice(pool)
        if text[-1] in "?." or rng.random() < 0.25:
            return text
