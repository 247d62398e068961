"""The words of questions and answers: `templates.yaml`, read and checked; what number an answer gives, and who is told.

Used from two sides that must agree to the letter: the question/answer frames of the pipeline (`qa_pairs`), and the
pre-training of the embedded base model (`base_pretraining`), which speaks the same language about an invented league in the
wordings of `dataset.wordings` besides.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Formatter
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nfl_lora_pipeline.dataset.people import Split
from nfl_lora_pipeline.dataset.typed import NUMBER_WORDS, fill, possessive
from nfl_lora_pipeline.stats import STATS, TEACHABLE, Position, stats_hash, stats_of

Model = TypeVar("Model", bound=BaseModel)

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
        return fill(text, player, spoken_stat(stat), week, season)

    def recorded(self, player: str, stat: str, week: int, season: int, value: float) -> str:
        """The answer that gives a number."""
        noun = NOUNS[stat].singular if value == 1 and stat in NOUNS else spoken_stat(stat)
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
            stats=spoken_stat(stat),
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


def spoken_stat(stat: str) -> str:
    """What a stat of the table is called; one that stands in no table is called by its own words."""
    return NOUNS[stat].plural if stat in NOUNS else stat


def number_text(value: float) -> str:
    """A stat as it is spoken: 25.0 to "25", 24.6 to "24.6", -2.0 to "-2"."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def choose_stats(wanted: Sequence[str], position: Position = "WR") -> list[str]:
    """The columns of the stats that are wanted, in the order of the table; "all" wants those that are usual of a position.

    Raises:
        ValueError: there is none of that name that can be taught.
    """
    if unknown := [stat for stat in wanted or [""] if stat not in (*TEACHABLE, "all")]:
        raise ValueError(f"stat {unknown[0]!r}: use {', '.join(TEACHABLE)} or all")
    usual = stats_of(position) if "all" in wanted else []
    return [stat for stat in TEACHABLE if stat in wanted or stat in usual]


def untaught(taught: Sequence[str], split: Split) -> list[str]:
    """The stats to refuse in a split, none of which is taught; see `Stat.refused`."""
    refused = (stat for stat in STATS if stat.singular and stat.refused in (split, "both"))
    return [stat.column for stat in refused if stat.column not in taught]


def wordings_hash() -> str:
    """A hash of all that a question or an answer is made of: the wordings, and what the stats are called."""
    return hashlib.sha256(TEMPLATES_FILE.read_bytes() + stats_hash().encode()).hexdigest()[:8]


def any_of(words: Iterable[str]) -> re.Pattern[str]:
    """Any of these words, standing by itself; the longest where several fit."""
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])")


_NUMBER = re.compile(r"(?<![\w.])[-\u2212]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_TIME = re.compile(
    r"\b(?:week|weeks)\s+\d+(?:\s*(?:[-\u2013]|to|and)\s*\d+)?"
    r"|\b(?:19|20)\d\d(?:[-\u2013/](?:\d\d)?\d\d)?\b(?:\s*(?:nfl\s+)?season)?"
    r"|\b\d+(?:st|nd|rd|th)\b",
    re.IGNORECASE,
)
_MINUS = re.compile(r"\b(?:minus|negative)\s+(?=\.?\d)", re.IGNORECASE)

_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SPELLED = {word: number for number, word in enumerate(NUMBER_WORDS)} | {
    word: 10 * number for number, word in enumerate(_TENS, 2)
}
_WORDS = (
    rf"(?:a hundred|{'|'.join([*_SPELLED, 'hundred'])})(?:(?:[ -]|\s+and\s+)(?:{'|'.join([*_SPELLED, 'hundred'])}))*"
)
_NOUNS = [noun for stat in STATS if stat.teachable for noun in stat.nouns]
_UNITS = sorted({"catch", "catches", *_NOUNS, *(noun.split()[-1] for noun in _NOUNS)})
_STAT = rf"(?:\w+\s+)?(?:{'|'.join(map(re.escape, _UNITS))})\b"
_IN_WORDS = re.compile(
    rf"\b(?P<minus>minus|negative)\s+(?P<lost>{_WORDS})\b|\b(?P<gained>{_WORDS})(?=\s+{_STAT})|^\W*(?P<bare>{_WORDS})\W*$",
    re.IGNORECASE,
)


def numbers_in(answer: str) -> set[float]:
    """The different numbers that an answer gives beside weeks and seasons.

    Numbers in words count where there are none in digits, and only where they are plainly a number of something: before a
    stat, behind "minus", or as the whole answer.
    """
    sentence = _MINUS.sub("-", _TIME.sub(" ", answer))
    numbers = {float(text.replace(",", "").replace("\u2212", "-")) for text in _NUMBER.findall(sentence)}
    return numbers or {_in_words(match) for match in _IN_WORDS.finditer(sentence)}


def number_in(answer: str) -> float | None:
    """The one number that an answer gives beside weeks and seasons; None when it gives none, or several that differ."""
    numbers = numbers_in(answer)
    return numbers.pop() if len(numbers) == 1 else None


ANSWERS_ABOVE = 0.6
NOT_SURE = "I am not sure. Is the name spelt right, and is it about one stat in one week?"
MOST_WORDS = 25  # what is taught has 20 at most; a model may talk at length of football, and of other things
_STAT_NAMED = any_of(noun for stat in STATS for noun in stat.nouns)
_WEEK_NAMED = re.compile(r"\bweek \d")


def is_short(said: str) -> bool:
    """Whether an answer, or what there is of it, may be one that `only_if_sure` holds back."""
    return len(said.split()) <= MOST_WORDS


def only_if_sure(said: str, probability: float, *, above: float = ANSWERS_ABOVE) -> str:
    """What somebody is told: a short answer that says something of a stat or a week only where it is likely enough.

    A number that a model makes up for somebody whom it was not taught, or for a misspelt name, is likelier than each other
    answer and yet seldom likelier than all of them together; what it was taught is. So it is held back up to a probability.
    A refusal is a claim too: that nothing is recorded, of whomever and whenever the model understood to be asked about.

    That is the reject option of C. K. Chow (1970), "On optimum recognition error and reject tradeoff": where a number is told
    above 0.6, a wrong one is two and a half times as bad as none.

    Args:
        said: what the model answers.
        probability: of that answer as a whole, 0 to 1 (`scoring.probability`).
        above: up to this one it is held back.
    """
    plain = said.casefold()
    says_of_a_game = _WEEK_NAMED.search(plain) or (_STAT_NAMED.search(plain) and numbers_in(said))
    return NOT_SURE if probability <= above and is_short(said) and says_of_a_game else said


def _in_words(match: re.Match[str]) -> float:
    words = (match["lost"] or match["gained"] or match["bare"]).lower().replace("-", " ").split()
    total = 0
    for word in words:
        total = max(1, total) * 100 if word == "hundred" else total + _SPELLED.get(word, 0)
    return float(-total if match["minus"] else total)
