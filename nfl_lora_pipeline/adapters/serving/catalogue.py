"""Which adapter answers to which name: that of one store, or those of all stores in a folder, loaded when they are asked for.

A tenant is a store with a name (`ServedStore`). What is promoted in it answers; what cannot be loaded is its own affair.
"""

import difflib
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Protocol

from nfl_lora_pipeline.adapters.serving.generation import LoadedAdapter, load_adapter
from nfl_lora_pipeline.adapters.serving.schema import RequestError
from nfl_lora_pipeline.files import DamagedFile
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import JsonObject
from nfl_lora_pipeline.weeks.week import spoken_weeks

LOADED = 64  # adapters at a time
TRY_AGAIN_SECONDS = 5  # after an adapter could not be loaded
NEAR_NAMES = 3
SHOWN_CHARACTERS = 100  # of a model's name that is not known

Report = Callable[[str], None]


class ServedStore:
    """A store, and the adapter of it that answers.

    Attributes:
        name: of the store's folder.
        store: the store.
        fingerprint: of the adapter that answers, loaded or not: the promoted one, or the one before where that is damaged.
        loaded: that adapter; None while it is not loaded.
        noticed_at: when it became the one, in seconds since 1970.
        used_at: when it was last asked for, by `time.monotonic`.
    """

    def __init__(self, store: Store, fingerprint: str):
        self.name, self.store, self.fingerprint = store.root.name, store, fingerprint
        self.loaded: LoadedAdapter | None = None
        self.noticed_at, self.used_at = int(time.time()), 0.0
        self._promoted = fingerprint
        self._error, self._failed_at = "", -float("inf")

    @property
    def full_name(self) -> str:
        """The model's name that says which adapter it is."""
        return f"nfl-lora-{self.fingerprint}"

    def load(self, others: Iterable[LoadedAdapter], report: Report) -> LoadedAdapter:
        """Load the adapter, sharing the weights of its base with others.

        Raises:
            RequestError: it cannot be loaded. That is found out again after some seconds.
        """
        if time.monotonic() > self._failed_at + TRY_AGAIN_SECONDS:
            try:
                self.loaded, self._error = load_adapter(self.store, self.fingerprint, *others), ""
                return self.loaded
            except Exception as error:  # whatever is wrong with it is no reason to leave the others without answers
                self._failed_at = time.monotonic()
                if str(error) != self._error:
                    report(f"adapter {self.fingerprint} cannot be loaded: {error}")
                self._error = str(error)
        raise RequestError(
            f"model {self.name!r}: its adapter {self.fingerprint} cannot be loaded; the log of the server says why",
            param="model",
            status=503,
            code="model_not_loaded",
        )

    def follow(self, others: Iterable[LoadedAdapter], report: Report) -> None:
        """Change to the promoted adapter, where that is another by now and can be used."""
        try:
            promoted = self.store.promoted()
        except (OSError, ValueError):  # the link is being moved, or is none
            return
        if promoted in (None, self._promoted):
            return
        self._promoted = str(promoted)
        if promoted == self.fingerprint:
            return
        before = self._knows()
        try:
            if self.loaded is None:
                self.store.check_adapter(self._promoted)
            else:
                self.loaded = load_adapter(self.store, self._promoted, self.loaded, *others)
        except Exception as error:  # whatever is wrong with it, the one before is right
            report(f"adapter {promoted} is promoted and not taken, {before} goes on answering: {error}")
            return
        self.fingerprint, self.noticed_at, self._failed_at = self._promoted, int(time.time()), -float("inf")
        report(f"adapter {self._knows()} answers now, after {before}")

    def to_json(self) -> JsonObject:
        """An entry of `/v1/models`, loaded or not; what only the base says is null until it is loaded."""
        if (loaded := self.loaded) is not None:
            return loaded.to_json()
        try:
            provenance = self.store.provenance(self.fingerprint)
        except DamagedFile:  # who asks it is told
            provenance = None
        return {
            "id": self.full_name,
            "object": "model",
            "created": self.noticed_at,
            "owned_by": "nfl_lora_pipeline",
            "fingerprint": self.fingerprint,
            "weeks": [*provenance.weeks] if provenance else [],
            "stats": [*provenance.stats] if provenance else [],
            "base_model": provenance.base_model if provenance else None,
            "single_turn": None,
            "context_length": None,
        }

    def _knows(self) -> str:
        """Fingerprint and weeks, for people."""
        if self.loaded is not None:
            return self.loaded.knows
        try:
            return f"{self.fingerprint} ({spoken_weeks(self.store.provenance(self.fingerprint).weeks)})"
        except DamagedFile:
            return self.fingerprint


