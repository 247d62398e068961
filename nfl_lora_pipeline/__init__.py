"""Teaches a local language model the facts of an NFL season, week by week, and measures what it knows.

MLX has to be loaded behind a fast BLAS, and so before any module of this package imports it.
"""

from nfl_lora_pipeline.models.blas import load_fast_blas

load_fast_blas()
