"""Training recipes: small YAML files, checked before any work starts."""

import json
import math
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
    """How an adapter is trained, and what is asked of it: `nfl-lora recipe show NAME` prints all of it.

    The defaults are those of the embedded base.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    base_model: str = Field(
        min_length=1, description="an alias (embedded), a Hugging Face id or a folder that mlx_lm.load takes"
    )
    fine_tune_type: Literal["lora", "dora", "full"] = Field(
        "lora", description="lora (on a quantised base that is QLoRA), dora, or full: the layers' own weights"
    )
    rank: int = Field(32, ge=1, le=1024, strict=True, description="of each low-rank update; full has none")
    scale: Number = Field(4.0, gt=0, description="multiplies the update; mlx-lm's scale is alpha / rank")
    dropout: Number = Field(0.0, ge=0, lt=1, description="on the adapter's input")
    num_layers: int = Field(-1, ge=-1, strict=True, description="how many layers from the top are trained; -1 is all")
    modules: list[str] | None = Field(
        None, min_length=1, description="names of the linear layers to adapt; null is all of them"
    )
    method: Literal["recall", "mlx_lm"] = Field(
        "recall", description="what is not yet known, until all is; or mlx_lm: its own trainer, loss and batches"
    )
    learning_rate: Number = Field(1.3e-3, gt=0, le=1, description="the peak")
    schedule: Literal["wsd", "constant", "linear", "cosine"] = Field(
        "wsd",
        validate_default=True,
        description="up, at the peak until nearly all is known, and down; or constant, linear, cosine over all steps",
    )
    warmup_steps: int = Field(20, ge=0, strict=True, description="linear, from 0")
    lowest_rate: Number = Field(
        0.12, ge=0, le=1, description="the share of the peak that is left at the end of every way down"
    )
    nearly_known: Number = Field(
        0.03,
        ge=0,
        lt=1,
        description="wsd: the way down begins when no more of the taught facts than this are uncertain",
    )
    ending_steps: int = Field(100, ge=1, strict=True, description="wsd: the way down takes so many steps")
    ending_share: Number = Field(0.25, ge=0, description="or this share of the steps before it, where that is more")
    check_every: int = Field(
        16,
        ge=1,
        strict=True,
        description="from the end of the way down on, the steps between two checks; where facts / batch_rows is more, that",
    )
    weight_decay: Number = Field(0.0, ge=0, lt=1, description="of AdamW; 0 is Adam")
    batch_rows: int = Field(32, ge=1, strict=True, description="rows a step")
    facts_in_hand: int = Field(1000, ge=1, strict=True, description="facts in doubt that are worked on at a time")
    replay_share: Number = Field(0.25, ge=0, le=1, description="known facts shown again for each one in doubt")
    safe_above: Number = Field(
        0.9, gt=0, lt=1, description="a fact is in doubt while a token of its answer has a probability below this"
    )
    known_above: Number = Field(
        0.95, gt=0, le=1, description="a token whose probability is above this is left out of the loss"
    )
    refusal_share: Number = Field(
        0.4, ge=0, le=0.75, description="the share of a step's rows that are questions without an answer"
    )
    elsewhere_share: Number = Field(
        0.1,
        ge=0,
        le=0.8,
        description="of those: about known players in weeks and seasons that are not taught; more of them cost steps",
    )
    other_stats_share: Number = Field(
        0.0,
        ge=0,
        le=0.8,
        description="and about known players and stats that are not taught; on the embedded base any cost more than they gain",
    )
    max_epochs: int = Field(
        12,
        ge=1,
        strict=True,
        description="an epoch has as many steps as all rows that teach would fill; training may end sooner",
    )
    max_steps: int = Field(12000, ge=1, strict=True, description="and never more than this at the peak")
    certain_above: Number = Field(
        0.5, ge=0.5, lt=1, description="a fact is certain when every token of its answer has a probability above this"
    )
    seed: int = Field(
        17, ge=0, lt=2**32, strict=True, description="of the adapter's start, the order of rows and the strangers"
    )
    warm_start: bool = Field(
        True,
        strict=True,
        description="go on from the adapter before, where a season has grown by a week; false begins anew",
    )
    min_recall: Number = Field(
        0.99, ge=0, le=1, description="promoted only when so many trained questions are right, in the worst week"
    )
    min_refused: Number = Field(
        0.8, ge=0, le=1, description="promoted only when so many questions about strangers are refused"
    )
    max_invented: Number = Field(
        0.2,
        ge=0,
        le=1,
        description="and no more questions about people without a fact get a number, in the worst group of them",
    )
    max_invented_elsewhere: Number = Field(
        0.03, ge=0, le=1, description="and no more about known players in weeks or seasons that were not taught"
    )
    max_invented_stats: Number = Field(
        0.03, ge=0, le=1, description="and no more about known players and stats that were not taught"
    )
    max_over_refused: Number = Field(
        0.05,
        ge=0,
        le=1,
        description="and no more questions about known numbers are refused, in trained or in held-out phrasings",
    )
    min_retained: Number = Field(
        0.8, ge=0, le=1, description="and so much is left of whatever the base could do before"
    )
    max_lost: Number = Field(
        0.01,
        ge=0,
        le=1,
        description="and no more trained questions than this were right in the promoted adapter and are now wrong",
    )
    advisory: list[str] = Field([], description="limits that are told where they are missed, and keep no adapter back")

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
        raise ValueError(f"{path}: expected keys and values, as `nfl-lora recipe show embedded` prints them")
    try:
        return Recipe.model_validate({str(key): value for key, value in content.items()})
    except ValidationError as error:
        raise ValueError(f"{path}: {_what_is_wrong(error)}") from error


def as_yaml(recipe: Recipe) -> str:
    """All keys with their values, each with its description as a comment."""
    shown = {key: f"{key}: {json.dumps(value)}" for key, value in recipe.model_dump().items()}  # JSON is YAML
    width = max(map(len, shown.values()))
    return "\n".join(f"{line:<{width}}  # {Recipe.model_fields[key].description}" for key, line in shown.items())


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


def learning_rate(recipe: Recipe, step: int, start: int, end: int) -> float:
    """The rate for a step: a linear warm-up, the peak, and from `start` to `end` the way down that the `schedule` says.

    Args:
        recipe: with `learning_rate` (the peak), `warmup_steps`, `schedule` and `lowest_rate`, which is where it stays.
        step: from 0.
        start: where the way down begins: for the schedule "wsd" where nearly all is known, for the others at 0.
        end: where it ends.
    """
    warm = min(1.0, (step + 1) / (recipe.warmup_steps + 1))
    left = min(1.0, max(0.0, 1 - (step - start) / max(1, end - start)))
    shares = {"constant": 1.0, "cosine": (1 - math.cos(math.pi * left)) / 2}
    share = recipe.lowest_rate + (1 - recipe.lowest_rate) * shares.get(recipe.schedule, left)
    return recipe.learning_rate * warm * share