class Catalogue(Protocol):
    """The tenants that a server answers for. Only `find`, `models` and `model` are called from other threads than the engine's.

    Attributes:
        share: what one tenant may take, at most, of the room for requests that are answered together.
    """

    share: float

    def start(self, report: Report) -> None:
        """Load what there is to begin with.

        Raises:
            ValueError: there is nothing that could answer.
        """

    def look(self, report: Report) -> None:
        """See what is promoted, and what has come and gone."""

    def find(self, model: str | None) -> ServedStore:
        """Who answers a request that names a model, or none.

        Raises:
            RequestError: nobody.
        """

    def load(self, tenant: ServedStore, busy: Collection[LoadedAdapter], report: Report) -> LoadedAdapter | None:
        """The adapter that a tenant's next request is answered with; None where all that are loaded are busy.

        Raises:
            RequestError: it cannot be loaded.
        """

    def models(self) -> list[JsonObject]:
        """The entries of `/v1/models`."""

    def model(self, name: str) -> JsonObject:
        """The entry of one.

        Raises:
            RequestError: there is none of that name.
        """

    def summary(self) -> str:
        """Who answers, for people."""


class OneStore:
    """A catalogue of one, who answers whatever model is named."""

    share = 1.0

    def __init__(self, store: Store, fingerprint: str, *, follows: bool):
        """Prepare the catalogue; `follows` says whether to change to what is promoted later."""
        self._tenant, self._follows = ServedStore(store, fingerprint), follows

    def start(self, report: Report) -> None:
        """As `Catalogue.start`."""
        self._tenant.loaded = load_adapter(self._tenant.store, self._tenant.fingerprint)

    def look(self, report: Report) -> None:
        """As `Catalogue.look`."""
        if self._follows:
            self._tenant.follow([], report)

    def find(self, model: str | None) -> ServedStore:
        """As `Catalogue.find`."""
        return self._tenant

    def load(self, tenant: ServedStore, busy: Collection[LoadedAdapter], report: Report) -> LoadedAdapter | None:
        """As `Catalogue.load`."""
        return tenant.loaded

    def models(self) -> list[JsonObject]:
        """As `Catalogue.models`."""
        return [self._tenant.to_json()]

    def model(self, name: str) -> JsonObject:
        """As `Catalogue.model`."""
        entry = self._tenant.to_json()
        if name != entry["id"]:
            has = f"model {name[:SHOWN_CHARACTERS]!r}: this server has {entry['id']}"
            raise RequestError(has, status=404, code="model_not_found")
        return entry

    def summary(self) -> str:
        """As `Catalogue.summary`."""
        return f"with adapter {self._tenant.loaded.knows if self._tenant.loaded else self._tenant.fingerprint}"


