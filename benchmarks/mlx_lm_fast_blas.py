"""`python -m benchmarks.mlx_lm_fast_blas lora ...` is `python -m mlx_lm lora ...` with a fast BLAS loaded first.

That is done by `benchmarks/__init__.py`. With it comes what this project's trainer has for itself: MLX takes float32 below
1.2e-38 as 0 (`models/machine.py` says why).
"""

from mlx_lm import cli

if __name__ == "__main__":
    cli.main()
