"""Upstream on GitHub, alone or behind a folder."""

from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import urlsplit

from nfl_lora_pipeline.stats import Position, in_words
from nfl_lora_pipeline.weeks.sources import Changed, Place, RawWeek, Say, Source, quiet, source
from nfl_lora_pipeline.weeks.sources.download import (
    Connections,
    Limits,
    SourceError,
    SourceUnreachable,
    WeekNotPublished,
    download,
    shown_url,
)
from nfl_lora_pipeline.weeks.sources.folder import Folder, Sample, week_file
from nfl_lora_pipeline.weeks.week import NflWeek, file_name

UPSTREAM_URL = "https://raw.githubusercontent.com/hvpkod/NFL-Data/main/NFL-data-Players"
LOOK_LIMITS = Limits(
    whole_seconds=20.0, attempts=2
)  # for one week, since Dagster gives a look at all of them 60 seconds
VALIDATORS = {"etag": "ETag", "modified": "Last-Modified"}  # the first one that a server gives is used
CONDITIONS = {"etag": "If-None-Match", "modified": "If-Modified-Since"}


@source("github")
class Github(Source):
    """Downloads from upstream, or from a mirror of it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.base_url = place.base_url or UPSTREAM_URL
        self._connections: Connections | None = None

    def fetch(self, week: NflWeek, say: Say = quiet) -> RawWeek:
        """Download a week.

        Raises:
            WeekNotPublished: upstream has no such week.
            SourceUnreachable: upstream gave no answer, or not within its time.
            SourceError: the download broke off, or the URL is of no use.
        """
        url, by_hand = self._url_and_mend(week)
        with Connections() as connections:
            answer = download(connections, url, limits=self.place.limits, by_hand=by_hand, say=say)
        if answer.status == 404:
            raise _not_published(url, by_hand)
        return RawWeek(week, answer.content, shown_url(url), "github", datetime.now(UTC))

    def where(self, week: NflWeek) -> str:
        """The place of a week, as shown to people."""
        return "upstream"

    def changed(self, week: NflWeek, validator: str) -> Changed:
        """Whether a week is another than at the time of `validator`: a conditional request."""
        self._connections = self._connections or Connections()
        kind, _, value = validator.partition(":")
        headers = {CONDITIONS[kind]: value} if kind in CONDITIONS else {}
        url, by_hand = self._url_and_mend(week)
        answer = download(self._connections, url, headers=headers, limits=LOOK_LIMITS, by_hand=by_hand)
        if answer.status == 404:
            raise _not_published(url, by_hand)
        offers = {kind: answer.headers.get(name, "") for kind, name in VALIDATORS.items()}
        renewed = next((f"{kind}:{value}" for kind, value in offers.items() if value), "")
        if answer.status == 304:
            return Changed("", renewed or validator)
        return Changed(sha256(answer.content).hexdigest(), renewed)

    def close(self) -> None:
        """Close the connections that `changed` has opened."""
        if self._connections is not None:
            self._connections.close()
            self._connections = None

    def _url_and_mend(self, week: NflWeek) -> tuple[str, str]:
        """Where a week is, and what to do by hand where it cannot be had from there."""
        by_hand = f"put the file at {week_file(self.place.folder, week, self.place.position)} by hand"
        return week_url(self.base_url, week, self.place.position), by_hand


@source("auto")
class Auto(Source):
    """The folder's file where there is one, else a download, else, where that is wanted, the bundled sample."""

    def __init__(self, place: Place) -> None:
        self.place, self.folder, self.github = place, Folder(place), Github(place)

    def fetch(self, week: NflWeek, say: Say = quiet) -> RawWeek:
        """Get a week from the first that has it. A week that upstream says it has not is no case for the sample."""
        try:
            return self._source_of(week).fetch(week, say)
        except SourceUnreachable as error:
            if not self.place.sample_fallback:
                raise
            if self.place.position != Sample.of:
                lacking = f"the bundled sample has {in_words(Sample.of)} only, and no {in_words(self.place.position)}"
                raise SourceUnreachable(f"{error}; {lacking}") from error
            sample = Sample(self.place)
            if not sample.has(week):
                raise
            return sample.fetch(week, say)

    def where(self, week: NflWeek) -> str:
        """The place of a week, as shown to people."""
        return self._source_of(week).where(week)

    def has(self, week: NflWeek) -> bool | None:
        """Whether the folder has a week; else only upstream knows."""
        return self.folder.has(week) or None

    def changed(self, week: NflWeek, validator: str) -> Changed:
        """Whether a week is another than at the time of `validator`."""
        return self._source_of(week).changed(week, validator)

    def close(self) -> None:
        """Close the connections to upstream."""
        self.github.close()

    def _source_of(self, week: NflWeek) -> Source:
        return self.folder if self.folder.has(week) else self.github


def week_url(base_url: str, week: NflWeek, position: Position = "WR") -> str:
    """Where upstream publishes a week. A token after a `?` stays at the end."""
    try:
        address = urlsplit(base_url)
    except ValueError:
        raise SourceError(f"{shown_url(base_url)}: not an address to download from; correct the base URL") from None
    path = f"{address.path.rstrip('/')}/{week.season}/{week.week}/{file_name(position)}"
    return address._replace(path=path).geturl()


def _not_published(url: str, by_hand: str) -> WeekNotPublished:
    return WeekNotPublished(
        f"{shown_url(url)}: this week is not (yet) published upstream (HTTP 404); "
        f"weeks appear from Tuesday to Saturday: try again later, or {by_hand}"
    )
