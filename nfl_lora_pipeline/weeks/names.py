"""When two ways to write a name are one: how it is typed does not matter, and for telling people apart neither do dots."""

import re
import unicodedata

_INVISIBLE = dict.fromkeys(
    [0x00AD, 0x200B, 0x2060, 0xFEFF]
)  # soft hyphen, zero-width space, word joiner, byte order mark
_TYPED = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u2010": "-", "\u2011": "-"}) | _INVISIBLE
_JOINERS = dict.fromkeys([0x200C, 0x200D])  # they mean something in some scripts' words, and nothing in a name
_BLANKS = re.compile(r"(?<=\S)[^\S\r\n\t]+(?=\S)")
_UNSAID = re.compile(r"[.'\-]")


def as_typed(text: str) -> str:
    """A text as it comes from a plain keyboard, whatever program wrote it.

    Accents are composed (NFC), apostrophes and hyphens straight; what is invisible is left out, and blanks of any kind and
    number between two words are one. Lines and what stands at their beginning stay.
    """
    return _BLANKS.sub(" ", unicodedata.normalize("NFC", text.translate(_TYPED)))


def plain_name(name: str) -> str:
    """A name as one types it: two names with the same are the same, in any font and from any keyboard."""
    return as_typed(" ".join(name.translate(_JOINERS).split()))


def name_key(name: str) -> str:
    """What two spellings of a name mostly share: "D.J. Moore", "DJ Moore" and "dj moore" are alike."""
    return _UNSAID.sub("", plain_name(name).casefold())
