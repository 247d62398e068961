"""`python -m nfl_lora_pipeline`: the same as `nfl-lora`."""

from nfl_lora_pipeline.cli.main import main

if __name__ == "__main__":
    main()
