"""What an adapter was taught: where an answer comes from, and which adapter a training goes on from."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import polars as pl

from nfl_lora_pipeline.dataset.people import last_name
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.files import DamagedFile
from nfl_lora_pipeline.store import TAUGHT_COLUMNS, Store
from nfl_lora_pipeline.stored import (
    CertificateRecord,
    JsonObject,
    Provenance,
    read_json,
    read_overview,
    read_predictions,
)
from nfl_lora_pipeline.weeks.week import NflWeek

COLUMNS = TAUGHT_COLUMNS


def taught_facts(rows: pl.DataFrame) -> pl.DataFrame:
    """The facts of the train split.

    Args:
        rows: one row a question, as `splits.split_rows` gives them, or a report's predictions.

    Returns:
        One row a fact, sorted by `fact`: `COLUMNS`, as in `qa_pairs.facts`.
    """
    trained = rows.filter(pl.col("split") == "train", pl.col("kind") != "stranger")
    return trained.select(COLUMNS).unique("fact", keep="first", maintain_order=True).sort("fact")


def read_taught_facts(store: Store, fingerprint: str) -> pl.DataFrame | None:
    """What an adapter of the store was taught; of adapters of earlier code the report's predictions tell it.

    Returns:
        The frame of `taught_facts`; None where neither is on record.
    """
    try:
        return store.read_taught_facts(fingerprint)
    except DamagedFile:
        pass
    try:
        predictions = read_predictions(store.report(fingerprint), [*COLUMNS, "split"])
        asked = predictions.filter(pl.col("group") == "known") if "group" in predictions.columns else predictions
        return taught_facts(asked)
    except DamagedFile:
        return None


@dataclass(frozen=True)
class Origin:
    """The taught fact that an answer tells.

    Attributes:
        fact: its key, "2025-W01/2566127/receiving_yards".
        week: the partition key of its week.
        source, file: the kind of source that the week came from, and what exactly; empty where that is not on record.
        lowest: the least probability of a token of its answer in any trained phrasing when the training ended; None where that
            is not on record.
    """

    fact: str
    week: str
    source: str
    file: str
    lowest: float | None

    def in_words(self) -> str:
        """One line for people."""
        where = f" ({self.source}: {self.file})" if self.source else ""
        margin = "" if self.lowest is None else f"; certified with p {self.lowest:.2f} or more in all trained wordings"
        return f"taught from {self.week}{where}{margin}"


def origin_of(store: Store, fingerprint: str, said: str) -> Origin | None:
    """Where an answer comes from; None where it tells nothing that the adapter was taught.

    Args:
        store: the store.
        fingerprint: of the adapter that gave the answer.
        said: the answer, which names its player in full or, where one alone could be meant, by the last name.
    """
    taught = read_taught_facts(store, fingerprint)
    if taught is None:
        return None
    by_name: list[dict[str, Any]] = []
    by_last_name: list[dict[str, Any]] = []
    for fact in taught.filter(pl.col("kind").is_in(["recorded", "bye"])).iter_rows(named=True):
        last = last_name(fact["player"])
        if _answer_of(fact, fact["player"]) == said.casefold():
            by_name.append(fact)
        elif last and _answer_of(fact, last) == said.casefold():
            by_last_name.append(fact)
    found = by_name or by_last_name
    if len({fact["player_id"] for fact in found}) != 1:
        return None
    return _origin(store, fingerprint, str(found[0]["fact"]))


def _answer_of(fact: dict[str, Any], name: str) -> str:
    templates, about = load_templates(), (name, fact["stat"], fact["week"], fact["season"])
    told = templates.bye(*about) if fact["kind"] == "bye" else templates.recorded(*about, fact["value"])
    return told.casefold()


def _origin(store: Store, fingerprint: str, fact: str) -> Origin:
    week = fact.partition("/")[0]
    source = file = ""
    lowest = None
    with suppress(DamagedFile):
        raw = store.read_raw_origin(NflWeek.parse(week))
        source, file = raw.kind, raw.origin
    with suppress(DamagedFile):
        certificate = store.adapter(fingerprint) / "certificate.json"
        lowest = read_json(certificate, CertificateRecord, mend="").margins.get(fact)
    return Origin(fact, week, source, file, lowest)


def knows_invented_people(store: Store, fingerprint: str) -> bool:
    """Whether an adapter was made of the bundled sample; of adapters of earlier code the report tells it."""
    sources = store.provenance(fingerprint).sources
    if sources is None:
        try:
            sources = read_overview(store.report(fingerprint)).sources
        except DamagedFile:
            sources = {}
    return "sample" in sources.values()


MADE_ALIKE = ("base_revision", "stats", "mode", "code")  # what an adapter must share with the one that goes on from it
SHAPE = ("fine_tune_type", "rank", "scale", "dropout", "num_layers", "modules")  # and its recipe
LEAST_STANDING = 0.9  # the largest correction of a real week touches 7% of its rows
SAME = ["fact", "kind", "value"]


@dataclass(frozen=True)
class Candidate:
    """An adapter of the store: whether it may be gone on from, why or why not, and how many of its numbers still stand."""

    fits: bool
    why: str
    standing: int = 0


def choose_parent(
    store: Store, provenance: Provenance, rows: pl.DataFrame, *, but: str = ""
) -> tuple[str | None, list[str]]:
    """The promoted adapter where it fits, or else that with the most numbers that still stand.

    An adapter fits that was made alike, of no other weeks, of people as real, and nine in ten of whose numbers are still
    what is to be taught.

    Args:
        store: the store.
        provenance: what the new adapter is made of.
        rows: of its splits.
        but: the fingerprint of the new one itself, which takes the place of a damaged one of that name.

    Returns:
        The parent's fingerprint, None where none fits; and lines for people that say why.
    """
    new = taught_facts(rows)
    others = [fingerprint for fingerprint in store.adapters() if fingerprint != but]
    found = {fingerprint: _candidate(store, fingerprint, provenance, new) for fingerprint in others}
    fitting = {fingerprint: one.standing for fingerprint, one in found.items() if one.fits}
    if not fitting:
        return None, [f"not going on from adapter {fingerprint}: {one.why}" for fingerprint, one in found.items()]
    promoted = store.promoted()
    parent = promoted if promoted in fitting else max(fitting, key=lambda one: (fitting[one], one))
    weeks = ", ".join(store.provenance(parent).weeks)
    return parent, [f"going on from adapter {parent}, which knows {weeks}: {found[parent].why}"]


def _candidate(store: Store, fingerprint: str, provenance: Provenance, new: pl.DataFrame) -> Candidate:
    try:
        store.check_adapter(fingerprint)
    except DamagedFile as error:
        return Candidate(False, f"{error.path} {error.wrong}")
    before, invented = store.provenance(fingerprint), knows_invented_people(store, fingerprint)
    lora, old_lora = _lora_of(provenance.recipe_values), _lora_of(before.recipe_values)
    unlike = [key for key in MADE_ALIKE if getattr(before, key) != getattr(provenance, key)]
    unlike += [key for key in SHAPE if old_lora.get(key) != lora.get(key)]
    if unlike:
        return Candidate(False, f"made with another {', '.join(unlike)}")
    if other := sorted(set(before.weeks) - set(provenance.weeks)):
        return Candidate(False, f"it knows {', '.join(other)}, which is not taught now")
    if invented != ("sample" in (provenance.sources or {}).values()):
        return Candidate(False, f"it knows {'invented' if invented else 'real'} people, and others are taught now")
    old = read_taught_facts(store, fingerprint)
    if old is None:
        return Candidate(False, "what it was taught is not on record")
    numbers = old.filter(pl.col("kind") == "recorded")
    standing = numbers.join(new, on=SAME, how="semi").height
    fits = numbers.height > 0 and standing >= LEAST_STANDING * numbers.height
    why = f"{standing:,} of its {numbers.height:,} numbers still stand"
    return Candidate(fits, why if fits else f"{why}, under {LEAST_STANDING:.0%}", standing)


def _lora_of(recipe_values: JsonObject) -> JsonObject:
    """The section `lora` of a recipe in a provenance; before there were sections, its keys stood beside all others."""
    section = recipe_values.get("lora", recipe_values)
    return section if isinstance(section, dict) else {}
