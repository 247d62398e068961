"""How people type who are in a hurry: slips in a name, last names alone, marks, blanks, capitals and accents left to chance."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from nfl_lora_pipeline.dataset.people import bearers_of, is_suffix, last_name, last_word, share
from nfl_lora_pipeline.dataset.typed import NEIGHBOUR_KEYS, is_held_out

ABBREVIATIONS = {"yards": "yds", "touchdowns": "TDs", "points": "pts"}
DOUBLED_BLANKS = 0.25  # of the blanks in a question; one at least
_BLANK = re.compile(" ")


def typo(name: str, *, known: Iterable[str] = ()) -> str | None:
    """A name with one slip inside a word: two letters swapped, one left out, one doubled, or the key beside it hit.

    A hash of the name says which, every kind as often as another, of those that training leaves out
    (`wordings.is_held_out`). First and last letters stay, and the suffix ("Jr.").

    Args:
        name: a full name.
        known: names that must not come out of it.

    Returns:
        The misspelt name; None where every slip makes a known one or is trained, or no word has an inner letter.
    """
    avoid = {other.casefold() for other in known} | {name.casefold()}
    slips = sorted(_slips(name), key=lambda slip: (share(f"typo/{name}/{slip[0]}"), share(f"typo/{name}/{slip[1]}")))
    return next((slip for _, slip in slips if is_held_out(slip) and slip.casefold() not in avoid), None)


def unique_last_names(names: Iterable[str]) -> dict[str, str]:
    """The last names that nobody else bears, by full name. Who is called "Brown" is not told from a "St. Brown"."""
    people = list(dict.fromkeys(names))
    bearers = bearers_of(people)
    return {name: last for name in people if (last := last_name(name)) and bearers[last_word(last)] == 1}


def shared_last_names(people: Mapping[str, str]) -> dict[str, list[str]]:
    """The last names that two people or more bear, each with their names.

    Args:
        people: one name by each person's id.
    """
    bearers: dict[str, list[str]] = {}
    spelling: dict[str, str] = {}
    for name in sorted(people.values()):
        if last := last_name(name):
            bearers.setdefault(spelling.setdefault(last.casefold(), last), []).append(name)
    return {last: names for last, names in bearers.items() if len(set(names)) > 1}


def in_plain_letters(name: str) -> str | None:
    """A name with ASCII in place of accents; None where that changes nothing, or does not suffice."""
    plain = "".join(letter for letter in unicodedata.normalize("NFD", name) if not unicodedata.combining(letter))
    return plain if plain != name and plain.isascii() else None


def without_mark(question: str) -> str:
    """A question that nothing ends."""
    return question.rstrip("?.! ")


def with_two_blanks(question: str) -> str:
    """A question with a second blank in some places, which a hash chooses; one at least."""
    draws = {match.start(): share(f"blank/{question}/{match.start()}") for match in _BLANK.finditer(question)}
    first = min(draws, key=draws.__getitem__, default=None)
    doubled = {at for at, draw in draws.items() if draw < DOUBLED_BLANKS} | {first}
    return "".join(letter * 2 if at in doubled else letter for at, letter in enumerate(question))


def abbreviated(question: str) -> str:
    """A question with "yds", "TDs" and "pts"."""
    for word, short in ABBREVIATIONS.items():
        question = re.sub(rf"\b{word}\b", short, question)
    return question


CARELESS: Mapping[str, Callable[[str], str]] = {
    "lower_case": str.lower,
    "no_mark": without_mark,
    "two_blanks": with_two_blanks,
    "abbreviated": abbreviated,
    "plain_letters": str,
}
"""Groups of questions in which nothing is wrong but the typing, and what is done to each question; names are altered before."""


def _slips(name: str) -> Iterator[tuple[str, str]]:
    """Every slip with its kind."""
    begin = 0
    for word in name.split(" "):
        inner = [at for at in range(begin + 1, begin + len(word) - 1) if name[at].isalpha()]
        if not is_suffix(word):
            yield from _slips_at(name, inner)
        begin += len(word) + 1


def _slips_at(name: str, inner: Sequence[int]) -> Iterator[tuple[str, str]]:
    for at in inner:
        yield "drop", name[:at] + name[at + 1 :]
        yield "double", name[: at + 1] + name[at:]
        for key in NEIGHBOUR_KEYS.get(name[at].lower(), ""):
            yield "neighbour", name[:at] + (key.upper() if name[at].isupper() else key) + name[at + 1 :]
    for at, after in pairwise(inner):
        if after == at + 1:
            yield "swap", name[:at] + name[after] + name[at] + name[after + 1 :]
