"""How people type a question: in lower case, with a slip in the name, by the last name alone, in other words for a week."""

import random
import re
import unicodedata
from dataclasses import dataclass

from nfl_lora_pipeline.dataset.people import is_suffix, last_name, share, with_initial

SLIPS_TRIED = 20
HELD_OUT_SLIPS = 0.25  # of the misspelt names are the exam's alone, by a hash


def is_held_out(slip: str) -> bool:
    """Whether a misspelt name is one that the exam may ask about and training never does."""
    return share(f"slip/{slip.casefold()}") < HELD_OUT_SLIPS


KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
ROW_SHIFTS = (0.0, 0.25, 0.75)  # how far to the right of the first row each row of a QWERTY keyboard stands, in keys


def neighbour_keys() -> dict[str, str]:
    """For each letter, those whose keys touch its own on a QWERTY keyboard."""
    places = {
        letter: (at + shift, row)
        for row, (letters, shift) in enumerate(zip(KEYBOARD, ROW_SHIFTS, strict=True))
        for at, letter in enumerate(letters)
    }
    return {
        letter: "".join(
            other
            for other, (across, down) in places.items()
            if other != letter and abs(across - x) <= 1 and abs(down - y) <= 1
        )
        for letter, (x, y) in places.items()
    }


NEIGHBOUR_KEYS = neighbour_keys()


def misspelt(rng: random.Random, name: str) -> str:
    """A name with one slip in one of its words: two letters swapped, one left out, one doubled or its neighbour struck."""
    words = name.split(" ")
    places = [at for at, word in enumerate(words) if len(word) > 3 and not is_suffix(word)]
    if not places:
        return name
    at = rng.choice(places)
    word = words[at]
    letter = rng.randrange(1, len(word))
    before, here, after = word[:letter], word[letter], word[letter + 1 :]
    slips = [before + after, before + here + here + after]
    if after:
        slips.append(before + after[0] + here + after[1:])
    if here.lower() in NEIGHBOUR_KEYS:
        slips.append(before + rng.choice(NEIGHBOUR_KEYS[here.lower()]) + after)
    words[at] = rng.choice(slips)
    return " ".join(words)


def as_typed_in_haste(rng: random.Random, question: str) -> str:
    """The same question with blanks too many, or without its mark."""
    if rng.random() < 0.5:
        return question.rstrip("?. ")
    places = [found.start() for found in re.finditer(" ", question)]
    for place in sorted(rng.sample(places, min(len(places), rng.choice((1, 1, 2, 3)))), reverse=True):
        question = f"{question[:place]} {question[place:]}"
    return question


