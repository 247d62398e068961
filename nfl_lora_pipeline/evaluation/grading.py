"""What an answer says, whom it is about, and whether it is right. Works on text, whoever wrote it."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby

import polars as pl

from nfl_lora_pipeline.dataset.templates import load_templates, number_in, numbers_in
from nfl_lora_pipeline.evaluation.probes import ALTERED, INCOMPLETE
from nfl_lora_pipeline.weeks.names import SUFFIXES, as_typed

ALIKE = 0.7  # how much of two words must agree for one to be the other misspelt
_TOKEN = re.compile(r"[^\W\d_][\w.'\u2019-]*|\S")
_BEGINNERS = frozenset(
    """a according after against as at because but during for from he her his however i in it its based my nfl no of on
    season she sorry sure that the their there they this unfortunately week weeks yes you""".split()
)


@dataclass(frozen=True)
class Names:
    """People who might be meant: full names and last names as `name_words` has them, for quick looking up."""

    full: frozenset[tuple[str, ...]]
    last: frozenset[str]

    @classmethod
    def of(cls, names: Iterable[str]) -> "Names":
        """All these people."""
        full = {words for words in map(name_words, names) if words}
        return cls(frozenset(full), frozenset(words[-1] for words in full))


NOBODY = Names(frozenset(), frozenset())


def name_words(name: str) -> tuple[str, ...]:
    """A name's words for comparing: "Marvin Harrison Jr." to ("marvin", "harrison")."""
    return tuple(word for word in map(_plain, name.split()) if word not in SUFFIXES)


def is_about(answer: str, player: str, known: Names = NOBODY) -> bool:
    """Whether an answer is about a player, or names nobody.

    A misspelt name is still his, and so is his last name alone. Two or more capitalised words that are not his name are
    taken for somebody else's, as is one that is the last name of somebody known.

    Args:
        answer: the model's words.
        player: who was asked about.
        known: everybody else who might be named.
    """
    mine, tokens = name_words(player), _TOKEN.findall(answer)
    words = tuple(map(_plain, tokens))
    if _stands_in(words, mine):
        return True
    if any(words[at : at + length] in known.full for length in (2, 3, 4) for at in range(len(words) - length + 1)):
        return False
    for capital, group in groupby(tokens, key=lambda token: token[0].isupper()):
        run = (
            [word for word in map(_plain, group) if word not in _BEGINNERS and word not in SUFFIXES] if capital else []
        )
        if len(run) > 1 and not all(any(_alike(word, own) for word in run) for own in mine):
            return False
        if len(run) == 1 and run[0] in known.last and not any(_alike(run[0], own) for own in mine):
            return False
    return True


def name_words_right(answer: str, name: str) -> int:
    """How many words of a name stand in an answer, in their order and next to each other, at the best place for it."""
    words, tokens = [_plain(word) for word in name.split()], [_plain(token) for token in _TOKEN.findall(answer)]
    places = range(1 - len(words), len(tokens))
    return max((sum(_at(tokens, place + i) == word for i, word in enumerate(words)) for place in places), default=0)


def _plain(word: str) -> str:
    word = as_typed(word).casefold().replace(".", "")
    return word.removesuffix("'s").rstrip("'")


def _at(words: list[str], place: int) -> str | None:
    return words[place] if 0 <= place < len(words) else None


def _stands_in(words: tuple[str, ...], name: tuple[str, ...]) -> bool:
    return any(words[at : at + len(name)] == name for at in range(len(words) - len(name) + 1))


def _alike(one: str, other: str) -> bool:
    return one == other or SequenceMatcher(None, one, other, autojunk=False).ratio() >= ALIKE


_REFUSALS = re.compile(
    r"\bno recorded\b|\bno record\b|\bnothing (?:is |was )?(?:recorded|on record)\b"
    r"|\bnot sure\b|\b(?:do not|don't|doesn't|does not|cannot|can't|could not|couldn't|unable)\b"
    r"|\bno (?:data|information|knowledge|statistics|access)\b|(?:\bnot|n't) (?:available|aware|known|recorded|able)\b"
    r"|\bcan only be asked\b|\bknowledge cut-?off\b|\blast (?:knowledge |training )?update\b"
    r"|\bhas(?:n't| not) (?:yet )?(?:been|happened|occurred|taken place|started)\b",
    re.IGNORECASE,
)


