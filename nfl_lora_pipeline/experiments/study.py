"""What an experiment is: a YAML file with a question, arms that differ in recipe, data or base, seeds, and claims to test."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from nfl_lora_pipeline.dataset.splits import SplitMode
from nfl_lora_pipeline.dataset.templates import Answers
from nfl_lora_pipeline.recipes.recipe import NOT_OF_THE_ADAPTER, Recipe, load_recipe

CODE = "4"  # raise it when trials are to be made again
STUDIES_FOLDER = Path(str(files("nfl_lora_pipeline"))) / "experiments" / "studies"
FIGURES = {
    "certain": "facts certain in every trained wording",
    "numbers": "of these, those with a number",
    "trained": "trained questions about numbers right, as a chat asks them",
    "held_out": "held-out questions right",
    "hand_written": "wordings written by hand right",
    "strangers": "strangers refused",
    "other_weeks": "other weeks refused",
    "other_seasons": "other seasons refused",
    "other_stats": "other stats refused",
    "kept": "refusals of strangers that the base had, kept",
    "right": "facts right, as they are taught or in held-out wordings",
    "right_altered": "facts right with a typo, or by the last name alone",
    "refused": "invented people refused",
    "asked": "questions asked",
    "prompt_tokens": "tokens of a prompt",
    "answer_tokens": "tokens of an answer",
    "once_seconds": "seconds once, before the first question",
    "answer_seconds": "seconds a question",
    "train_loss": "loss of trained rows, nats a token",
    "valid_loss": "loss of held-out rows, nats a token",
    "perplexity": "perplexity of the base's own answers, times what it was",
    "steps": "steps",
    "seconds": "seconds of training",
    "asking_seconds": "seconds of asking",
    "peak_megabytes": "peak memory, MB",
    "adapter_megabytes": "size on disk, MB",
    "trained_parameters": "parameters trained",
    "facts_certain": "facts with a number that are certain",
    "per_thousand": "of these for a thousand parameters trained",
}
"""What is measured of an arm, in words. Shares are between 0 and 1."""
SHARES = tuple(FIGURES)[: list(FIGURES).index("asked")]
Way = Literal["tuned", "base", "row", "week", "table"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Strict):
    """What is taught."""

    season: int = Field(2025, description="the year in which it begins")
    weeks: str = Field("1", description="week numbers, such as 1 or 1-3,5")
    stats: list[str] = Field(["receiving_yards"], min_length=1, description='stats to teach, or "all"')
    people: int | None = Field(None, ge=1, strict=True, description="so many, chosen by a hash; fewer are among more")
    wordings: int | None = Field(None, ge=1, strict=True, description="so many of the trained wordings; null is all")
    blanks: Literal["refused", "left_out", "zero", "balanced"] = Field(
        "refused",
        description="who has no number: refused; left out; told as 0; or as 0 for as many as there are numbers",
    )
    mode: SplitMode = Field("every_fact", description="every fact in train, or random over facts as in the original")
    answers: Answers | None = Field(None, description="the words of the answers; null for those of templates.yaml")


class Arm(_Strict):
    """One side of a comparison; what is not named is the study's."""

    recipe: dict[str, JsonValue] = Field({}, description="keys of the recipe that differ")
    data: dict[str, JsonValue] = Field({}, description="keys of the data that differ")
    base_bits: Literal[4, 8] | None = Field(
        None, description="quantise the base's layers to so many bits first (QLoRA)"
    )
    shape: Literal["mistral"] | None = Field(
        None, description="give a base of Phi-3's architecture Mistral's, and its chat template, first"
    )
    rows_as: Literal["chat", "text"] = Field(
        "chat", description="how a row is written for training: by the chat template, or as text without one"
    )
    system: str = Field("", description="a system turn that comes before every question, and did not in training")
    way: Way = Field(
        "tuned",
        description="who answers: the tuned model; the base; the base with the player's row in the prompt, or with the "
        "whole week, which it reads once; or a table look-up",
    )


class Sample(_Strict):
    """How many questions are asked one by one, drawn by the seed."""

    facts: int = Field(ge=1, strict=True, description="as they are taught, or in a held-out wording")
    altered: int = Field(ge=1, strict=True, description="facts with a typo in the name, or the last name alone")
    strangers: int = Field(ge=1, strict=True, description="about people who do not exist")
    week: int = Field(8, ge=1, strict=True, description="of all these, where the whole week is in the prompt")

    @property
    def questions(self) -> int:
        """All of them."""
        return self.facts + self.altered + self.strangers


class Claim(_Strict):
    """What the study tests: in every seed, `figure` of one arm is higher (or lower) than that of another by so much."""

    text: str
    figure: str
    arm: str
    against: str
    by: float = 0.0
    lower: bool = False

    @field_validator("figure")
    @classmethod
    def _is_measured(cls, figure: str) -> str:
        if figure not in FIGURES:
            raise ValueError(f"Input should be one of {', '.join(FIGURES)}")
        return figure


