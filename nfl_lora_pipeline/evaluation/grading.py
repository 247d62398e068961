"""What an answer says, whom it is about, whether it is right, and whether anybody is told. Works on text, whoever wrote it."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby

import polars as pl

from nfl_lora_pipeline.evaluation.probes import ALTERED
from nfl_lora_pipeline.stats import STATS
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


_NUMBER = re.compile(r"(?<![\w.])[-\u2212]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_TIME = re.compile(
    r"\b(?:week|weeks)\s+\d+(?:\s*(?:[-\u2013]|to|and)\s*\d+)?"
    r"|\b(?:19|20)\d\d(?:[-\u2013/](?:\d\d)?\d\d)?\b(?:\s*(?:nfl\s+)?season)?"
    r"|\b\d+(?:st|nd|rd|th)\b",
    re.IGNORECASE,
)
_MINUS = re.compile(r"\b(?:minus|negative)\s+(?=\.?\d)", re.IGNORECASE)
_REFUSALS = re.compile(
    r"\bno recorded\b|\bno record\b|\bnothing (?:is |was )?(?:recorded|on record)\b"
    r"|\bnot sure\b|\b(?:do not|don't|doesn't|does not|cannot|can't|could not|couldn't|unable)\b"
    r"|\bno (?:data|information|knowledge|statistics|access)\b|(?:\bnot|n't) (?:available|aware|known|recorded|able)\b"
    r"|\bknowledge cut-?off\b|\blast (?:knowledge |training )?update\b"
    r"|\bhas(?:n't| not) (?:yet )?(?:been|happened|occurred|taken place|started)\b",
    re.IGNORECASE,
)
_NO_GAME = re.compile(r"\bno game\b|\bon (?:a |their |its )?bye\b|\bbye week\b", re.IGNORECASE)

_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen""".split()
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SPELLED = {word: number for number, word in enumerate(_ONES)} | {
    word: 10 * number for number, word in enumerate(_TENS, 2)
}
_WORDS = (
    rf"(?:a hundred|{'|'.join([*_SPELLED, 'hundred'])})(?:(?:[ -]|\s+and\s+)(?:{'|'.join([*_SPELLED, 'hundred'])}))*"
)
_NOUNS = [noun for stat in STATS if stat.taught for noun in stat.nouns]
_UNITS = sorted({"catch", "catches", *_NOUNS, *(noun.split()[-1] for noun in _NOUNS)})
_STAT = rf"(?:\w+\s+)?(?:{'|'.join(map(re.escape, _UNITS))})\b"
_IN_WORDS = re.compile(
    rf"\b(?P<minus>minus|negative)\s+(?P<lost>{_WORDS})\b|\b(?P<gained>{_WORDS})(?=\s+{_STAT})|^\W*(?P<bare>{_WORDS})\W*$",
    re.IGNORECASE,
)


def exact(answer: str, expected: str) -> bool:
    """Whether an answer is the reference answer, to the letter but for surrounding blanks."""
    return answer.strip() == expected.strip()


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


def is_no_game(answer: str) -> bool:
    """Whether an answer says that the team had no game."""
    return bool(_NO_GAME.search(answer)) and not numbers_in(answer)


ANSWERS_ABOVE = 0.5
NOT_SURE = "I am not sure of that number. Is the name spelt right?"
MOST_WORDS = 25  # what is taught has 20 at most; a model may talk at length of football, and of other things
_OF_A_GAME = re.compile(
    rf"\bweek \d|\b(?:{'|'.join(re.escape(noun) for stat in STATS for noun in stat.nouns)})\b", re.IGNORECASE
)


def is_short(said: str) -> bool:
    """Whether an answer, or what there is of it, may be one that `only_if_sure` holds back."""
    return len(said.split()) <= MOST_WORDS


def only_if_sure(said: str, probability: float, *, above: float = ANSWERS_ABOVE) -> str:
    """What somebody is told: a short answer that gives a number of a stat or a week only where it is likelier than all else.

    A number that a model makes up for somebody whom it was not taught, or for a misspelt name, is likelier than each other
    answer and yet seldom likelier than all of them together; what it was taught is. So it is held back up to a probability
    of one half, which nobody tuned: above it no other answer can be as likely. It is the reject option of C. K. Chow (1970),
    "On optimum recognition error and reject tradeoff", for somebody to whom a wrong number is twice as bad as none.

    Args:
        said: what the model answers.
        probability: of that answer as a whole, 0 to 1 (`scoring.probability`).
        above: up to this one it is held back.
    """
    is_held_back = probability <= above and is_short(said) and _OF_A_GAME.search(said) and numbers_in(said)
    return NOT_SURE if is_held_back else said


def _in_words(match: re.Match[str]) -> float:
    words = (match["lost"] or match["gained"] or match["bare"]).lower().replace("-", " ").split()
    total = 0
    for word in words:
        total = max(1, total) * 100 if word == "hundred" else total + _SPELLED.get(word, 0)
    return float(-total if match["minus"] else total)


def exact_or_refused(predictions: pl.DataFrame) -> pl.Series:
    """Whether each answer is the reference answer to the letter, or of a stranger a refusal in any words.

    Args:
        predictions: `kind`, `answer` and `tuned`, one row a question.
    """
    exact = predictions["tuned"].str.strip_chars() == predictions["answer"]
    stranger = predictions["kind"] == "stranger"
    right = [
        is_exact or (is_stranger and is_refusal(answer))
        for is_exact, is_stranger, answer in zip(exact, stranger, predictions["tuned"], strict=True)
    ]
    return pl.Series("right", right, dtype=pl.Boolean)


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
    """Whether each answer in `column` is a refusal in any words; null where there is none."""
    verdicts = [None if answer is None else is_refusal(answer) for answer in predictions[column]]
    return pl.Series("refused", verdicts, dtype=pl.Boolean)


def inventions(predictions: pl.DataFrame, column: str) -> pl.Series:
    """Whether each answer in `column` gives a number though there is none; null where there is one, or no answer."""
    rows = predictions.select("value", column).iter_rows()
    verdicts = [None if value is not None or answer is None else bool(numbers_in(answer)) for value, answer in rows]
    return pl.Series("invented", verdicts, dtype=pl.Boolean)
