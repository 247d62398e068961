"""Training recipes: small YAML files, checked before any work starts."""

from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

GATES = ("min_recall", "min_refused", "max_lost")  # of promotion
NOT_OF_THE_ADAPTER = (*GATES, "warm_start")  # keys that make no other adapter
RECIPES_FOLDER = Path(str(files("nfl_lora_pipeline"))) / "recipes"


class Recipe(BaseModel):
    """How an adapter is trained. Each key is explained in the YAML files of `recipes/`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_model: str = Field(min_length=1)
    fine_tune_type: Literal["lora", "dora"] = "lora"
    rank: int = Field(ge=1, le=1024)
    scale: float = Field(gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    num_layers: int = Field(-1, ge=-1)
    modules: list[str] | None = None
    learning_rate: float = Field(gt=0, le=1)
    warmup_steps: int = Field(0, ge=0)
    batch_rows: int = Field(ge=1)
    refusal_share: float = Field(0.25, ge=0, le=0.75)
    max_epochs: int = Field(ge=1)
    max_steps: int = Field(5000, ge=1)
    certain_above: float = Field(0.5, ge=0.5, lt=1)
    seed: int = 0
    warm_start: bool = True
    min_recall: float = Field(0.99, ge=0, le=1)
    min_refused: float = Field(0.8, ge=0, le=1)
    max_lost: float = Field(0.01, ge=0, le=1)


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in RECIPES_FOLDER.glob("*.yaml"))


def load_recipe(name: str) -> Recipe:
    """Read a shipped recipe by its name, or one's own by the path of its YAML file.

    Raises:
        ValueError: there is no such recipe, or a key is unknown, missing or of a wrong type; names file, key and value.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES_FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"recipe {name!r}: no such recipe; use {', '.join(recipe_names())} or the path of a YAML file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"{path}: expected keys and values, as in {RECIPES_FOLDER / 'embedded.yaml'}")
        return Recipe.model_validate(content)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        given = "" if first["type"] == "missing" else f" (given: {first['input']!r})"
        raise ValueError(f"{path}: {key}: {first['msg']}{given}") from error
