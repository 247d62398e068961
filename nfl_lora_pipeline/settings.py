"""What a deployment is set to, by environment variables; `nfl-lora ui` hands its options to Dagster's processes as such.

What a folder's file sets stands before the defaults of the command line, and behind the environment (`read_choices`). Nothing
is read when this module is imported: whoever builds definitions, or runs a command, calls `Settings.read`.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from nfl_lora_pipeline.files import lasting_base, lasting_recipe
from nfl_lora_pipeline.stats import POSITIONS, Position
from nfl_lora_pipeline.weeks.sources.github import UPSTREAM_URL
from nfl_lora_pipeline.weeks.week import weeks_named

PREFIX = "NFL_LORA_"
EXPECTED = {"bool_parsing": "use 1 or 0", "int_parsing": "expected a number"}  # by pydantic's name of the mistake


def as_list(text: str) -> list[str]:
    """The parts between commas, without blanks."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _parts(value: object) -> object:
    return as_list(value) if isinstance(value, str) else value


def _weeks(texts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    named = weeks_named(",".join(texts), info.data.get("season") or None) if texts else ()
    return tuple(map(str, named))


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parts)]


class Taught(BaseModel):
    """What an adapter is taught, from where, and how: what a tenant of a deployment may have otherwise than the others."""

    model_config = ConfigDict(frozen=True)

    season: int = Field(0, ge=0, description="the year that a season begins in; 0 for the one that is on, or was last")
    weeks: Annotated[Names, AfterValidator(_weeks)] = Field(
        (), description="1-3 of the season, or partition keys, to train on; empty for every week held of the newest"
    )
    position: Position = Field("WR", description="whose weeks: WR, RB, TE or QB; a store is of one position")
    stats: Names = Field((), description='which stats to teach, or "all"; empty for the first of the position')
    source: str = Field(
        "auto", description="where weeks come from: auto, folder, github, sample or another of `weeks/sources`"
    )
    data_dir: str = Field("", description="a folder of raw weeks; empty for `raw` in the store")
    base_url: str = Field(UPSTREAM_URL, description="what stands before `/{season}/{week}/{position}.json` upstream")
    recipe: str = Field("embedded", description="a shipped recipe's name or the path of a YAML file")
    base_model: str = Field(
        "", description="embedded, a folder, a GGUF file or a Hugging Face id; empty for the recipe's own"
    )

    @property
    def chosen_stats(self) -> list[str]:
        """What to teach: the stats that are set or, where none is, the one of the position."""
        return list(self.stats) or [POSITIONS[self.position].stat]


class Settings(Taught, BaseSettings):
    """One deployment. The variable of `store` is `NFL_LORA_STORE`, and so on; lists are separated by commas."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    store: str = Field("data", description="the folder for all results")
    mode: Literal["every_fact", "random_facts"] = Field(
        "every_fact", description="how the splits are made; random_facts is that of the original experiment"
    )
    accept_odd_weeks: bool = Field(
        False, description="whether weeks that the checks take for cut, empty or copied are taught (1)"
    )
    replace: bool = Field(
        False, description="whether an adapter is promoted though the promoted one knows what it was not taught (1)"
    )
    watch: bool = Field(False, description="whether sensors and schedule are on from the start (1)")
    tenants: str = Field("", description="a YAML file of tenants, for a deployment of many; empty for one store")
    archive: str = Field(
        "",
        description="where the versions of tenants' stores are: a folder or s3://…; empty for `archive` in the store",
    )
    database: str = Field("", description="of who works on which tenant: postgresql://…; empty for a file in the store")
    share: str = Field("0/1", description="which of the tenants a code server has: 0/2 and 1/2 for two of them")
    watch_seconds: int = Field(300, ge=1, description="how long the sensor waits between two looks")

    @classmethod
    def read(cls, **given: Any) -> "Settings":
        """The settings of the environment; what is given goes before it.

        Raises:
            ValueError: a value is not one that the setting can have; names the variable and what to write.
        """
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            name = variable(str(first["loc"][0]))
            raise ValueError(f"{name}={first['input']!r}: {EXPECTED.get(first['type'], first['msg'])}") from error

    def to_environment(self) -> dict[str, str]:
        """The variables that `read` reads back; folders and files are made absolute."""
        values = self.model_dump() | {
            "store": str(Path(self.store).resolve()),
            "data_dir": str(self.folder.resolve()),
            "recipe": lasting_recipe(self.recipe),
            "base_model": lasting_base(self.base_model),
            "tenants": str(Path(self.tenants).resolve()) if self.tenants else "",
            "archive": self.archive if "://" in self.archive or not self.archive else str(Path(self.archive).resolve()),
        }
        return {variable(name): _as_text(value) for name, value in values.items()}

    @contextmanager
    def upstream_known(self) -> Iterator[None]:
        """In the block `upstream_url` is that of these settings.

        Dagster keeps with every run what a resource is given, and an address may hold a password: so it is in the environment.
        """
        name = variable("base_url")
        before = os.environ.get(name)
        os.environ[name] = self.base_url
        try:
            yield
        finally:
            os.environ[name] = before or ""  # an empty one is none

    @property
    def folder(self) -> Path:
        """The folder of raw weeks."""
        return Path(self.data_dir) if self.data_dir else Path(self.store) / "raw"


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def upstream_url() -> str:
    """What stands before `/{season}/{week}/{position}.json` upstream, by the environment, whatever else is in that."""
    return os.environ.get(variable("base_url")) or UPSTREAM_URL


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return str(int(value) if isinstance(value, bool) else value)


CHOICES_FILE, PROJECT_FILE, TABLE = "nfl-lora.toml", "pyproject.toml", "[tool.nfl-lora]"
CHOICES = (
    "season",
    "weeks",
    "position",
    "stats",
    "source",
    "data-dir",
    "store",
    "recipe",
    "base-model",
)  # as the options are called


def read_choices(folder: Path) -> tuple[str, dict[str, str]]:
    """What the file of a working folder sets: `nfl-lora.toml`, or else `[tool.nfl-lora]` of its `pyproject.toml`.

    Returns:
        Which file that is, as shown to people, and by each key the text that an option of that name would be given.

    Raises:
        ValueError: it is no TOML, a key is none of `CHOICES`, or a value is no text, number or list of these; names file,
            key and mend.
    """
    file = folder / CHOICES_FILE
    if file.is_file():
        return CHOICES_FILE, _as_options(_toml(file), CHOICES_FILE)
    file = folder / PROJECT_FILE
    if not file.is_file():
        return "", {}
    where = f"{PROJECT_FILE}: {TABLE}"
    return where, _as_options(_toml(file, "tool", "nfl-lora"), where)


def _toml(file: Path, *tables: str) -> Mapping[str, object]:
    """A file, or a table in a table of it; empty where there is none."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        for table in tables:
            content = content.get(table, {})
        return content
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file.name}: not valid TOML: {error}; texts stand in quotes") from error


def _as_options(content: Mapping[str, object], where: str) -> dict[str, str]:
    found = {}
    for key, value in content.items():
        if key not in CHOICES:
            near = get_close_matches(key.lower().replace("_", "-"), CHOICES, n=1)
            mend = f"did you mean {near[0]}?" if near else f"use {', '.join(CHOICES)}"
            raise ValueError(f"{where}: {key}: no such key; {mend}")
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, str | int) and not isinstance(part, bool) for part in parts):
            raise ValueError(f"{where}: {key}: expected a text, a number or a list of these (given: {value!r})")
        found[key] = ",".join(map(str, parts))
    return found
