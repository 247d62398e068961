"""The tenants of a deployment: one YAML entry each, for a position, a league or a customer with an adapter of its own."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import yaml
from pydantic import ValidationError

from nfl_lora_pipeline.dataset.templates import choose_stats
from nfl_lora_pipeline.files import EMBEDDED, YAML_ENDINGS, one_line
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.settings import Settings, Taught

WIDE_RECEIVERS = "wide-receivers"
KEYS = tuple(Taught.model_fields)
PATHS = ("data_dir", "recipe", "base_model")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
NAMES = "use small letters, digits and hyphens, 63 characters at most"


@dataclass(frozen=True)
class Tenant:
    """Whoever has an adapter of his own.

    Attributes:
        name: a partition key, a folder's name and a model's name over HTTP.
        settings: those of the deployment, with what the entry says in their place. Their `store` is that of the deployment;
            `at` gives those of a worker's copy.
    """

    name: str
    settings: Settings

    def at(self, store: Path) -> Settings:
        """The settings of a store that holds this tenant's weeks and adapters."""
        return self.settings.model_copy(update={"store": str(store)})


def read_tenants(file: Path | None, deployment: Settings) -> tuple[Tenant, ...]:
    """The tenants of a file, sorted by name, and the wide receivers of the NFL, who are there without a word.

    Args:
        file: YAML, by each tenant's name a mapping of `KEYS`, or nothing. None for the wide receivers alone. The entry
            `wide-receivers: false` leaves these out. Folders and files in it are relative to it.
        deployment: what holds where an entry says nothing.

    Raises:
        ValueError: it is no such mapping, a name cannot be one, a key is unknown, or a value cannot be had; names file,
            tenant, key, value and mend.
    """
    entries: Mapping[str, object] = {WIDE_RECEIVERS: None} | ({} if file is None else _entries(file))
    where, folder = ("", Path()) if file is None else (f"{file}: ", file.parent)
    checked: set[tuple[object, ...]] = set()
    tenants = []
    for name, entry in sorted(entries.items()):
        if entry is False:
            continue
        keys = entry if isinstance(entry, dict) else {}
        tenant = Tenant(name, _settings(keys, deployment, f"{where}{name}", folder))
        words = (tenant.settings.stats, tenant.settings.position, tenant.settings.recipe)
        if words not in checked:  # thousands of tenants have a handful of recipes
            _check(tenant, where)
        checked.add(words)
        tenants.append(tenant)
    return tuple(tenants)


def _entries(file: Path) -> dict[str, object]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=LOADER) or {}
    except FileNotFoundError as error:
        raise ValueError(f"{file}: no such file; write one entry a tenant into it") from error
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: no YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected a mapping of tenants' names to their entries, found {content!r:.60}")
    for name, entry in content.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{file}: {name!r:.80}: cannot be a tenant's name; {NAMES}")
        if entry is False and name != WIDE_RECEIVERS:
            raise ValueError(f"{file}: {name}: false leaves out nobody but {WIDE_RECEIVERS}; remove the entry instead")
        if entry is not None and entry is not False and not isinstance(entry, dict):
            raise ValueError(f"{file}: {name}: expected keys and values, found {entry!r:.60}; use {', '.join(KEYS)}")
    return content


def _settings(entry: Mapping[str, object], deployment: Settings, where: str, folder: Path) -> Settings:
    for key in entry:
        if key not in KEYS:
            near = get_close_matches(str(key).lower().replace("-", "_"), KEYS, n=1)
            mend = f"did you mean {near[0]}?" if near else f"use {', '.join(KEYS)}"
            raise ValueError(f"{where}: {key}: no such key; {mend}")
    values = {key: _lasting(key, value, folder) if key in PATHS else _text(value) for key, value in entry.items()}
    try:
        taught = Taught.model_validate(deployment.model_dump(include=set(KEYS)) | values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{where}: {first['loc'][0]}: {first['input']!r}: {first['msg']}") from error
    return deployment.model_copy(update=taught.model_dump())


def _check(tenant: Tenant, where: str) -> None:
    try:
        choose_stats(tenant.settings.chosen_stats, tenant.settings.position)
        load_recipe(tenant.settings.recipe)
    except ValueError as error:
        raise ValueError(f"{where}{tenant.name}: {error}") from error


def _text(value: object) -> object:
    """As an environment variable would have it: lists by commas."""
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _lasting(key: str, value: object, folder: Path) -> object:
    """A path beside the file, where there is something of that name; what is empty or comes along, as it is."""
    is_path = str(value).endswith(YAML_ENDINGS) if key == "recipe" else value not in ("", None, EMBEDDED)
    beside = folder / str(value)
    return str(beside.resolve()) if is_path and beside.exists() else value
