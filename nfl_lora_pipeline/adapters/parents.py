"""Which adapter a training goes on from: one that knows the same facts, or none."""

from typing import Any

import polars as pl

from nfl_lora_pipeline.adapters.taught_facts import knows_invented_people, read_taught_facts, taught_facts
from nfl_lora_pipeline.store import Store

MADE_ALIKE = ("base_revision", "stats", "mode", "code")  # what an adapter must share with the one that goes on from it
SHAPE = ("fine_tune_type", "rank", "scale", "dropout", "num_layers", "modules")  # and its recipe
LEAST_STANDING = 0.9  # the largest correction of a real week touches 7% of its rows
SAME = ["fact", "kind", "value"]


def choose_parent(held: Store, made_of: dict[str, Any], rows: pl.DataFrame) -> tuple[str | None, list[str]]:
    """The promoted adapter where it fits, or else that with the most numbers that still stand.

    An adapter fits that was made alike, of no other weeks, of people as real, and nine in ten of whose numbers are still
    what is to be taught.

    Args:
        held: the store.
        made_of: what the new adapter is made of: `MADE_ALIKE`, `weeks`, `recipe_values` and `sources`.
        rows: of its splits.

    Returns:
        The parent's fingerprint, None where none fits; and lines for people that say why.
    """
    new = taught_facts(rows)
    judged = {fingerprint: _judged(held, fingerprint, made_of, new) for fingerprint in held.adapters()}
    fitting = {fingerprint: standing for fingerprint, (standing, fits, _) in judged.items() if fits}
    promoted = held.promoted()
    most = max(fitting, key=lambda fingerprint: (fitting[fingerprint], fingerprint), default=None)
    parent = promoted if promoted in fitting else most
    if parent:
        weeks = ", ".join(held.provenance(parent)["weeks"])
        return parent, [f"going on from adapter {parent}, which knows {weeks}: {judged[parent][2]}"]
    lines = [f"not going on from adapter {fingerprint}: {why}" for fingerprint, (_, _, why) in judged.items()]
    return None, lines


def _judged(held: Store, fingerprint: str, made_of: dict[str, Any], new: pl.DataFrame) -> tuple[int, bool, str]:
    """How many of its numbers still stand, whether it fits, and why."""
    try:
        before = held.provenance(fingerprint)
        invented = knows_invented_people(held, fingerprint)
    except (OSError, ValueError):
        return 0, False, "what it was made of cannot be read"
    recipe, old_recipe = made_of["recipe_values"], before.get("recipe_values", {})
    unlike = [key for key in MADE_ALIKE if before.get(key) != made_of[key]]
    unlike += [key for key in SHAPE if old_recipe.get(key) != recipe.get(key)]
    if unlike:
        return 0, False, f"made with another {', '.join(unlike)}"
    if other := sorted(set(before["weeks"]) - set(made_of["weeks"])):
        return 0, False, f"it knows {', '.join(other)}, which is not taught now"
    if invented != ("sample" in made_of.get("sources", {}).values()):
        return (
            0,
            False,
            "it knows the invented people of the bundled sample, or is to learn them, and not the real ones",
        )
    old = read_taught_facts(held, fingerprint)
    if old is None:
        return 0, False, "what it was taught is not on record"
    numbers = old.filter(pl.col("kind") == "recorded")
    standing = numbers.join(new, on=SAME, how="semi").height
    share = standing / numbers.height if numbers.height else 0.0
    why = f"{standing:,} of its {numbers.height:,} numbers still stand"
    return standing, share >= LEAST_STANDING, why if share >= LEAST_STANDING else f"{why}, under {LEAST_STANDING:.0%}"
