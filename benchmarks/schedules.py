"""How the learning rate of another trainer goes over the steps of a training."""

import math

CONSTANT, LINEAR, COSINE = SCHEDULES = ("constant", "linear", "cosine")


def share_of_peak(schedule: str, done: int, *, warmup: int, steps: int) -> float:
    """The rate of the step after `done` steps, as a share of the peak.

    As in HF's `Trainer`: up in a straight line over the warmup, then down to 0 at the end of all steps. The first step is not
    made with a rate of 0, as it is there: that one would be lost.
    """
    if done < warmup:
        return (done + 1) / warmup
    gone = (done - warmup) / max(1, steps - warmup)
    match schedule:
        case "constant":
            return 1.0
        case "linear":
            return max(0.0, 1.0 - gone)
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * min(1.0, gone)))
    raise ValueError(f"schedule: no schedule {schedule!r}; use {', '.join(SCHEDULES)}")
