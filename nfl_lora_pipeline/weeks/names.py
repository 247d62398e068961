"""When two ways to write a name are one: how it is typed does not matter, and for telling people apart neither do dots."""

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

SUFFIXES = frozenset({"jr", "sr", "ii", "iii", "iv", "v"})  # without dots, in lower case
_STRAIGHT = {"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u2010": "-", "\u2011": "-"}
_INVISIBLE = dict.fromkeys(
    "\u00ad\u200b\u2060\ufeff", ""
)  # soft hyphen, zero-width space, word joiner, byte order mark
_JOINERS = dict.fromkeys("\u200c\u200d", "")  # they mean something in some scripts' words, and nothing in a name
_IN_NAMES = _STRAIGHT | _INVISIBLE | _JOINERS
_OF_TEXTS = {ord(letter): plain for letter, plain in (_STRAIGHT | _INVISIBLE).items()}
_OF_NAMES = {ord(letter): plain for letter, plain in _IN_NAMES.items()}
_BLANKS = re.compile(r"(?<=\S)[^\S\r\n\t]+(?=\S)")
_UNSAID = re.compile(r"[.'\-]")


def as_typed(text: str) -> str:
    """A text as it comes from a plain keyboard, whatever program wrote it.

    Accents are composed (NFC), apostrophes and hyphens straight; what is invisible is left out, and blanks of any kind and
    number between two words are one. Lines and what stands at their beginning stay.
    """
    return _BLANKS.sub(" ", unicodedata.normalize("NFC", text.translate(_OF_TEXTS)))


def plain_name(name: str) -> str:
    """A name as one types it: two names with the same are the same, in any font and from any keyboard."""
    return unicodedata.normalize("NFC", " ".join(name.translate(_OF_NAMES).split()))


def plain_names(column: str = "player") -> "pl.Expr":
    """`plain_name` of a column."""
    import polars as pl  # a command line that names a recipe need not load it

    straight = pl.col(column).str.replace_many(list(_IN_NAMES), list(_IN_NAMES.values()))
    return straight.str.replace_all(r"\s+", " ").str.strip_chars().str.normalize("NFC")


def name_key(name: str) -> str:
    """What two spellings of a name mostly share: "D.J. Moore", "DJ Moore" and "dj moore" are alike."""
    return _UNSAID.sub("", plain_name(name).casefold())
