"""The questions that the embedded model hears while it is made: a few hundred wordings, composed.

None of the `test` wordings of `templates.yaml` is among them, so that a score on those says how the finished model takes
words that neither its making nor its tuning has used.
"""

import random

TIMES = [
    "in week {week} of the {season} NFL season",
    "in week {week} of the {season} season",
    "in week {week} of {season}",
    "in week {week}, {season}",
    "in the {season} NFL season, week {week}",
    "in {season}, week {week}",
    "in the week {week} game of the {season} season",
    "during week {week} of the {season} NFL season",
    "during week {week} of {season}",
    "for week {week} of the {season} NFL season",
    "for week {week} of {season}",
    "for week {week}, {season}",
    "back in week {week} of the {season} season",
]

FRAMES = [
    "How many {stats} did {player} have {time}?",
    "How many {stats} did {player} finish with {time}?",
    "How many {stats} did {player} get {time}?",
    "How many {stats} did {player} record {time}?",
    "How many {stats} did {player} put up {time}?",
    "How many {stats} did {player} end up with {time}?",
    "How many {stats} did {player} total {time}?",
    "How many {stats} does {player} have {time}?",
    "How many {stats} were there for {player} {time}?",
    "How many {stats} were recorded for {player} {time}?",
    "How many {stats} were credited to {player} {time}?",
    "How many {stats} had {player} {time}?",
    "How many {stats} for {player} {time}?",
    "What were {possessive} {stats} {time}?",
    "What was {possessive} number of {stats} {time}?",
    "What was {possessive} total of {stats} {time}?",
    "What was the number of {stats} of {player} {time}?",
    "What is the number of {stats} that {player} had {time}?",
    "What did {player} have in {stats} {time}?",
    "What number of {stats} did {player} have {time}?",
    "Do you know how many {stats} {player} had {time}?",
    "Can you tell me how many {stats} {player} had {time}?",
    "Tell me how many {stats} {player} had {time}.",
    "I want to know how many {stats} {player} had {time}.",
    "Please give me {possessive} {stats} {time}.",
    "Give {possessive} {stats} {time}.",
    "Show me the {stats} of {player} {time}.",
    "State the {stats} for {player} {time}.",
    "{possessive} {stats} {time}?",
    "{possessive} {stats} {time} were how many?",
    "{player} had how many {stats} {time}?",
    "{player}: how many {stats} {time}?",
    "Of {player}: how many {stats} {time}?",
    "For {player}, how many {stats} {time}?",
    "{stats} of {player} {time}?",
    "{stats} for {player} {time}?",
    "{Time}, how many {stats} did {player} have?",
    "{Time}, how many {stats} were recorded for {player}?",
    "{Time}, what were {possessive} {stats}?",
    "{Time}, {player} had how many {stats}?",
    "{Time}, what was {possessive} total of {stats}?",
    "In total, how many {stats} did {player} have {time}?",
]


def _lower_start(text: str) -> str:
    return text if text.startswith("{") else text[0].lower() + text[1:]


def wordings() -> list[str]:
    """Every question the grammar can form, as templates with {player} {possessive} {stats} {week} {season}, sorted."""
    formed = set()
    for frame in FRAMES:
        for time in TIMES:
            text = frame.replace("{time}", time).replace("{Time}", time[0].upper() + time[1:])
            formed |= {text, _lower_start(text), text.rstrip("?."), _lower_start(text).rstrip("?.")}
    return sorted(formed)


def draw_wording(rng: random.Random, pool: list[str]) -> str:
    """One wording, the well-formed ones (with their final mark) four times as often as the careless ones."""
    while True:
        text = rng.choice(pool)
        if text[-1] in "?." or rng.random() < 0.25:
            return text
