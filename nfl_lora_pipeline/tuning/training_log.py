"""What a training did, as figures for metadata and report."""

from dataclasses import dataclass, field


@dataclass
class TrainingLog:
    """The content of `training.json`.

    Attributes:
        losses: (iteration, mean loss in nats over the answer tokens not yet known).
        certain: (iteration, share of what was to be learnt that is certain, as estimated at a check).
        rows, facts: what was to be learnt, refusals included.
        uncertain: the facts that were not certain at the end, with their lowest probability in any phrasing.
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
