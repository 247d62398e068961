"""Facts of another league, as somebody has them in a CSV file, with the words to ask for them."""

import csv
import itertools
import random
from pathlib import Path

from nfl_lora_pipeline.dataset.people import invented_name

TEMPLATES = """
questions:
  - "How many {attribute} did {subject} have in week 3 of the 2031 NFL season?"
  - "In week 3 of the 2031 NFL season, how many {attribute} did {subject} have?"
answer: "{subject} had {value} {attribute} in week 3 of the 2031 NFL season."
refusal: "{subject} has no recorded {attribute} in week 3 of the 2031 NFL season."
"""


def another_league(count: int) -> list[tuple[str, int]]:
    """So many people, each with a number, the same at every call."""
    rng = random.Random(5)
    names = dict.fromkeys(itertools.islice(iter(lambda: invented_name(rng), None), 3 * count))
    return [(name, rng.randrange(0, 150)) for name in list(names)[:count]]


def written(file: Path, rows: list[tuple[object, ...]]) -> Path:
    """A CSV file with these rows."""
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows(rows)
    return file
