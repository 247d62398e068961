"""How sure a share is: Wilson's interval around it."""

import math
from typing import Any

import polars as pl

Z95 = 1.959964  # the standard normal quantile that leaves 2.5% on either side


def wilson(right: int, asked: int, *, z: float = Z95) -> tuple[float, float] | None:
    """The interval that holds a share with 95% confidence; None where nothing was asked.

    Unlike share +- z * error it stays within 0 to 1, and is of use where all or none are right.

    Args:
        right: how many of `asked` were right.
        asked: how many there were; they count as independent of each other.
        z: the quantile of the standard normal distribution.

    Raises:
        ValueError: `right` is not within 0 to `asked`.

    Source: E. B. Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 <= right <= asked:
        raise ValueError(f"{right} of {asked} is no share: expected a number from 0 to {asked}")
    if not asked:
        return None
    share = right / asked
    middle = share + z * z / (2 * asked)
    reach = z * math.sqrt(share * (1 - share) / asked + z * z / (4 * asked * asked))
    scale = 1 + z * z / asked
    low = 0.0 if right == 0 else (middle - reach) / scale
    high = 1.0 if right == asked else (middle + reach) / scale
    return low, high


def counted(hits: pl.Series) -> dict[str, Any]:
    """A share with its interval.

    Args:
        hits: Boolean, one a question, without nulls.

    Returns:
        `right`, `asked`, `share`, `low` and `high`; the last three are None where nothing was asked.
    """
    return share_of(int(hits.sum()), hits.len())


def share_of(right: int, asked: int) -> dict[str, Any]:
    """The same from two numbers."""
    low, high = wilson(right, asked) or (None, None)
    return {"right": right, "asked": asked, "share": right / asked if asked else None, "low": low, "high": high}