class ManyStores:
    """A catalogue of all stores in a folder that have a promoted adapter, each a model named by its folder."""

    share = 0.75  # so that there is room at once for somebody else

    def __init__(self, folder: Path, *, most_loaded: int = LOADED, default: str | None = None):
        """Prepare the catalogue.

        Args:
            folder: of the stores; those that appear and go later are followed.
            most_loaded: adapters at a time, at most.
            default: the tenant who answers requests that name no model; None for the only one, where there is one.

        Raises:
            ValueError: the folder is none, or a store itself.
        """
        if not folder.is_dir():
            raise ValueError(f"--stores {folder}: no such folder; name the one in which the stores are")
        if (folder / "adapters").is_dir():
            raise ValueError(f"--stores {folder}: a store itself; name the folder it is in, or use --store")
        self._folder, self._most_loaded, self._default = folder, most_loaded, default
        self._tenants: dict[str, ServedStore] = {}  # replaced, never changed, since several threads read it

    def start(self, report: Report) -> None:
        """As `Catalogue.start`: one adapter, so that the base is there when somebody asks."""
        self._scan()
        for tenant in self._tenants.values():
            try:
                tenant.load([], partial(_report_of, tenant, report))
                return
            except RequestError:  # which is reported
                continue

    def look(self, report: Report) -> None:
        """As `Catalogue.look`."""
        before = self._tenants
        self._scan()
        for name in sorted(self._tenants.keys() ^ before.keys()):
            report(f"model {name!r} {'is here' if name in self._tenants else 'has gone'}")
            if name in before:
                before[name].loaded = None
        others = self._loaded()
        for tenant in self._tenants.values():
            tenant.follow(others, partial(_report_of, tenant, report))

    def find(self, model: str | None) -> ServedStore:
        """As `Catalogue.find`."""
        tenants = self._tenants
        name = model or self._default or (next(iter(tenants)) if len(tenants) == 1 else None)
        if name is None:
            raise RequestError("model: name one; GET /v1/models lists them", param="model")
        found = tenants.get(name) or next((each for each in tenants.values() if each.full_name == name), None)
        if found is None:
            raise self._unknown(name)
        return found

    def load(self, tenant: ServedStore, busy: Collection[LoadedAdapter], report: Report) -> LoadedAdapter | None:
        """As `Catalogue.load`. For one more than may be loaded, the one that was asked for longest ago is dropped."""
        if self._tenants.get(tenant.name) is not tenant:
            raise self._unknown(tenant.name)
        tenant.used_at = time.monotonic()
        if tenant.loaded is not None:
            return tenant.loaded
        loaded = [each for each in self._tenants.values() if each.loaded is not None]
        idle = sorted((each for each in loaded if each.loaded not in busy), key=lambda each: each.used_at)
        too_many = len(loaded) + 1 - self._most_loaded
        if too_many > len(idle):
            return None
        found = tenant.load(self._loaded(), partial(_report_of, tenant, report))
        for each in idle[: max(0, too_many)]:
            each.loaded = None
        return found

    def models(self) -> list[JsonObject]:
        """As `Catalogue.models`."""
        return [_entry(tenant) for tenant in self._tenants.values()]

    def model(self, name: str) -> JsonObject:
        """As `Catalogue.model`."""
        return _entry(self.find(name))

    def summary(self) -> str:
        """As `Catalogue.summary`."""
        count = len(self._tenants)
        return f"for {count} {'store' if count == 1 else 'stores'} in {self._folder}"

    def _unknown(self, name: str) -> RequestError:
        tenants, shown = self._tenants, name[:SHOWN_CHARACTERS]
        near = difflib.get_close_matches(shown, tenants, NEAR_NAMES)
        hint = f"near it are {', '.join(map(repr, near))}; " if near else ""
        said = f"model {shown!r}: there is none of that name; {hint}GET /v1/models lists all {len(tenants)}"
        return RequestError(said, param="model", status=404, code="model_not_found")

    def _loaded(self) -> list[LoadedAdapter]:
        return [tenant.loaded for tenant in self._tenants.values() if tenant.loaded is not None]

    def _scan(self) -> None:
        """The tenants that are there now, by name; who was there already stays as he is."""
        try:
            folders = sorted(each for each in self._folder.iterdir() if each.name[0] != ".")
        except OSError:  # it may come back, and whoever is loaded can answer
            return
        tenants = {}
        for folder in folders:
            tenant = self._tenants.get(folder.name)
            if tenant is None:
                tenant = _found(Store(folder))
            elif not (folder / "adapters").is_dir():
                continue
            if tenant is not None:
                tenants[folder.name] = tenant
        self._tenants = tenants


def _found(store: Store) -> ServedStore | None:
    """The tenant of a store with a promoted adapter."""
    try:
        promoted = store.promoted()
    except (OSError, ValueError):
        return None
    return None if promoted is None else ServedStore(store, promoted)


def _report_of(tenant: ServedStore, report: Report, line: str) -> None:
    report(f"model {tenant.name!r}: {line}")


def _entry(tenant: ServedStore) -> JsonObject:
    own: JsonObject = {
        "id": tenant.name,
        "tenant": tenant.name,
        "full_name": tenant.full_name,
        "created": tenant.noticed_at,
    }
    return tenant.to_json() | own
