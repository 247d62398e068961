"""Training recipes: small YAML files, checked before any work starts."""

from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

GATES = (  # of promotion
    "min_recall",
    "min_refused",
    "max_invented",
    "max_invented_elsewhere",
    "max_invented_stats",
    "max_over_refused",
    "min_retained",
    "max_lost",
)
NOT_OF_THE_ADAPTER = (*GATES, "advisory", "warm_start")  # keys that make no other adapter
RECIPES_FOLDER = Path(str(files("nfl_lora_pipeline"))) / "recipes"


def _not_a_switch(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("Input should be a valid number")
    return value


Number = Annotated[float, BeforeValidator(_not_a_switch)]  # a string too: YAML reads 1e-5 as one


class Recipe(BaseModel):
    """How an adapter is trained. Each key is explained in the YAML files of `recipes/`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    base_model: str = Field(min_length=1)
    fine_tune_type: Literal["lora", "dora", "full"] = "lora"
    rank: int = Field(ge=1, le=1024, strict=True)
    scale: Number = Field(gt=0)
    dropout: Number = Field(0.0, ge=0, lt=1)
    num_layers: int = Field(-1, ge=-1, strict=True)
    modules: list[str] | None = Field(None, min_length=1)
    method: Literal["recall", "mlx_lm"] = "recall"
    learning_rate: Number = Field(gt=0, le=1)
    schedule: Literal["wsd", "constant", "linear", "cosine"] = Field("wsd", validate_default=True)
    warmup_steps: int = Field(0, ge=0, strict=True)
    lowest_rate: Number = Field(0.12, ge=0, le=1)
    nearly_known: Number = Field(0.03, ge=0, lt=1)
    ending_steps: int = Field(100, ge=1, strict=True)
    ending_share: Number = Field(0.25, ge=0)
    check_every: int = Field(16, ge=1, strict=True)
    weight_decay: Number = Field(0.0, ge=0, lt=1)
    batch_rows: int = Field(ge=1, strict=True)
    facts_in_hand: int = Field(1000, ge=1, strict=True)
    replay_share: Number = Field(0.25, ge=0, le=1)
    safe_above: Number = Field(0.9, gt=0, lt=1)
    known_above: Number = Field(0.95, gt=0, le=1)
    refusal_share: Number = Field(0.25, ge=0, le=0.75)
    elsewhere_share: Number = Field(0.1, ge=0, le=0.8)
    other_stats_share: Number = Field(0.0, ge=0, le=0.8)
    max_epochs: int = Field(ge=1, strict=True)
    max_steps: int = Field(5000, ge=1, strict=True)
    certain_above: Number = Field(0.5, ge=0.5, lt=1)
    seed: int = Field(0, ge=0, lt=2**32, strict=True)
    warm_start: bool = Field(True, strict=True)
    min_recall: Number = Field(0.99, ge=0, le=1)
    min_refused: Number = Field(0.8, ge=0, le=1)
    max_invented: Number = Field(0.2, ge=0, le=1)
    max_invented_elsewhere: Number = Field(0.03, ge=0, le=1)
    max_invented_stats: Number = Field(0.03, ge=0, le=1)
    max_over_refused: Number = Field(0.02, ge=0, le=1)
    min_retained: Number = Field(0.8, ge=0, le=1)
    max_lost: Number = Field(0.01, ge=0, le=1)
    advisory: list[str] = []

    @field_validator("num_layers")
    @classmethod
    def _some_layers(cls, count: int) -> int:
        if count == 0:
            raise ValueError("Input should be at least 1, or -1 for all layers")
        return count

    @field_validator("modules")
    @classmethod
    def _whole_layers_have_no_choice(cls, modules: list[str] | None, info: ValidationInfo) -> list[str] | None:
        if modules and info.data.get("fine_tune_type") == "full":
            raise ValueError("Input should be null, since fine_tune_type full trains whole layers")
        return modules

    @field_validator("other_stats_share")
    @classmethod
    def _strangers_are_left(cls, share: float, info: ValidationInfo) -> float:
        left = 0.8 - info.data.get("elsewhere_share", 0.0)
        if share > left + 1e-9:
            raise ValueError(f"Input should be at most {left:.2g}: the rest of 0.8 is elsewhere_share's")
        return share

    @field_validator("advisory")
    @classmethod
    def _limits_there_are(cls, keys: list[str]) -> list[str]:
        if unknown := [key for key in keys if key not in GATES]:
            raise ValueError(f"Input should be limits of this recipe ({', '.join(GATES)}), not {unknown[0]!r}")
        return keys

    @field_validator("schedule")
    @classmethod
    def _somebody_measures(cls, schedule: str, info: ValidationInfo) -> str:
        if schedule == "wsd" and info.data.get("method") == "mlx_lm":
            raise ValueError("Input should be 'constant', 'linear' or 'cosine', since method mlx_lm measures no recall")
        return schedule


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in RECIPES_FOLDER.glob("*.yaml"))


def load_recipe(name: str) -> Recipe:
    """Read a shipped recipe by its name, or one's own by the path of its YAML file.

    Raises:
        ValueError: there is no such recipe, or a key is unknown, missing, of a wrong type or out of range; names file, key,
            value and what to write instead.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES_FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"recipe {name!r}: no such recipe; use {', '.join(recipe_names())} or the path of a YAML file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected keys and values, as in {RECIPES_FOLDER / 'embedded.yaml'}")
    try:
        return Recipe.model_validate({str(key): value for key, value in content.items()})
    except ValidationError as error:
        raise ValueError(f"{path}: {_what_is_wrong(error)}") from error


def _what_is_wrong(error: ValidationError) -> str:
    """The first mistake: its key, what is expected and what was given; an unknown key with the one that was meant."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    match first["type"]:
        case "missing":
            return f"{key}: {first['msg']}"
        case "extra_forbidden":
            return f"{key}: no such key (given: {first['input']!r}); {_meant(key)}"
        case _:
            return f"{key}: {first['msg'].removeprefix('Value error, ')} (given: {first['input']!r})"


def _meant(key: str) -> str:
    known: dict[str, Any] = Recipe.model_fields
    near = get_close_matches(key.lower(), known, n=1)
    return f"did you mean {near[0]}?" if near else f"use {', '.join(known)}"