class Study(_Strict):
    """One question with all that is done to answer it."""

    question: str
    about: str = Field("", description="what the table's reader should know")
    recipe: str = Field("embedded", description="a shipped recipe's name or the path of a YAML file")
    seeds: list[int] = Field([17, 18, 19], min_length=1)
    long: bool = Field(False, strict=True, description="it takes hours: `run all` leaves it out without `--long`")
    sample: Sample | None = Field(
        None, description="ask so many questions one by one, as somebody would, instead of all groups at once"
    )
    picture: Literal["shares", "capacity"] = Field(
        "shares", description="what is drawn: shares by arm, or facts by parameter over rank"
    )
    changes: dict[str, JsonValue] = Field({}, description="keys of the recipe that all arms change")
    data: Data = Data()
    arms: dict[str, Arm] = Field({}, description="by name")
    grid: dict[str, list[JsonValue]] = Field(
        {}, description="keys of the recipe with their values: an arm for each combination"
    )
    claims: list[Claim] = []

    @model_validator(mode="after")
    def _has_arms_and_claims_of_them(self) -> "Study":
        names = [name for name, _ in self.sides()]
        if not names:
            raise ValueError("a study has arms, or a grid")
        if self.sample is None and (asked := [name for name, arm in self.sides() if arm.way != "tuned"]):
            raise ValueError(f"arms: {asked[0]!r}: a way of its own is asked one by one: give the study a `sample`")
        if odd := [name for name in names if not set(name).isdisjoint("/\\|\n")]:
            raise ValueError(f"arms: {odd[0]!r}: a name has no slash and no bar")
        if unknown := [name for claim in self.claims for name in (claim.arm, claim.against) if name not in names]:
            raise ValueError(f"claims: there is no arm {unknown[0]!r}; there are {', '.join(names)}")
        return self

    def sides(self) -> Iterator[tuple[str, Arm]]:
        """The arms by name: those that are written out, and those of the grid."""
        yield from self.arms.items()
        if self.grid:
            for values in itertools.product(*self.grid.values()):
                changes = dict(zip(self.grid, values, strict=True))
                yield ", ".join(f"{key}={_in_short(value)}" for key, value in changes.items()), Arm(recipe=changes)


def _in_short(value: object) -> str:
    return (
        "+".join(map(str, value))
        if isinstance(value, list)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


@dataclass(frozen=True)
class Trial:
    """An arm with one seed: what is trained and measured at a time.

    Attributes:
        study: the study's name.
        arm: the arm's.
        seed: of the recipe.
        recipe: with all changes.
        data: with the arm's.
        side: all else that the study says of the arm.
        sample: how many questions are asked one by one; None for all groups at once.
    """

    study: str
    arm: str
    seed: int
    recipe: Recipe
    data: Data
    side: Arm
    sample: Sample | None = None

    @property
    def key(self) -> str:
        """The partition key."""
        return f"{self.study}/{self.arm}/{self.seed}"

    @property
    def definition(self) -> str:
        """A hash of what the study says of it: recipe, data and base, and the code that measures."""
        recipe = self.recipe.model_dump(mode="json", exclude=set(NOT_OF_THE_ADAPTER))
        side = self.side.model_dump(mode="json", exclude={"recipe", "data"})
        sample = self.sample and self.sample.model_dump(mode="json")
        return _hash([recipe, self.data.model_dump(mode="json"), side, sample, CODE])

    def fingerprint(self, *made_of: str) -> str:
        """A hash of all that makes its result what it is: the definition, and hashes of rows and base."""
        return _hash([self.definition, *made_of])


def _mistake(error: ValidationError) -> str:
    """The first mistake, with its place and what was given."""
    first = error.errors()[0]
    place, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "no such key"
    return f"{place}: {message} (given: {first['input']!r})" if place else message


def _hash(content: list[object]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def study_names() -> list[str]:
    """The studies that come with the package."""
    return sorted(path.stem for path in STUDIES_FOLDER.glob("*.yaml"))


def names_for_all(*, long_too: bool) -> list[str]:
    """The studies that `run all` makes."""
    return [name for name in study_names() if long_too or not load_study(name).long]


def load_study(name: str) -> Study:
    """Read a shipped study by its name, or one's own by the path of its YAML file.

    Raises:
        ValueError: there is none, or a key is unknown, missing or out of range; names file, key and mend.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else STUDIES_FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(
            f"experiment {name!r}: no such study; use {', '.join(study_names())} or the path of a YAML file"
        )
    try:
        return Study.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    except ValidationError as error:
        raise ValueError(f"{path}: {_mistake(error)}") from error


def trials_of(name: str) -> list[Trial]:
    """All trials of a study, arm by arm.

    Raises:
        ValueError: as `load_study`, or an arm changes a key that there is not, or to what it cannot be.
    """
    study, known = load_study(name), load_recipe(load_study(name).recipe)
    found = []
    for arm_name, arm in study.sides():
        try:
            recipe = known.changed(**(study.changes | arm.recipe))
            data = Data.model_validate(study.data.model_dump() | arm.data)
        except KeyError as error:
            raise ValueError(f"{name}: arm {arm_name!r}: {error.args[0]}: no such key of a recipe") from error
        except ValidationError as error:
            raise ValueError(f"{name}: arm {arm_name!r}: {_mistake(error)}") from error
        found += [
            Trial(Path(name).stem, arm_name, seed, recipe.changed(seed=seed), data, arm, study.sample)
            for seed in study.seeds
        ]
    return found
