"""Training recipes: small YAML files, checked before any work starts, and how many steps and which rates they come to."""

import json
import math
from collections.abc import Callable
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from nfl_lora_pipeline.dataset.templates import ANSWERS_ABOVE
from nfl_lora_pipeline.dataset.unanswerable import Mixture
from nfl_lora_pipeline.models.machine import kind

NOT_OF_THE_ADAPTER = ("gates", "warm_start")  # keys that make no other adapter
LEFT_OF = {"varied_share": (0.9, "refusal_share"), "other_stats_share": (0.8, "elsewhere_share")}
"""Shares that are at most what another one leaves of so much: some rows must teach, some be about strangers."""
RECIPES_FOLDER = Path(str(files("nfl_lora_pipeline"))) / "recipes"


def _not_a_switch(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("Input should be a valid number")
    return value


Number = Annotated[float, BeforeValidator(_not_a_switch)]  # a string too: YAML reads 1e-5 as one


class Section(BaseModel):
    """Keys that belong together."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Lora(Section):
    """What of the base model is trained."""

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


class Optimizer(Section):
    """Adam, and how its learning rate goes."""

    learning_rate: Number = Field(1.3e-3, gt=0, le=1, description="the peak")
    schedule: Literal["wsd", "constant", "linear", "cosine"] = Field(
        "wsd",
        description="up, at the peak until nearly all is known, and down; or constant, linear, cosine over all steps",
    )
    warmup_steps: int = Field(20, ge=0, strict=True, description="linear, from 0")
    lowest_rate: Number = Field(
        0.12, ge=0, le=1, description="the share of the peak that is left at the end of every way down"
    )
    weight_decay: Number = Field(0.0, ge=0, lt=1, description="of AdamW; 0 is Adam")


class Curriculum(Section):
    """Which rows a step shows, when it is asked what is known, and when it ends."""

    batch_rows: int = Field(32, ge=1, strict=True, description="rows a step")
    facts_in_hand: int = Field(1000, ge=1, strict=True, description="facts in doubt that are worked on at a time")
    replay_share: Number = Field(0.25, ge=0, le=1, description="known facts shown again for each one in doubt")
    safe_above: Number = Field(
        0.9, gt=0, lt=1, description="a fact is in doubt while a token of its answer has a probability below this"
    )
    known_above: Number = Field(
        0.95, gt=0, le=1, description="a token whose probability is above this is left out of the loss"
    )
    certain_above: Number = Field(
        ANSWERS_ABOVE,
        ge=ANSWERS_ABOVE,
        lt=1,
        description="a fact is certain when its answer as a whole has a probability above this; below 0.6 nobody is told it",
    )
    refusal_share: Number = Field(
        0.45, ge=0, le=0.75, description="the share of a step's rows that are questions without an answer"
    )
    varied_share: Number = Field(
        0.3, ge=0, le=0.75, description="and the share that asks about taught facts in other wordings and spellings"
    )
    elsewhere_share: Number = Field(
        0.08,
        ge=0,
        le=0.8,
        description="of the questions without an answer: about known players in weeks and seasons that are not taught",
    )
    other_stats_share: Number = Field(
        0.11, ge=0, le=0.8, description="and about known players and stats that are not taught"
    )
    outside_share: Number = Field(
        0.05,
        ge=0,
        le=0.5,
        description="and, before all of these, what no one number answers: without a week or a player, about several of them",
    )
    refusal_weight: Number = Field(
        1.6,
        gt=0,
        description="how much more the other refusals weigh in a step's loss than answers: a doubt is to be a refusal",
    )
    again_share: Number = Field(
        0.5,
        ge=0,
        le=0.8,
        description="of the questions drawn afresh, up to this share of a step's were missed before and are shown again",
    )
    rehearsal_share: Number = Field(
        0.0,
        ge=0,
        le=0.5,
        description="the share of a step's rows that the base's own answers to general requests get, besides; 0 is none",
    )
    last_names: bool = Field(
        True, strict=True, description="every fact is taught once more, asked about by the last name alone"
    )
    fresh_known: Number = Field(
        0.95,
        ge=0,
        lt=1,
        description="wsd: the way down begins when so many of the last of all these were right before they were trained on",
    )
    fresh_patience: Number = Field(
        0.5,
        ge=0,
        le=1,
        description="or, where the taught facts are known, at this share of the steps at the peak for those that were new",
    )
    nearly_known: Number = Field(
        0.03,
        ge=0,
        lt=1,
        description="wsd: the way down begins when no more of the taught facts than this are uncertain",
    )
    ending_steps: int = Field(100, ge=1, strict=True, description="wsd: the way down takes so many steps")
    ending_share: Number = Field(
        0.75,
        ge=0,
        description="or this share of the steps before it, of an update no more than it may wait for, where that is more",
    )
    check_every: int = Field(
        16,
        ge=1,
        strict=True,
        description="from the end of the way down on, the steps between two checks; where facts / batch_rows is more, that",
    )
    max_epochs: int = Field(
        24,
        ge=1,
        strict=True,
        description="an epoch has as many steps as all rows that teach would fill; training may end sooner",
    )
    max_steps: int = Field(12000, ge=1, strict=True, description="and never more than this at the peak")

    @field_validator(*LEFT_OF)
    @classmethod
    def _is_left(cls, share: float, info: ValidationInfo) -> float:
        whole, other = LEFT_OF[str(info.field_name)]
        left = whole - info.data.get(other, 0.0)
        if share > left + 1e-9:
            raise ValueError(f"Input should be at most {left:.2g}: the rest of {whole} is {other}'s")
        return share

    @property
    def rehearsed_rows(self) -> int:
        """How many of the base's own answers a step shows besides its `batch_rows`."""
        return round(self.rehearsal_share * self.batch_rows)

    def mixture(self, *, talks: bool) -> Mixture:
        """What the questions are about that are drawn afresh for each step; `talks` is that of `Mixture`."""
        fresh = self.varied_share + self.refusal_share
        varied = self.varied_share / fresh if fresh else 0.0
        return Mixture(
            varied,
            self.elsewhere_share,
            self.other_stats_share,
            refusal_weight=self.refusal_weight,
            outside=self.outside_share,
            talks=talks,
        )


class Gates(Section):
    """What an adapter must reach to be promoted; null is no limit, and a gate without a limit is not judged."""

    min_recall: Number | None = Field(
        0.995, ge=0, le=1, description="promoted only when so many trained questions are right, in the worst week"
    )
    min_held_out: Number | None = Field(
        0.98, ge=0, le=1, description="and so many questions in phrasings that are not trained"
    )
    min_hand_written: Number | None = Field(
        0.9, ge=0, le=1, description="and so many in wordings written by hand, which nothing is made with"
    )
    min_bare_words: Number | None = Field(
        0.9, ge=0, le=1, description="and so many in bare words, a question's parts as they are typed into a search box"
    )
    min_careless: Number | None = Field(
        0.95,
        ge=0,
        le=1,
        description="and so many typed carelessly: in lower case, without a mark, with two blanks, short, without accents",
    )
    min_last_name: Number | None = Field(
        0.9, ge=0, le=1, description="and so many with the last name alone, where nobody else bears it"
    )
    min_shared_last_name: Number | None = Field(
        0.9, ge=0, le=1, description="and so many with a last name of several people are refused, or name them all"
    )
    min_typo: Number | None = Field(0.8, ge=0, le=1, description="and so many with a typo in the name are right")
    max_wrong_typo: Number | None = Field(0.02, ge=0, le=1, description="and no more of these get a wrong number")
    min_refused: Number | None = Field(
        0.98, ge=0, le=1, description="and so many questions about strangers are refused"
    )
    min_refused_positions: Number | None = Field(
        0.98, ge=0, le=1, description="and so many about real tight ends and running backs"
    )
    min_refused_weeks: Number | None = Field(
        0.97,
        ge=0,
        le=1,
        description="and so many about known players next week, and in other weeks that were not taught",
    )
    min_refused_seasons: Number | None = Field(
        0.97, ge=0, le=1, description="and so many about known players in seasons that were not taught"
    )
    min_refused_stats: Number | None = Field(
        0.97, ge=0, le=1, description="and so many about known players and stats that were not taught"
    )
    min_refused_incomplete: Number | None = Field(
        0.97,
        ge=0,
        le=1,
        description="and so many that no one number answers get none: without a week, of several players",
    )
    max_over_refused: Number | None = Field(
        0.01,
        ge=0,
        le=1,
        description="and no more questions about known numbers are refused, in trained or in held-out phrasings",
    )
    min_retained: Number | None = Field(
        0.95, ge=0, le=1, description="and so much is left of whatever the base could do before"
    )
    max_perplexity_ratio: Number | None = Field(
        1.05, ge=1, description="and no more times as high is the perplexity of what the base says in general"
    )
    max_lost: Number | None = Field(
        0.003,
        ge=0,
        le=1,
        description="and no more trained questions than this were right in the promoted adapter and are now wrong",
    )
    advisory: list[str] = Field([], description="limits that are told where they are missed, and keep no adapter back")

    floors: dict[str, Number] = Field(
        {}, description="advisory limits that keep an adapter back all the same where it is beyond this"
    )

    @field_validator("advisory")
    @classmethod
    def _limits_there_are(cls, keys: list[str]) -> list[str]:
        if unknown := [key for key in keys if key not in LIMITS]:
            raise ValueError(f"Input should be limits of this recipe ({', '.join(LIMITS)}), not {unknown[0]!r}")
        return keys

    @field_validator("floors")
    @classmethod
    def _floors_of_advisory_limits(cls, floors: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        if others := [key for key in floors if key not in info.data.get("advisory", [])]:
            raise ValueError(f"Input should be of limits that are advisory, not {others[0]!r}, which blocks anyway")
        return floors


LIMITS = tuple(key for key in Gates.model_fields if key not in ("advisory", "floors"))


class Recipe(Section):
    """How an adapter is trained, and what is asked of it: `nfl-lora recipe show NAME` prints all of it.

    The defaults are those of the embedded base.
    """

    base_model: str = Field(
        min_length=1, description="an alias (embedded), a Hugging Face id or a folder that mlx_lm.load takes"
    )
    method: Literal["recall", "mlx_lm"] = Field(
        "recall", description="what is not yet known, until all is; or mlx_lm: its own trainer, loss and batches"
    )
    seed: int = Field(
        17, ge=0, lt=2**32, strict=True, description="of the adapter's start, the order of rows and the strangers"
    )
    warm_start: bool = Field(
        True,
        strict=True,
        description="go on from the adapter before, where a season has grown by a week; false begins anew",
    )
    lora: Lora = Field(default_factory=Lora, description="what of the base model is trained")
    optimizer: Optimizer = Field(default_factory=Optimizer, description="Adam, and how its learning rate goes")
    curriculum: Curriculum = Field(
        default_factory=Curriculum,
        description="which rows a step shows, when it is asked what is known, and when it ends",
    )
    gates: Gates = Field(default_factory=Gates, description="what an adapter must reach to be promoted")

    @model_validator(mode="after")
    def _somebody_measures(self) -> "Recipe":
        if self.optimizer.schedule == "wsd" and self.method == "mlx_lm":
            mend = "Input should be 'constant', 'linear' or 'cosine', since method mlx_lm measures no recall"
            raise ValueError(f"optimizer.schedule: {mend} (given: 'wsd')")
        return self

    def values(self) -> dict[str, Any]:
        """Every value by its key alone; no key stands in two sections."""
        content = self.model_dump()
        return {key: content[key] for key in content if key not in SECTIONS} | {
            key: value for section in SECTIONS for key, value in content[section].items()
        }

    def changed(self, **values: Any) -> "Recipe":
        """The same recipe with other values, given by the keys alone, whatever sections they stand in.

        Raises:
            ValidationError: a value is out of range.
            KeyError: there is no such key.
        """
        content = self.model_dump()
        for key, value in values.items():
            if key not in SECTION_OF and key not in content:
                raise KeyError(key)
            (content[SECTION_OF[key]] if key in SECTION_OF else content)[key] = value
        return Recipe.model_validate(content)


SECTIONS: dict[str, type[Section]] = {"lora": Lora, "optimizer": Optimizer, "curriculum": Curriculum, "gates": Gates}
SECTION_OF = {key: name for name, section in SECTIONS.items() for key in section.model_fields}


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in RECIPES_FOLDER.glob("*.yaml"))


AUTO = "auto"
FOR_CPU, FOR_ACCELERATOR = "embedded", "smollm2-135m"


def recipe_for_this_machine() -> tuple[str, str]:
    """The shipped recipe that suits what MLX computes on here: its name, and why it is that one, in a line."""
    from nfl_lora_pipeline.models.base_model import is_within_reach

    return recipe_for(kind(), is_within_reach)


def recipe_for(device: str, is_within_reach: Callable[[str], bool]) -> tuple[str, str]:
    """The shipped recipe for an accelerator, or for a CPU where `device` is empty, and why it is that one, in a line.

    Args:
        device: its name for people.
        is_within_reach: whether a base model is on this machine or can be downloaded.
    """
    if not device:
        why = "MLX computes on the CPU here, on which a real language model takes its time"
        return FOR_CPU, f"{FOR_CPU}, since {why}; --recipe {FOR_ACCELERATOR} has one"
    base = load_recipe(FOR_ACCELERATOR).base_model
    if not is_within_reach(base):
        why = f"{base}, which {device} would do for, is neither on this machine nor to be downloaded"
        return FOR_CPU, f"{FOR_CPU}, since {why}; `make smollm2` has it, and then --recipe {FOR_ACCELERATOR}"
    return FOR_ACCELERATOR, f"{FOR_ACCELERATOR}, since there is {device}; --recipe {FOR_CPU} is smaller and sooner done"


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
    """All keys with their values, each with its description as a comment; a section's keys are indented."""
    lines = []
    for key, value in recipe.model_dump().items():
        lines.append((f"{key}:" if key in SECTIONS else f"{key}: {json.dumps(value)}", _described(Recipe, key)))
        if key in SECTIONS:
            lines += [(f"  {name}: {json.dumps(of)}", _described(SECTIONS[key], name)) for name, of in value.items()]
    width = max(len(line) for line, _ in lines)  # JSON is YAML
    return "\n".join(f"{line:<{width}}  # {description}" for line, description in lines)


def _described(section: type[Section], key: str) -> str:
    return section.model_fields[key].description or ""


def _what_is_wrong(error: ValidationError) -> str:
    """The first mistake: its key, what is expected and what was given; an unknown key with the one that was meant."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    match first["type"]:
        case "missing":
            return f"{key}: {message}"
        case "extra_forbidden":
            return f"{key}: no such key (given: {first['input']!r}); {_meant(first['loc'])}"
        case "model_type":
            return f"{key}: expected keys and values of this section (given: {first['input']!r})"
        case _:
            return f"{key}: {message} (given: {first['input']!r})" if key else message


def _meant(location: tuple[int | str, ...]) -> str:
    """Which key was meant, by its name with its section."""
    *outer, key = map(str, location)
    names = {name: f"{section}.{name}" for name, section in SECTION_OF.items()}
    names |= {name: name for name in Recipe.model_fields}
    if key in names:
        return f"it is {names[key]}" + (": keys stand in sections" if not outer else "")
    known = SECTIONS[outer[0]].model_fields if outer and outer[0] in SECTIONS else names
    near = get_close_matches(key.lower(), known, n=1)
    return f"did you mean {names[near[0]]}?" if near else f"use {', '.join(names[name] for name in known)}"


def steps_at_peak(curriculum: Curriculum, teaching: int) -> int:
    """How many steps the learning rate is at its peak at most, where so many rows teach."""
    of_epochs = min(curriculum.max_steps, math.ceil(curriculum.max_epochs * teaching / curriculum.batch_rows))
    return max(of_epochs, min(curriculum.max_steps, 3 * curriculum.ending_steps))


def steps_of_patience(curriculum: Curriculum, to_learn: int) -> int:
    """How many steps the way down waits for questions drawn afresh, where so many rows were new."""
    return math.ceil(curriculum.fresh_patience * steps_at_peak(curriculum, to_learn))


def steps_expected(recipe: Recipe, to_learn: int) -> int:
    """How many steps it will be for so many rows, where they are known before the questions drawn afresh are."""
    curriculum, budget = recipe.curriculum, steps_at_peak(recipe.curriculum, to_learn)
    if recipe.optimizer.schedule != "wsd":
        return budget
    peak = steps_of_patience(curriculum, to_learn)
    way_down = max(curriculum.ending_steps, math.ceil(curriculum.ending_share * peak))
    return min(budget + curriculum.ending_steps, peak + way_down)


def learning_rate(recipe: Recipe, step: int, start: int, end: int) -> float:
    """The rate for a step: a linear warm-up, the peak, and from `start` to `end` the way down that the `schedule` says.

    Args:
        recipe: with `learning_rate` (the peak), `warmup_steps`, `schedule` and `lowest_rate`, which is where it stays.
        step: from 0.
        start: where the way down begins: for the schedule "wsd" where nearly all is known, for the others at 0.
        end: where it ends.
    """
    warm = min(1.0, (step + 1) / (recipe.optimizer.warmup_steps + 1))
    left = min(1.0, max(0.0, 1 - (step - start) / max(1, end - start)))
    shares = {"constant": 1.0, "cosine": (1 - math.cos(math.pi * left)) / 2}
    lowest = recipe.optimizer.lowest_rate
    share = lowest + (1 - lowest) * shares.get(recipe.optimizer.schedule, left)
    return recipe.optimizer.learning_rate * warm * share
