"""A report's files: written whole or not at all, and read back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from nfl_lora_pipeline.adapters.history import SHORT, Entry, history_of
from nfl_lora_pipeline.adapters.promotion import promotions
from nfl_lora_pipeline.evaluation.baselines import Comparison, Way
from nfl_lora_pipeline.evaluation.probes import ALTERATIONS
from nfl_lora_pipeline.evaluation.summary import Summary
from nfl_lora_pipeline.files import DamagedFile, read_file, replace_file, replacing_folder
from nfl_lora_pipeline.markdown import percent, table
from nfl_lora_pipeline.reports.page import PICTURES, season_html, to_html, to_markdown
from nfl_lora_pipeline.reports.page_sections import Section, asked_like, read_section
from nfl_lora_pipeline.reports.plots import (
    SVG_BEGINS,
    SVG_ENDS,
    Asked,
    cost_plot,
    loss_plot,
    margin_plot,
    recall_plot,
)
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import (
    RUN_AGAIN,
    Versioned,
    json_bytes,
    read_json,
    read_overview,
    read_predictions,
    to_json,
)

# What commands add to a report later, as NAME.json and a section NAME.md.
ADDITIONS = ("alternatives", "verification", "verification_peft", "verification_llama_cpp")
RENAMED = {"artefacts": "verification"}  # additions of earlier code


def add_to_report(folder: Path, name: str, content: Versioned, section: str) -> None:
    """Write `NAME.json` and `NAME.md` into a report's folder, and make `report.md` and `report.html` anew with the section.

    Args:
        folder: of the report.
        name: one of `ADDITIONS`.
        content: what `NAME.json` has.
        section: in Markdown.

    Raises:
        ValueError: there is no report, or one by other code: what is added is kept for the next one.
    """
    check_report(folder)
    replace_file(folder / f"{name}.json", json_bytes(to_json(content)))
    replace_file(folder / f"{name}.md", section.encode())
    present(folder, read_summary(folder), read_predictions(folder))


def check_report(folder: Path) -> None:
    """Look whether a folder holds a report, by this code or by other.

    Raises:
        DamagedFile: it holds no whole one.
    """
    read_overview(folder)
    read_predictions(folder, [])


def read_summary(folder: Path) -> Summary:
    """All of the `report.json` in a folder.

    Raises:
        DamagedFile: it cannot be read, or other code has written it in another form.
    """
    return read_json(folder / "report.json", Summary, mend=RUN_AGAIN)


def write_report(folder: Path, summary: Summary, predictions: pl.DataFrame) -> None:
    """Write `report.md`, `report.html`, `report.json`, `predictions.parquet` and the pictures, all or none.

    What commands had added to the report that this one replaces stays in it.
    """
    with replacing_folder(folder) as unfinished:
        (unfinished / "report.json").write_bytes(json_bytes(to_json(summary)))
        predictions.write_parquet(unfinished / "predictions.parquet")
        present(unfinished, summary, predictions, before=folder if folder.is_dir() else None)


def read_report(folder: Path, *, evaluation_code: str) -> tuple[Summary, pl.DataFrame] | None:
    """What `write_report` was given; None where there is none that can be read, or other code has evaluated."""
    try:
        if read_overview(folder).evaluation_code != evaluation_code:
            return None
        return read_summary(folder), read_predictions(folder)
    except DamagedFile:
        return None


def is_whole(folder: Path, summary: Summary) -> bool:
    """Whether pages and pictures of a report are as `write_report` left them."""
    try:
        pages = _pages(folder, summary)
        return all(read_file(folder / name, mend=RUN_AGAIN) == page for name, page in pages.items())
    except DamagedFile:
        return False


def present(folder: Path, summary: Summary, scored: pl.DataFrame, *, before: Path | None = None) -> None:
    """Write pictures, `report.md` and `report.html` into a report's folder.

    Args:
        folder: of the report.
        summary: its figures.
        scored: one row a question, as `grading.with_verdict` gives it.
        before: the report that this one replaces; what was added to that is taken over.
    """
    if before:
        _take_over(before, folder)
    log = summary.training
    pictures = {
        "recall.svg": recall_plot(ways_to_ask(summary)),
        "margins.svg": margin_plot(scored),
        "loss.svg": loss_plot(log.losses, log.certain),
    }
    if (ways := _ways(folder)) is not None:
        pictures["cost.svg"] = cost_plot(ways)
    for name, svg in pictures.items():
        replace_file(folder / name, svg)
    for name, page in _pages(folder, summary).items():
        replace_file(folder / name, page)


def ways_to_ask(summary: Summary) -> list[Asked]:
    """Every way to ask with the right numbers that it gets, as the tables have them: phrasings, and how people type."""
    phrasings = sorted(summary.by_phrasing, key=lambda each: each.split != "train")
    return [Asked(asked_like(each.name, summary), each.numbers, each.split == "train") for each in phrasings] + [
        Asked(f"with {ALTERATIONS[each.name]}", each.numbers, trained=False) for each in summary.phrasing.altered
    ]


def _pages(folder: Path, summary: Summary) -> dict[str, bytes]:
    """Both pages, of the figures, the pictures and the additions in a folder.

    Raises:
        DamagedFile: a picture is lost, or is none.
    """
    added = {name: section for name in ADDITIONS if (section := _addition(folder / f"{name}.md"))}
    names = [name for name in PICTURES if name != "cost.svg" or _ways(folder) is not None]
    pictures = {name: read_picture(folder / name) for name in names}
    additions = list(added.values())
    return {
        "report.md": to_markdown(summary, additions, pictures=names).encode(),
        "report.html": to_html(summary, additions, pictures=pictures).encode(),
    }


def _addition(file: Path) -> Section | None:
    return read_section(file.read_text(encoding="utf-8", errors="replace")) if file.is_file() else None


def read_picture(file: Path) -> bytes:
    """A picture of a report.

    Raises:
        DamagedFile: it is none, or not all of it.
    """
    content = read_file(file, mend=RUN_AGAIN)
    if not content.startswith(SVG_BEGINS) or not content.rstrip().endswith(SVG_ENDS):
        raise DamagedFile(file, "is damaged (no SVG)", RUN_AGAIN)
    return content


def _ways(folder: Path) -> list[Way] | None:
    """What `nfl-lora compare` has added; None where it has not, or that cannot be read."""
    try:
        return read_json(folder / "alternatives.json", Comparison, mend=RUN_AGAIN).ways
    except DamagedFile:
        return None


def _take_over(before: Path, folder: Path) -> None:
    for name in (*RENAMED, *ADDITIONS):
        for kind in ("json", "md"):
            addition = before / f"{name}.{kind}"
            if addition.is_file():
                replace_file(folder / f"{RENAMED.get(name, name)}.{kind}", addition.read_bytes())


@dataclass(frozen=True)
class SeasonEntry:
    """An adapter of a season: what its report says of each week.

    Attributes:
        entry: as `nfl-lora history` has it.
        recall_by_week: right to the letter in trained phrasings, by partition key; empty where there is no report.
        lost: questions in trained phrasings that were right in the adapter before and are wrong in this one; None where
            nothing was compared.
        facts: how many were taught.
        certain: how many of them are certain.
        seconds: of training and evaluation.
    """

    entry: Entry
    recall_by_week: dict[str, float | None]
    lost: int | None = None
    facts: int = 0
    certain: int = 0
    seconds: float = 0.0


def season_of(store: Store, season: int | None = None) -> tuple[int, list[SeasonEntry]]:
    """The adapters that know weeks of a season, the oldest first.

    Args:
        store: the store.
        season: the year that it began in; None for the newest that an adapter knows.

    Raises:
        ValueError: no adapter knows a week of it.
    """
    entries = [entry for entry in reversed(history_of(store)) if entry.weeks]
    newest = max((int(week[:4]) for entry in entries for week in entry.weeks), default=None)
    chosen = season or newest
    of_season = [entry for entry in entries if any(week.startswith(f"{chosen}-") for week in entry.weeks)]
    if chosen is None or not of_season:
        raise ValueError(f"{store.root} holds no adapter of {chosen or 'any season'}: run `nfl-lora run`")
    return chosen, [_season_entry(store, entry) for entry in of_season]


def _season_entry(store: Store, entry: Entry) -> SeasonEntry:
    try:
        summary = read_summary(store.report(entry.fingerprint))
    except DamagedFile:
        return SeasonEntry(entry, {}, seconds=entry.seconds)
    training = summary.training
    return SeasonEntry(
        entry,
        summary.recall_by_week,
        lost=summary.regressions.trained.lost if summary.regressions else None,
        facts=training.facts,
        certain=training.facts - len(training.uncertain),
        seconds=sum(summary.seconds.values()),
    )


def season_table(season: int, entries: Sequence[SeasonEntry]) -> tuple[list[str], list[list[str]]]:
    """A season as the header and the rows of a table, an adapter a row and a week a column."""
    weeks = sorted({week for each in entries for week in each.entry.weeks if week.startswith(f"{season}-")})
    header = ["adapter", "trained (UTC)", *(f"week {int(week[-2:])}" for week in weeks)]
    rows = [
        [
            each.entry.fingerprint[:SHORT],
            each.entry.trained_at[:16].replace("T", " "),
            *(percent(each.recall_by_week.get(week)) for week in weeks),
            "-" if each.lost is None else f"{each.lost:,}",
            f"{each.certain:,} of {each.facts:,}" if each.facts else "no report",
            f"{each.seconds / 60:.1f}",
            "promoted" if each.entry.promoted else "",
        ]
        for each in entries
    ]
    return [*header, "lost", "facts certain", "minutes", "in use"], rows


def write_season(store: Store, season: int, entries: Sequence[SeasonEntry]) -> Path:
    """Write the page of a season, `season-2025.html` in the store.

    Returns:
        The file.
    """
    header, rows = season_table(season, entries)
    rows = [[cell or "-" for cell in row] for row in rows]
    now = next((each.entry.fingerprint for each in entries if each.entry.promoted), None)
    page = season_html(
        season=season, adapters=len(entries), promoted=now, table=table(header, rows), log=_moves(store, entries)
    )
    file = store.root / f"season-{season}.html"
    replace_file(file, page.encode())
    return file


def _moves(store: Store, entries: Sequence[SeasonEntry]) -> str:
    known = {each.entry.fingerprint for each in entries}
    rows = [
        [move.time[:16].replace("T", " "), move.fingerprint[:SHORT], (move.previous or "-")[:SHORT], move.reason]
        for move in promotions(store)
        if move.fingerprint in known
    ]
    return table(["when (UTC)", "promoted", "in its place before", "why"], rows) if rows else "Nothing was promoted."
