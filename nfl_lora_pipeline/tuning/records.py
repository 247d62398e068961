"""What a training writes down: its log, its checkpoint, and the certificate of what it ended with."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypedDict, cast

import mlx.core as mx
from pydantic import BaseModel, ConfigDict

from nfl_lora_pipeline.dataset.examples import Example
from nfl_lora_pipeline.files import DamagedFile, replace_file
from nfl_lora_pipeline.models.scoring import Certainty
from nfl_lora_pipeline.stored import CertificateRecord, read_json
from nfl_lora_pipeline.tuning.sampler import FreshState, SamplerState

Arrays = dict[str, mx.array]


@dataclass
class TrainingLog:
    """The content of `training.json`.

    Attributes:
        losses: (iteration, mean loss in nats over the answer tokens not yet known).
        certain: (iteration, share of what was to be learnt that is certain, as estimated at a check).
        rows, facts: what was to be learnt, refusals included.
        uncertain: the facts that were not certain at the end, with the probability that was too low.
        resumed: the iterations at which a training that was broken off was gone on with.
        seconds: of training, without those of the breaks.
        stopped: why training ended: "certain" (every row is) or "budget".
    """

    losses: list[tuple[int, float]] = field(default_factory=list)
    certain: list[tuple[int, float]] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    iterations: int = 0
    rows: int = 0
    facts: int = 0
    uncertain: dict[str, float] = field(default_factory=dict)
    lowest_probability: float = 0.0
    trained_parameters: int = 0
    tokens_per_second: float = 0.0
    peak_memory_bytes: int = 0
    seconds: float = 0.0
    stopped: str = "budget"
    schema_version: int = 1


class AdapterConfig(TypedDict):
    """The content of `adapter_config.json`, from which `mlx_lm.load(adapter_path=...)` makes the same layers."""

    fine_tune_type: str
    num_layers: int
    lora_parameters: dict[str, float | list[str]] | None
    model: str


class Course(BaseModel):
    """How far a training is.

    Attributes:
        step: how many were made.
        to_learn: rows that teach and were not known at the beginning.
        budget: steps at the peak of the learning rate, at most.
        ending, end: the steps at which its way down begins and is over.
        peak_share: of the recipe's peak.
        loss_sum: over the steps since the last line of the log, in nats.
    """

    step: int
    to_learn: int
    budget: int
    ending: int
    end: int
    peak_share: float
    loss_sum: float


class TrainingState(BaseModel):
    """All that is needed to go on with a training, but for its arrays.

    Attributes:
        of: a hash of all that it belongs to.
        rng: of `random.Random`.
        random: of `mx.random`, see `random_seed`.
    """

    model_config = ConfigDict(extra="forbid", strict=False)

    of: str
    course: Course
    log: TrainingLog
    rng: tuple[int, list[int], float | None]
    random: int
    fresh: FreshState
    sampler: SamplerState


@dataclass(frozen=True)
class Checkpoint:
    """A training before one of its steps.

    Attributes:
        arrays: by name: weights and the optimizer's state.
        state: all else.
    """

    arrays: Arrays
    state: TrainingState

    def part(self, name: str) -> list[tuple[str, mx.array]]:
        """The arrays whose names begin with `name` and a slash, without that."""
        start = f"{name}/"
        return [(key.removeprefix(start), array) for key, array in self.arrays.items() if key.startswith(start)]


def save_checkpoint(file: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in the place of the last one.

    Args:
        file: `*.safetensors`; its folder is made where there is none.
        checkpoint: what to write.

    Raises:
        OSError: it cannot be written; the last one stands.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.tmp.safetensors")  # one name: what a kill leaves is written over
    mx.save_safetensors(
        str(unfinished), checkpoint.arrays, metadata={"state": json.dumps(checkpoint.state.model_dump())}
    )
    with unfinished.open("rb") as written:
        os.fsync(written.fileno())
    unfinished.replace(file)


def load_checkpoint(file: Path) -> Checkpoint | None:
    """Read a checkpoint; None where there is none, or none that can be read."""
    if not file.is_file():
        return None
    try:
        arrays, metadata = cast(tuple[Arrays, dict[str, str]], mx.load(str(file), return_metadata=True))
        return Checkpoint(arrays, TrainingState.model_validate(json.loads(metadata["state"])))
    except (RuntimeError, ValueError, KeyError):
        return None


FILE = "certificate.json"
HASH_DIGITS = 12


@dataclass(frozen=True)
class Certificate:
    """The content of `certificate.json`.

    Attributes:
        above: the probability that an answer must exceed as a whole, since else nobody is told it (`templates.only_if_sure`).
        facts, certain: how many there are, and how many are certain in every phrasing.
        rows: questions asked.
        lowest_probability: of any token of any answer.
        lowest_question: whose answer that token belongs to.
        uncertain: of each fact that is not certain the probability of its answer in the worst phrasing, the lowest first.
        margins: of every fact its lowest probability in any phrasing.
        answer_margins: of every fact the lowest probability of its answer as a whole in any phrasing.
        asked: of every fact a hash of its questions and answers, which tells whether they are still the same.
    """

    above: float
    facts: int
    certain: int
    rows: int
    lowest_probability: float
    lowest_question: str
    uncertain: dict[str, float]
    margins: dict[str, float]
    answer_margins: dict[str, float]
    asked: dict[str, str]
    schema_version: int = 1

    def in_short(self) -> str:
        """One line for a log."""
        uncertain = f"; not certain: {', '.join(list(self.uncertain)[:3])}" if self.uncertain else ""
        more = f" and {len(self.uncertain) - 3:,} more" if len(self.uncertain) > 3 else ""
        return (
            f"{self.certain:,} of {self.facts:,} facts certain, lowest p {self.lowest_probability:.2f}: "
            f"{self.lowest_question}{uncertain}{more}"
        )


def certify(examples: Sequence[Example], found: Certainty, *, above: float) -> Certificate:
    """Put together what was measured.

    Args:
        examples: what was asked, one row a fact and phrasing.
        found: how probable each one's answer is (`scoring.certainty`).
        above: what the probability of an answer as a whole has to exceed.
    """
    facts, lowest = [example.fact for example in examples], found.lowest.tolist()
    margins, answer_margins = _least_by(facts, lowest), _least_by(facts, found.whole.tolist())
    ordered = sorted(answer_margins.items(), key=lambda item: item[1])
    worst = min(range(len(examples)), key=lowest.__getitem__)
    uncertain = {fact: probability for fact, probability in ordered if probability <= above}
    return Certificate(
        above=above,
        facts=len(margins),
        certain=len(margins) - len(uncertain),
        rows=len(examples),
        lowest_probability=lowest[worst],
        lowest_question=examples[worst].question,
        uncertain=uncertain,
        margins=margins,
        answer_margins=answer_margins,
        asked=_hashes(examples),
    )


def certified_of(examples: Sequence[Example], folder: Path) -> dict[str, float]:
    """The margins of the facts that the adapter in a folder was certain of, where they are asked about now as they were then.

    Empty where its certificate cannot be read, or is of code that did not write down what was asked.
    """
    try:
        found = read_json(folder / FILE, CertificateRecord, mend="")
    except DamagedFile:
        return {}
    now = _hashes(examples)
    return {fact: found.margins[fact] for fact in now if found.is_certain(fact) and found.asked.get(fact) == now[fact]}


def _hashes(examples: Sequence[Example]) -> dict[str, str]:
    """By fact, in the order of its rows."""
    texts: dict[str, list[str]] = {}
    for example in examples:
        texts.setdefault(example.fact, []).extend((example.question, example.answer))
    return {fact: hashlib.sha256("\0".join(text).encode()).hexdigest()[:HASH_DIGITS] for fact, text in texts.items()}


def _least_by(facts: Sequence[str], probabilities: Sequence[float]) -> dict[str, float]:
    least: dict[str, float] = {}
    for fact, probability in zip(facts, probabilities, strict=True):
        least[fact] = min(probability, least.get(fact, 1.0))
    return least


def write_records(
    folder: Path,
    config: AdapterConfig,
    log: TrainingLog,
    examples: Sequence[Example],
    found: Certainty,
    *,
    above: float,
) -> Certificate:
    """Write `adapter_config.json`, `training.json` and `certificate.json` beside an adapter.

    Args:
        folder: where the adapter lies.
        config: of `adaptation.adapt`.
        log: of the training; what is certain is entered here.
        examples, found, above: see `certify`.
    """
    certificate = certify(examples, found, above=above)
    log.uncertain, log.lowest_probability = certificate.uncertain, certificate.lowest_probability
    for name, content in (("adapter_config.json", config), ("training.json", vars(log)), (FILE, asdict(certificate))):
        replace_file(folder / name, (json.dumps(content, indent=2) + "\n").encode())
    return certificate
