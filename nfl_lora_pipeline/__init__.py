"""Teaches a local language model the facts of an NFL season, week by week, and measures what it knows.

MLX has to be loaded behind a fast BLAS, whoever imports it after this package.
"""

from typing import TYPE_CHECKING

from nfl_lora_pipeline.models.machine import BlasFirst

if TYPE_CHECKING:
    from nfl_lora_pipeline.dataset.examples import read_examples
    from nfl_lora_pipeline.recipes.recipe import load_recipe
    from nfl_lora_pipeline.tuning.learn import learn

BlasFirst.install()

__all__ = ["learn", "load_recipe", "read_examples"]


def __getattr__(name: str) -> object:
    """The library: imported when it is asked for, since the command line is to answer at once."""
    match name:
        case "learn":
            from nfl_lora_pipeline.tuning.learn import learn

            return learn
        case "load_recipe":
            from nfl_lora_pipeline.recipes.recipe import load_recipe

            return load_recipe
        case "read_examples":
            from nfl_lora_pipeline.dataset.examples import read_examples

            return read_examples
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
