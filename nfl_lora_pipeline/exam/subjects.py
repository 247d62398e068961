"""Whom an answer is about, as far as its words tell."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby

from nfl_lora_pipeline.weeks.names import as_typed

SUFFIXES = frozenset({"jr", "sr", "ii", "iii", "iv", "v"})
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
        answer: what was said.
        player: who was asked about.
        known: everybody else who might be named.
    """
    mine, tokens = name_words(player), _TOKEN.findall(answer)
    said = tuple(map(_plain, tokens))
    if _stands_in(said, mine):
        return True
    if any(said[at : at + length] in known.full for length in (2, 3, 4) for at in range(len(said) - length + 1)):
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
    words, said = [_plain(word) for word in name.split()], [_plain(token) for token in _TOKEN.findall(answer)]
    places = range(1 - len(words), len(said))
    return max((sum(_at(said, place + i) == word for i, word in enumerate(words)) for place in places), default=0)


def _plain(word: str) -> str:
    word = as_typed(word).casefold().replace(".", "")
    return word.removesuffix("'s").rstrip("'")


def _at(words: list[str], place: int) -> str | None:
    return words[place] if 0 <= place < len(words) else None


def _stands_in(said: tuple[str, ...], name: tuple[str, ...]) -> bool:
    return any(said[at : at + len(name)] == name for at in range(len(said) - len(name) + 1))


def _alike(one: str, other: str) -> bool:
    return one == other or SequenceMatcher(None, one, other, autojunk=False).ratio() >= ALIKE