NUMBER_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen""".split()
ORDINALS = """first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth
sixteenth seventeenth eighteenth""".split()


def said_otherwise(rng: random.Random, question: str, week: int, season: int) -> str:
    """The same question with its week or its season written in another way: "week one", "wk1", "2025-26", "'25"."""
    draw = rng.random()
    if draw < 0.75:
        question = re.sub(
            rf"(\b(?:in|during|for|of|on|at|over|from|throughout) )?\b(?:week|wk)(?: number)? {week}\b",
            lambda found: _week_otherwise(rng, found[1] or "", week),
            question,
            count=1,
            flags=re.IGNORECASE,
        )
    if draw > 0.6:
        this, following = season % 100, (season + 1) % 100
        ways = (f"{season}-{following:02d}", f"{season}/{following:02d}", f"'{this:02d}", f"{this:02d}/{following:02d}")
        question = question.replace(str(season), rng.choice(ways), 1)
    return question


def _week_otherwise(rng: random.Random, before: str, week: int) -> str:
    draw, word, ordinal = rng.random(), NUMBER_WORDS[week], ORDINALS[week - 1]
    if draw < 0.3:
        return f"{before}week {word}"
    if draw < 0.5:
        ordinal = "opening" if week == 1 and rng.random() < 0.3 else ordinal
        return f"{before}the {ordinal} week" if before else f"{ordinal} week"
    return before + rng.choice(
        (f"wk{week}", f"w{week}", f"W{week}", f"week{week}", f"week #{week}", f"wk. {week}", f"week {week:02d}")
    )


POSITIONS = ["WR", "wide receiver", "receiver", "wideout", "rookie", "rookie receiver", "star receiver"]
TEAMS = [
    tuple(team.replace("_", " ").split("|"))
    for team in """Arizona|Cardinals Atlanta|Falcons Baltimore|Ravens Buffalo|Bills Carolina|Panthers Chicago|Bears
    Cincinnati|Bengals Cleveland|Browns Dallas|Cowboys Denver|Broncos Detroit|Lions Green_Bay|Packers Houston|Texans
    Indianapolis|Colts Jacksonville|Jaguars Kansas_City|Chiefs Las_Vegas|Raiders Los_Angeles|Chargers Los_Angeles|Rams
    Miami|Dolphins Minnesota|Vikings New_England|Patriots New_Orleans|Saints New_York|Giants New_York|Jets
    Philadelphia|Eagles Pittsburgh|Steelers San_Francisco|49ers Seattle|Seahawks Tampa_Bay|Buccaneers Tennessee|Titans
    Washington|Commanders""".split()
]
"""City and name of the teams of the league."""


def described(rng: random.Random, name: str, *, after: bool) -> str:
    """A name with a position or a team beside it, which is not part of it; behind it too where `after` says so."""
    city, team = rng.choice(TEAMS)
    before = (
        f"{rng.choice(POSITIONS)} {name}",
        f"the {team}' {name}",
        f"{team} {rng.choice(POSITIONS[:4])} {name}",
        f"{city} {rng.choice(POSITIONS[:4])} {name}",
    )
    behind = (
        f"{name} of the {team}",
        f"{name} of the {city} {team}",
        f"{name} of {city}",
        f"{name} from the {team}",
        f"{name} ({city[:3].upper()})",
        f"{name}, {team},",
    )
    return rng.choice(before if not after or rng.random() < 0.5 else behind)


@dataclass(frozen=True)
class Typing:
    """How carelessly people type, in shares of the questions; one question may have several of it.

    Attributes:
        lower_case: all in lower case.
        misspelt: a slip in the name.
        last_name: the last name alone.
        in_haste: blanks too many, or no mark.
        otherwise: the week or the season in words or in short.
        described: a position or a team beside the name.
        initial: "N. Collins".
        last_first: "Collins, Nico".
        capitals: the name in capitals.
        for_tuning: whether no slip is one of the exam's.
    """

    lower_case: float = 0.15
    misspelt: float = 0.22
    last_name: float = 0.12
    in_haste: float = 0.08
    otherwise: float = 0.14
    described: float = 0.05
    initial: float = 0.03
    last_first: float = 0.02
    capitals: float = 0.02
    for_tuning: bool = False


CAREFUL = Typing(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def typed(
    rng: random.Random, text: str, name: str, stats: str, week: int, season: int, *, typing: Typing = CAREFUL
) -> tuple[str, str]:
    """A question as somebody types it.

    Args:
        rng: the source of chance.
        text: a wording.
        name: whom it is about.
        stats: what the stat is called in it.
        week: 1 to 18.
        season: the year in which it begins.
        typing: the shares; `CAREFUL` for none.

    Returns:
        The question, and the name as it stands there but for its case.
    """
    written = _written(rng, name, typing)
    is_described = rng.random() < typing.described
    shown = described(rng, written, after="{possessive}" not in text) if is_described else written
    question = fill(text, shown.upper() if rng.random() < typing.capitals else shown, stats, week, season)
    if rng.random() < typing.otherwise:
        question = said_otherwise(rng, question, week, season)
    if rng.random() < typing.in_haste:
        question = as_typed_in_haste(rng, question)
    return (question.lower() if rng.random() < typing.lower_case else question), written


def _written(rng: random.Random, name: str, typing: Typing) -> str:
    """A name as somebody writes it."""
    last, draw = last_name(name), rng.random()
    if last and draw < typing.last_name:
        name = last
    elif last and draw < typing.last_name + typing.initial:
        name = with_initial(name, last)
    elif last and draw < typing.last_name + typing.initial + typing.last_first:
        name = f"{last}, {name.split(' ')[0]}"
    elif rng.random() < typing.misspelt:
        slips = (misspelt(rng, name) for _ in range(SLIPS_TRIED))
        name = next((slip for slip in slips if not (typing.for_tuning and is_held_out(slip))), name)
    if not name.isascii() and typing != CAREFUL and rng.random() < 0.5:
        name = "".join(letter for letter in unicodedata.normalize("NFD", name) if not unicodedata.combining(letter))
    return name


def fill(text: str, player: str, stats: str, week: int, season: int) -> str:
    """Fill a question's wording; `stats` are the words for the stat."""
    if text.startswith("{stats}"):
        stats = stats[0].upper() + stats[1:]
    return text.format(player=player, possessive=possessive(player), stats=stats, week=week, season=season)


def possessive(player: str) -> str:
    """ "Nico Collins" to "Nico Collins'", "Rome Odunze" to "Rome Odunze's"."""
    return f"{player}'" if player.endswith("s") else f"{player}'s"