def is_right_number(answer: str, value: float, player: str, known: Names = NOBODY) -> bool:
    """Whether an answer gives this number and no other, of this player or without saying of whom.

    Args:
        answer: the model's words.
        value: the right number.
        player: whose it is.
        known: everybody who might be meant instead.
    """
    number = number_in(answer)
    return number is not None and math.isclose(number, value, abs_tol=0.005) and is_about(answer, player, known)


def is_refusal(answer: str) -> bool:
    """Whether an answer says that nothing is known or recorded, and gives no number."""
    return bool(_REFUSALS.search(answer.replace("\u2019", "'"))) and not numbers_in(answer)


def exact_or_refused(predictions: pl.DataFrame) -> pl.Series:
    """Whether each answer is the reference answer to the letter, or of a stranger a refusal in any words (`refusals`).

    Args:
        predictions: `group`, `kind`, `answer` and `tuned`, one row a question.
    """
    is_exact = predictions["tuned"].str.strip_chars() == predictions["answer"]
    return (is_exact | ((predictions["kind"] == "stranger") & refusals(predictions, "tuned"))).alias("right")


def with_verdict(predictions: pl.DataFrame) -> pl.DataFrame:
    """Predictions with four verdicts on the tuned model's answers.

    Args:
        predictions: `group`, `kind`, `player_id`, `player`, `value`, `answer` and `tuned`, one row a question.

    Returns:
        Them, with Boolean `right` (`exact_or_refused`; of a fact in altered words, the right number), `number_right`
        (the right number and no other, about the right player or without a name; null where no number is right),
        `refused`, and `invented` (a number is given where there is none to give; null where there is one).
    """
    return predictions.with_columns(
        exact_or_refused(predictions),
        number_right(predictions, "tuned"),
        refusals(predictions, "tuned"),
        inventions(predictions, "tuned"),
    ).with_columns(right=pl.when(pl.col("group").is_in(ALTERED)).then("number_right").otherwise("right"))


def number_right(predictions: pl.DataFrame, column: str) -> pl.Series:
    """Whether each answer in `column` gives the fact's number and no other; null where there is none, or no answer.

    A person may be named in any of the ways that the questions have for the same id.
    """
    known = Names.of(predictions["player"].unique())
    names = dict(
        predictions.filter(pl.col("player_id") != "").group_by("player_id").agg(pl.col("player").unique()).iter_rows()
    )
    rows = predictions.select("player_id", "player", "value", "answer", column).iter_rows()
    verdicts = [
        None
        if value is None or answer is None
        else answer == reference
        or any(is_right_number(answer, value, name, known) for name in names.get(person, [player]))
        for person, player, value, reference, answer in rows
    ]
    return pl.Series("number_right", verdicts, dtype=pl.Boolean)


def refusals(predictions: pl.DataFrame, column: str) -> pl.Series:
    """Whether each answer in `column` is a refusal in any words; null where there is none.

    The refusal of one week is none of a question that is not about one: that a career is "not recorded in week 19" is wrong.
    """
    of_one_week = load_templates().answers.no_record.partition("{")[0]
    verdicts = [
        None if answer is None else is_refusal(answer) and not (group == INCOMPLETE and answer.startswith(of_one_week))
        for group, answer in predictions.select("group", column).iter_rows()
    ]
    return pl.Series("refused", verdicts, dtype=pl.Boolean)


def inventions(predictions: pl.DataFrame, column: str) -> pl.Series:
    """Whether each answer in `column` gives a number though there is none; null where there is one, or no answer."""
    rows = predictions.select("value", column).iter_rows()
    verdicts = [None if value is not None or answer is None else bool(numbers_in(answer)) for value, answer in rows]
    return pl.Series("invented", verdicts, dtype=pl.Boolean)
