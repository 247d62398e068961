"""Comparisons with other ways to get there, each a command of its own; `make bench` runs them all.

Workers that must not have this project's BLAS, or run in another environment, are started by their path.
"""

import nfl_lora_pipeline  # noqa: F401  (which loads the BLAS, and so has to come before MLX)
