"""The recall certificate: which facts a model is certain of in every trained phrasing, and by what margin.

An answer whose every token has a probability above 0.5 is the one that greedy decoding gives, whatever the numerics of the
machine that decodes. Source: MemFT, arXiv 2605.30260.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nfl_lora_pipeline.files import replace_file
from nfl_lora_pipeline.lessons.lessons import Lesson
from nfl_lora_pipeline.tuning.training_log import TrainingLog

FILE = "certificate.json"


@dataclass(frozen=True)
class Certificate:
    """The content of `certificate.json`.

    Attributes:
        above: the probability that every token of an answer must exceed.
        facts, certain: how many there are, and how many are certain in every phrasing.
        rows: questions asked.
        lowest_probability: of any token of any answer.
        lowest_question: whose answer that token belongs to.
        uncertain: of each fact that is not certain its lowest probability in any phrasing, the lowest first.
        margins: of every fact its lowest probability in any phrasing.
    """

    above: float
    facts: int
    certain: int
    rows: int
    lowest_probability: float
    lowest_question: str
    uncertain: dict[str, float]
    margins: dict[str, float]

    def in_short(self) -> str:
        """One line for a log."""
        uncertain = f"; not certain: {', '.join(list(self.uncertain)[:3])}" if self.uncertain else ""
        more = f" and {len(self.uncertain) - 3:,} more" if len(self.uncertain) > 3 else ""
        return (
            f"{self.certain:,} of {self.facts:,} facts certain, lowest p {self.lowest_probability:.2f}: "
            f"{self.lowest_question}{uncertain}{more}"
        )


def certify(lessons: Sequence[Lesson], lowest: Sequence[float], *, above: float) -> Certificate:
    """Put together what was measured.

    Args:
        lessons: what was asked, one row a fact and phrasing.
        lowest: for each the probability of its answer's least probable token (`evaluation.certainty`).
        above: the probability to exceed.
    """
    margins: dict[str, float] = {}
    for lesson, probability in zip(lessons, lowest, strict=True):
        margins[lesson.fact] = min(probability, margins.get(lesson.fact, 1.0))
    ordered = sorted(margins.items(), key=lambda item: item[1])
    worst = min(range(len(lessons)), key=lowest.__getitem__)
    uncertain = {fact: probability for fact, probability in ordered if probability <= above}
    return Certificate(
        above=above,
        facts=len(margins),
        certain=len(margins) - len(uncertain),
        rows=len(lessons),
        lowest_probability=lowest[worst],
        lowest_question=lessons[worst].question,
        uncertain=uncertain,
        margins=margins,
    )


def write_records(
    folder: Path,
    config: dict[str, Any],
    log: TrainingLog,
    lessons: Sequence[Lesson],
    lowest: Sequence[float],
    *,
    above: float,
) -> Certificate:
    """Write `adapter_config.json`, `training.json` and `certificate.json` beside an adapter.

    Args:
        folder: where the adapter lies.
        config: of `adaptation.adapt`.
        log: of the training; what is certain is entered here.
        lessons, lowest, above: see `certify`.
    """
    certificate = certify(lessons, lowest, above=above)
    log.uncertain, log.lowest_probability = certificate.uncertain, certificate.lowest_probability
    for name, content in (("adapter_config.json", config), ("training.json", vars(log)), (FILE, asdict(certificate))):
        replace_file(folder / name, (json.dumps(content, indent=2) + "\n").encode())
    return certificate
