"""Questions as people type them: all in lower case, with a typo in the name, with the last name alone."""

from collections import Counter
from collections.abc import Iterable, Iterator

from nfl_lora_pipeline.exam.subjects import SUFFIXES
from nfl_lora_pipeline.lessons.strangers import share


def typo(name: str, *, known: Iterable[str] = ()) -> str | None:
    """A name with one slip inside a word: two letters swapped, one left out or one doubled, as a hash of the name will have it.

    First and last letters stay, and the suffix ("Jr.").

    Args:
        name: a full name.
        known: names that must not come out of it.

    Returns:
        The misspelt name; None where every slip makes a known one, or no word has an inner letter.
    """
    taken = {other.casefold() for other in known} | {name.casefold()}
    slips = sorted(_slips(name), key=lambda slip: share(f"typo/{name}/{slip}"))
    return next((slip for slip in slips if slip.casefold() not in taken), None)


def last_name(name: str) -> str | None:
    """ "Marvin Harrison Jr." to "Harrison", "Amon-Ra St. Brown" to "St. Brown"; None where there is but one word."""
    words = [word for word in name.split()[1:] if not _is_suffix(word)]
    return " ".join(words) or None


def unique_last_names(names: Iterable[str]) -> dict[str, str]:
    """The last names that nobody else bears, by full name. Who is called "Brown" is not told from a "St. Brown"."""
    found = {name: last for name in dict.fromkeys(names) if (last := last_name(name))}
    bearers = Counter(last.split()[-1].casefold() for last in found.values())
    return {name: last for name, last in found.items() if bearers[last.split()[-1].casefold()] == 1}


def _slips(name: str) -> Iterator[str]:
    begin = 0
    for word in name.split(" "):
        inner = [at for at in range(begin + 1, begin + len(word) - 1) if name[at].isalpha()]
        for at in [] if _is_suffix(word) else inner:
            yield name[:at] + name[at + 1 :]
            yield name[: at + 1] + name[at:]
            if at + 1 in inner:
                yield name[:at] + name[at + 1] + name[at] + name[at + 2 :]
        begin += len(word) + 1


def _is_suffix(word: str) -> bool:
    return word.rstrip(".").casefold() in SUFFIXES
