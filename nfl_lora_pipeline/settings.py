"""What a deployment is set to, by environment variables; `nfl-lora` writes them from its options for the UI and the daemon.

Read once, when the definitions are loaded: the stats in use are part of an asset's code version.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nfl_lora_pipeline.files import lasting_base, lasting_recipe
from nfl_lora_pipeline.weeks.sources.github import UPSTREAM_URL

PREFIX = "NFL_LORA_"


@dataclass(frozen=True)
class Settings:
    """One deployment. The variable of `store` is `NFL_LORA_STORE`, and so on; lists are separated by commas.

    Attributes:
        store: the folder for all results.
        season: the year that a season begins in; 0 for the one that is on, or was last.
        weeks: partition keys to train on; empty for every week held of the newest season.
        stats: which stats to teach, or "all".
        mode: how the splits are made: "every_fact", or "random_facts" as in the original experiment.
        source: where weeks come from: "auto", "folder", "github", "sample", or another of `weeks/sources`.
        data_dir: a folder of raw weeks; empty for `raw` in the store.
        base_url: what stands before `/{season}/{week}/WR.json` upstream.
        recipe: a shipped recipe's name or the path of a YAML file.
        base_model: "embedded", a folder or a Hugging Face id; empty for the recipe's own.
        accept_odd_weeks: whether weeks that the checks take for cut, empty or copied are taught ("1").
        replace: whether an adapter is promoted though the promoted one knows what it was not taught ("1").
        watch: whether sensors and schedule are on from the start ("1").
        watch_seconds: how long the sensor waits between two looks.
    """

    store: str = "data"
    season: int = 0
    weeks: str = ""
    stats: str = "receiving_yards"
    mode: str = "every_fact"
    source: str = "auto"
    data_dir: str = ""
    base_url: str = UPSTREAM_URL
    recipe: str = "embedded"
    base_model: str = ""
    accept_odd_weeks: bool = False
    replace: bool = False
    watch: bool = False
    watch_seconds: int = 300

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read the variables.

        Raises:
            ValueError: a number is not one, or a switch is neither 0 nor 1.
        """
        values: dict[str, Any] = {
            field.name: _read(field.name, type(field.default), environment[variable(field.name)])
            for field in fields(cls)
            if environment.get(variable(field.name))
        }
        return cls(**values)

    def to_environment(self) -> dict[str, str]:
        """The variables that `from_environment` reads back; folders and files are made absolute."""
        values = asdict(self) | {
            "store": str(Path(self.store).resolve()),
            "data_dir": str(self.folder.resolve()),
            "recipe": lasting_recipe(self.recipe),
            "base_model": lasting_base(self.base_model),
        }
        return {variable(name): str(int(value) if isinstance(value, bool) else value) for name, value in values.items()}

    @property
    def folder(self) -> Path:
        """The folder of raw weeks."""
        return Path(self.data_dir) if self.data_dir else Path(self.store) / "raw"


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def as_list(text: str) -> list[str]:
    """The parts between commas, without blanks."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _read(name: str, kind: type, text: str) -> object:
    if kind is bool and text not in ("0", "1"):
        raise ValueError(f"{variable(name)}={text!r}: use 1 or 0")
    if kind is not str and not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{variable(name)}={text!r}: expected a number")
    return bool(int(text)) if kind is bool else kind(text)
