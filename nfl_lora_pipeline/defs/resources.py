"""What the assets are given: a folder to keep things in, a source of weeks, what to teach and how to train."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from nfl_lora_pipeline.dataset.templates import choose_stats
from nfl_lora_pipeline.defs.leases import leased
from nfl_lora_pipeline.files import lasting_base
from nfl_lora_pipeline.recipes.recipe import Recipe, load_recipe
from nfl_lora_pipeline.season.watch import season_to_watch
from nfl_lora_pipeline.settings import Settings, upstream_url
from nfl_lora_pipeline.stats import position_of
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.sources import Place, RawWeek, Source, open_source
from nfl_lora_pipeline.weeks.week import NflWeek


class StoreResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The folder with all results; relative to where Dagster was started."""

    root: str = "data"

    def open(self) -> Store:
        """The store in that folder."""
        return Store(Path(self.root))

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["StoreResource"]:
        """Every run that works on a store says which process executes it (`leases`)."""
        with leased(context.instance, context.run.run_id) if context.run and context.instance else nullcontext():
            yield self


class WeekSource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where raw weeks come from.

    Attributes:
        kind: "auto" (the folder, else a download), "folder", "github", "sample", or another of `weeks/sources`.
        folder: with upstream's layout, `{season}/{week}/{position}.json`.
        position: whose weeks: WR, RB, TE or QB.
        base_url: what stands before `/{season}/{week}/{position}.json` upstream; empty for that of the settings. What a
            resource is given Dagster keeps with every run, and the settings' may hold a password.
        sample_fallback: whether "auto" may end at the bundled sample when upstream cannot be reached and no real week is
            held, and at what is held of the week otherwise. Never in a deployment.
        accept_odd_weeks: whether a week is taken though nobody played, rows are missing or the numbers are those of another
            week; what is odd is then a warning.
    """

    kind: str = "auto"
    folder: str = "data/raw"
    position: str = "WR"
    base_url: str = ""
    sample_fallback: bool = False
    accept_odd_weeks: bool = False

    @property
    def address(self) -> str:
        """Where upstream is."""
        return self.base_url or upstream_url()

    def open(self) -> Source:
        """The source.

        Raises:
            ValueError: there is none of this kind, or no such position.
        """
        place = Place(Path(self.folder), self.address, self.sample_fallback, position=position_of(self.position))
        return open_source(self.kind, place)

    def fetch(self, week: NflWeek, say: Callable[[str], None]) -> RawWeek:
        """Get one week; `say` is told of what is waited for.

        Raises:
            ValueError: there is no source of this kind, or the week cannot be had.
        """
        return self.open().fetch(week, say)


class DatasetResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """What is taught.

    Attributes:
        weeks: partition keys; empty for every real week held of the newest season.
        position: whose weeks: WR, RB, TE or QB.
        stats: columns of the players frame that `templates.yaml` has words for, or "all".
        mode: "every_fact", or "random_facts" for the split of the original experiment.
    """

    weeks: list[str] = []
    position: str = "WR"
    stats: list[str] = ["receiving_yards"]
    mode: str = "every_fact"

    def chosen_stats(self) -> list[str]:
        """The stats, checked.

        Raises:
            ValueError: there are no words for one, or no such position.
        """
        return choose_stats(self.stats, position_of(self.position))


class Trainer(dg.ConfigurableResource):  # type: ignore[type-arg]
    """How to train, and what.

    Attributes:
        recipe: a shipped recipe's name or the path of a YAML file.
        base_model: "embedded", a folder, a GGUF file or a Hugging Face id; empty for the recipe's own.
        replace: whether an adapter is promoted though the promoted one knows what it was not taught.
    """

    recipe: str = "embedded"
    base_model: str = ""
    replace: bool = False

    def load(self) -> Recipe:
        """The recipe, with the base model it is to be used on."""
        recipe = load_recipe(self.recipe)
        return recipe.changed(base_model=lasting_base(self.base_model or recipe.base_model))

    def load_or_none(self) -> Recipe | None:
        """None where the recipe cannot be read, which is said when an asset that needs it is materialised."""
        try:
            return self.load()
        except ValueError:
            return None


class Watch(dg.ConfigurableResource):  # type: ignore[type-arg]
    """What a deployment looks for by itself.

    Attributes:
        season: the year that a season begins in; 0 for the one that is on, or for a folder the newest in it.
        on: whether the sensors and the schedule run unless somebody switches them off.
    """

    season: int = 0
    on: bool = False

    def season_of(self, source: WeekSource) -> int:
        """The season to look for."""
        return self.season or season_to_watch(source, datetime.now(UTC).date())


@dataclass(frozen=True)
class Resources:
    """All resources of a deployment, by the names that the assets use."""

    store: StoreResource
    week_source: WeekSource
    dataset: DatasetResource
    trainer: Trainer
    watch: Watch

    @classmethod
    def of(
        cls, settings: Settings, *, weeks: Sequence[NflWeek] | None = None, sample_fallback: bool = False
    ) -> "Resources":
        """The one place where they are made.

        Args:
            settings: of the deployment, or of a command.
            weeks: what to train on; None for those of the settings.
            sample_fallback: as in `WeekSource`.
        """
        keys = list(settings.weeks) if weeks is None else [str(week) for week in weeks]
        return cls(
            store=StoreResource(root=settings.store),
            week_source=WeekSource(
                kind=settings.source,
                folder=str(settings.folder),
                position=settings.position,
                sample_fallback=sample_fallback,
                accept_odd_weeks=settings.accept_odd_weeks,
            ),
            dataset=DatasetResource(
                weeks=keys, position=settings.position, stats=settings.chosen_stats, mode=settings.mode
            ),
            trainer=Trainer(recipe=settings.recipe, base_model=settings.base_model, replace=settings.replace),
            watch=Watch(season=settings.season, on=settings.watch),
        )

    def by_name(self) -> dict[str, Any]:
        """As Dagster takes them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
