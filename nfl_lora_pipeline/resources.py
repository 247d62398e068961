"""What the assets are given: a folder to keep things in, a source of weeks, a way to train."""

from pathlib import Path

import dagster as dg

from nfl_lora_pipeline.recipe import Recipe, load_recipe
from nfl_lora_pipeline.source import UPSTREAM_URL, RawWeek, SourceKind, fetch_week
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.week import NflWeek


class StoreResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The folder with all results; relative to where Dagster was started."""

    root: str = "data"

    def open(self) -> Store:
        """The store in that folder."""
        return Store(Path(self.root))


class WeekSource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where raw weeks come from.

    Attributes:
        kind: "auto" (the folder, else a download), "folder", "github" or "sample".
        folder: with upstream's layout, `{season}/{week}/WR.json`.
        base_url: what stands before `/{season}/{week}/WR.json` upstream.
        sample_fallback: whether "auto" may end at the bundled sample when upstream cannot be reached. Never in a deployment.
    """

    kind: str = "auto"
    folder: str = "data/raw"
    base_url: str = UPSTREAM_URL
    sample_fallback: bool = False

    def fetch(self, week: NflWeek) -> RawWeek:
        """Get one week.

        Raises:
            ValueError: `kind` is none of the four, or the week cannot be had.
        """
        kinds: dict[str, SourceKind] = {"auto": "auto", "folder": "folder", "github": "github", "sample": "sample"}
        if self.kind not in kinds:
            raise ValueError(f"source {self.kind!r}: use {', '.join(kinds)}")
        return fetch_week(
            week,
            kind=kinds[self.kind],
            folder=Path(self.folder),
            base_url=self.base_url,
            sample_fallback=self.sample_fallback,
        )


class Trainer(dg.ConfigurableResource):  # type: ignore[type-arg]
    """How to train, and what.

    Attributes:
        recipe: a shipped recipe's name or the path of a YAML file.
        base_model: "embedded", a folder or a Hugging Face id; empty for the recipe's own.
    """

    recipe: str = "embedded"
    base_model: str = ""

    def load(self) -> Recipe:
        """The recipe, with the base model it is to be used on."""
        recipe = load_recipe(self.recipe)
        return recipe.model_copy(update={"base_model": self.base_model}) if self.base_model else recipe
