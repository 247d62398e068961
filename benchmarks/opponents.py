"""What the other trainers are given to choose from, and the best of it: `python -m benchmarks.sweep` tries each once."""

from typing import NamedTuple

from benchmarks.schedules import CONSTANT, COSINE, LINEAR

FACTS, BOTH = "facts", "both"
TASKS = {FACTS: "Facts", BOTH: "Facts and refusals"}
CHECK_EVERY = 10  # steps between two checks of PEFT, and between two checkpoints of mlx_lm.lora


class Settings(NamedTuple):
    """What a user would choose.

    Attributes:
        schedule, peak_rate, steps: how the learning rate goes.
        batch_rows: rows of a step.
        refusal_share: of the rows, how many are refusals.
        corrected: of `mlx_lm.lora` alone, whether its Adam is the one that PEFT has here: betas of 0.9 and 0.98, the bias
            corrected. By default it has 0.9 and 0.999 and no correction, and its first steps are three times as long: from a
            peak of 3e-3, six facts were not learnt in 60 steps so (two seeds), and in 20 with the other (one seed).
    """

    schedule: str
    peak_rate: float
    steps: int
    batch_rows: int
    refusal_share: float = 0.0
    corrected: bool = False

    @property
    def name(self) -> str:
        """The settings in a word, for `--settings` and for tables."""
        refusals = f"-{self.refusal_share:g}" if self.refusal_share else ""
        corrected = "-corrected" if self.corrected else ""
        return f"{self.schedule}-{self.peak_rate:g}-{self.steps}x{self.batch_rows}{refusals}{corrected}"

    @property
    def words(self) -> str:
        """The settings in a sentence of a table."""
        schedule = f"{self.schedule} from" if self.schedule != CONSTANT else CONSTANT
        refusals = f", {self.refusal_share:.0%} refusals" if self.refusal_share else ""
        corrected = ", Adam as PEFT has it" if self.corrected else ""
        return f"{schedule} {self.peak_rate:g}, {self.steps:,} steps of {self.batch_rows} rows{refusals}{corrected}"


# Sides that were never swept are raced with the settings of another: mlx_lm.lora computes the same with any BLAS.
SWEPT_AS = {"mlx_lm": "fast_blas", "fast_blas": "fast_blas", "peft": "peft"}

SWEPT: dict[tuple[str, str], tuple[Settings, ...]] = {
    ("peft", FACTS): (
        Settings(CONSTANT, 1e-3, 2000, 32),
        Settings(LINEAR, 1e-3, 300, 32),
        Settings(LINEAR, 1e-3, 400, 32),
        Settings(LINEAR, 2e-3, 400, 32),
        Settings(COSINE, 1e-3, 400, 32),
        Settings(LINEAR, 1e-3, 700, 16),
    ),
    ("peft", BOTH): (
        Settings(CONSTANT, 1e-3, 2000, 32, 0.4),
        Settings(LINEAR, 1e-3, 500, 32, 0.4),
        Settings(LINEAR, 1e-3, 700, 32, 0.4),
        Settings(LINEAR, 1e-3, 1000, 32, 0.4),
        Settings(LINEAR, 2e-3, 700, 32, 0.4),
        Settings(LINEAR, 2e-3, 1000, 32, 0.4),
        Settings(COSINE, 1e-3, 700, 32, 0.4),
        Settings(LINEAR, 1e-3, 500, 32, 0.2),
    ),
    ("fast_blas", FACTS): (
        Settings(CONSTANT, 1e-3, 3000, 14),
        Settings(LINEAR, 1e-3, 800, 14),
        Settings(LINEAR, 1e-3, 1200, 14),
        Settings(LINEAR, 1e-3, 800, 14, corrected=True),
        Settings(LINEAR, 2e-3, 800, 14, corrected=True),
        Settings(COSINE, 1e-3, 1200, 14),
        Settings(LINEAR, 2e-3, 400, 32, corrected=True),
    ),
    ("fast_blas", BOTH): (
        Settings(CONSTANT, 1e-3, 4000, 14, 0.4),
        Settings(LINEAR, 1e-3, 1200, 14, 0.4),
        Settings(LINEAR, 1e-3, 2000, 14, 0.4),
        Settings(LINEAR, 1e-3, 1200, 14, 0.4, corrected=True),
        Settings(LINEAR, 2e-3, 1200, 14, 0.4, corrected=True),
        Settings(COSINE, 1e-3, 2000, 14, 0.4),
        Settings(LINEAR, 2e-3, 700, 32, 0.4, corrected=True),
        Settings(LINEAR, 1e-3, 1000, 32, 0.4, corrected=True),
    ),
}

# PEFT: the fastest that reached the goal in `python -m benchmarks.sweep --data-dir DIR --side peft --task TASK`, 2026-11-28,
# on one thread. Facts: 2e-3 over 400 steps: 250; 1e-3 over 400: 300; 1e-3 over 300: 300. With refusals: 1e-3 over 1,000 steps:
# 940; of 700 steps and fewer none (412 to 439 facts). mlx_lm.lora: with refusals its own Adam and 14 rows had 396 of 441 facts
# after 1,200 steps, the corrected one 430; it is raced with the rows and the Adam that served PEFT best.
BEST: dict[tuple[str, str], Settings] = {
    ("peft", FACTS): Settings(LINEAR, 2e-3, 400, 32),
    ("peft", BOTH): Settings(LINEAR, 1e-3, 1000, 32, 0.4),
    ("fast_blas", FACTS): Settings(LINEAR, 2e-3, 400, 32, corrected=True),
    ("fast_blas", BOTH): Settings(LINEAR, 1e-3, 1000, 32, 0.4, corrected=True),
}


def best(side: str, task: str) -> Settings:
    """The settings that a side is raced with."""
    return BEST[SWEPT_AS[side], task]


def chosen(side: str, task: str, names: str | None) -> list[Settings]:
    """Of the swept settings those of some names, in the order of the names; all where none are given.

    Raises:
        ValueError: a name is none of them.
    """
    by_name = {settings.name: settings for settings in SWEPT[side, task]}
    wanted = names.split(",") if names else list(by_name)
    if unknown := set(wanted) - set(by_name):
        raise ValueError(f"no settings {min(unknown)!r}; use {', '.join(by_name)}")
    return [by_name[name] for name in wanted]
