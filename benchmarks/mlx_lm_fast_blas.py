"""`python -m benchmarks.mlx_lm_fast_blas lora ...` is `python -m mlx_lm lora ...` with a fast BLAS loaded first."""

from nfl_lora_pipeline.models.blas import load_fast_blas

load_fast_blas()

from mlx_lm import cli  # noqa: E402

if __name__ == "__main__":
    cli.main()
