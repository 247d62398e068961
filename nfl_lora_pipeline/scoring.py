"""What an answer says: its number, or that it gives none. Works on text, whoever wrote it."""

import re

_NUMBER = re.compile(r"(?<![\w.])[-\u2212]?\d[\d,]*(?:\.\d+)?")
_TIME = re.compile(
    r"\b(?:week|weeks)\s+\d+|\b(?:19|20)\d\d(?:[-\u2013/](?:\d\d)?\d\d)?\b(?:\s*(?:nfl\s+)?season)?"
    r"|\b\d+(?:st|nd|rd|th)\b",
    re.IGNORECASE,
)
_MINUS = re.compile(r"\bminus\s+(?=\d)", re.IGNORECASE)
_REFUSALS = re.compile(
    r"\bno recorded\b|\bno record\b|\bnothing (?:is |was )?(?:recorded|on record)\b"
    r"|\b(?:do not|don't|doesn't|does not|cannot|can't|could not|couldn't|unable)\b"
    r"|\bno (?:data|information|knowledge|statistics|access)\b|(?:\bnot|n't) (?:available|aware|known|recorded|able)\b"
    r"|\bknowledge cut-?off\b|\blast (?:knowledge |training )?update\b"
    r"|\bhas(?:n't| not) (?:yet )?(?:been|happened|occurred|taken place|started)\b",
    re.IGNORECASE,
)
_NO_GAME = re.compile(r"\bno game\b|\bon (?:a |their |its )?bye\b|\bbye week\b", re.IGNORECASE)


def exact(answer: str, expected: str) -> bool:
    """Whether an answer is the reference answer, to the letter but for surrounding blanks."""
    return answer.strip() == expected.strip()


def number_in(answer: str) -> float | None:
    """The one number that an answer gives beside weeks and seasons; None when it gives none, or several that differ."""
    spoken = _MINUS.sub("-", _TIME.sub(" ", answer))
    found = {float(text.replace(",", "").replace("\u2212", "-")) for text in _NUMBER.findall(spoken)}
    return found.pop() if len(found) == 1 else None


def is_refusal(answer: str) -> bool:
    """Whether an answer says that nothing is known or recorded, and gives no number."""
    return bool(_REFUSALS.search(answer.replace("\u2019", "'"))) and number_in(answer) is None


def is_no_game(answer: str) -> bool:
    """Whether an answer says that the team had no game."""
    return bool(_NO_GAME.search(answer)) and number_in(answer) is None
