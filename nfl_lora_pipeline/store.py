"""Where everything lies on disk, and how it is read back: whole, or with an error that names the file and the mend.

Who writes a file writes it whole or not at all (`files`).
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import polars as pl

from nfl_lora_pipeline.dataset.qa_pairs import FACT_COLUMNS, PAIR_COLUMNS
from nfl_lora_pipeline.dataset.splits import SPLITS
from nfl_lora_pipeline.files import DamagedFile, files_hash, read_file, replace_file, sweep
from nfl_lora_pipeline.stats import POSITIONS, Position, in_words
from nfl_lora_pipeline.stored import (
    RUN_AGAIN,
    WEIGHTS_NAME,
    AdapterConfig,
    CertificateRecord,
    Latest,
    Provenance,
    RawOrigin,
    SplitsRecord,
    Training,
    TrainingRecord,
    WeekRecord,
    check_tensors,
    check_weights,
    json_bytes,
    read_frame,
    read_json,
)
from nfl_lora_pipeline.weeks.players import PLAYERS_SCHEMA
from nfl_lora_pipeline.weeks.week import NflWeek, file_name

TAUGHT_COLUMNS = [column for column in FACT_COLUMNS if column != "status"]
LEAVE_OUT = (
    "`nfl-lora run` on its weeks trains it anew; or use another (`nfl-lora history`; `nfl-lora rollback` goes back)"
)


@dataclass(frozen=True)
class Store:
    """The folder with all results, of players of one position.

    weeks/2025-W01/      WR.json (or RB.json, ...), raw.json, players.parquet, players.json (`WeekRecord`), qa_pairs.parquet
    splits/              train.jsonl, valid.jsonl, test.jsonl, rows.parquet
    adapters/{print}/    adapters.safetensors, adapter_config.json, certificate.json, training.json, provenance.json,
                         facts.parquet (`taught_facts`)
    adapters/.{print}.unfinished/   checkpoint.safetensors
    adapters/current     the promoted adapter, a link; adapters/promotions.jsonl is the log of its moves (`promotion`)
    reports/{print}/     report.md, report.html, report.json, predictions.parquet, *.svg, and what `nfl-lora compare`
                         (alternatives.json, .md) and `nfl-lora verify` (verification.json, .md) add
    experiments/{study}/{arm}/{seed}/   adapter/ and result.json of a trial; experiments/bases/ has bases made of others
    locks/               who works on what; never deleted
    dagster/             the record of runs (`instance`)
    latest.json          the fingerprint of the newest adapter, its base model, and the newest adapter before it
    """

    root: Path

    def raw(self, week: NflWeek, position: Position | None = None) -> Path:
        """The week's file, byte for byte as it was published, under upstream's name for it.

        Args:
            week: the week.
            position: of a file that is to be written; None for the file that is held.
        """
        return self._week(week) / file_name(position or self.position_of(week) or "WR")

    def position_of(self, week: NflWeek) -> Position | None:
        """Whose file of a week is held; None where that is not to be seen."""
        try:
            return self.read_raw_origin(week).position
        except DamagedFile:
            there = (position for position in POSITIONS if os.path.lexists(self._week(week) / file_name(position)))
            return next(there, None)

    def check_position(self, position: Position) -> None:
        """Whether players of a position may be kept here.

        Raises:
            ValueError: the store holds a week of another one.
        """
        for week in self.weeks_with("*"):
            found = self.position_of(week)
            if found not in (None, position):
                raise ValueError(
                    f"store {self.root}: it holds {in_words(found)}, such as those of {week}, and {in_words(position)} are "
                    f"asked for; a store is of one position: name another one (--store), or --position {found}"
                )

    def raw_origin(self, week: NflWeek) -> Path:
        """Where that file came from: JSON with `kind`, `origin`, `sha256` and `fetched_at`."""
        return self._week(week) / "raw.json"

    def players(self, week: NflWeek) -> Path:
        """The frame of `players.parse_week`."""
        return self._week(week) / "players.parquet"

    def players_record(self, week: NflWeek) -> Path:
        """What is kept beside that frame for people; see `WeekRecord`."""
        return self._week(week) / "players.json"

    def read_raw_origin(self, week: NflWeek) -> RawOrigin:
        """The content of `raw_origin`."""
        return read_json(self.raw_origin(week), RawOrigin, mend="fetch the week again: `nfl-lora run` on it")

    def read_raw(self, week: NflWeek) -> bytes:
        """The week's file.

        Raises:
            DamagedFile: it, or what is noted down of where it came from, cannot be read, or the two do not belong together.
        """
        mend = "fetch the week again: `nfl-lora run` on it"
        content = read_file(self.raw(week), mend=mend)
        if sha256(content).hexdigest() != self.read_raw_origin(week).sha256:
            raise DamagedFile(self.raw(week), f"is damaged (not what {self.raw_origin(week)} says was fetched)", mend)
        return content

    def read_players(self, week: NflWeek) -> pl.DataFrame:
        """The frame of `players.parse_week`."""
        return read_frame(self.players(week), PLAYERS_SCHEMA, mend=RUN_AGAIN)

    def read_qa_pairs(self, week: NflWeek) -> pl.DataFrame:
        """The frame of `qa_pairs.qa_pairs`."""
        return read_frame(self.qa_pairs(week), PAIR_COLUMNS, mend=RUN_AGAIN)

    def read_players_record(self, week: NflWeek) -> WeekRecord:
        """The content of `players_record`."""
        return read_json(self.players_record(week), WeekRecord, mend=RUN_AGAIN)

    def source_kind(self, week: NflWeek) -> str:
        """The source that a week's file came from ("sample": invented people); empty where it is not on record."""
        try:
            return self.read_raw_origin(week).kind
        except DamagedFile:
            pass
        try:
            return self.read_players_record(week).source
        except DamagedFile:
            return ""

    def is_invented(self, week: NflWeek) -> bool:
        """Whether a week is of the bundled sample, whose people are invented."""
        return self.source_kind(week) == "sample"

    def real_weeks(self) -> list[NflWeek]:
        """Those of `weeks` that are not of the bundled sample."""
        return [week for week in self.weeks() if not self.is_invented(week)]

    def qa_pairs(self, week: NflWeek) -> Path:
        """The frame of `qa_pairs.qa_pairs`."""
        return self._week(week) / "qa_pairs.parquet"

    def weeks(self) -> list[NflWeek]:
        """The weeks that have question/answer pairs, the oldest first."""
        return self.weeks_with("qa_pairs.parquet")

    def weeks_taken(self) -> list[NflWeek]:
        """The weeks of which anything is held that was made of their file, so that they can be made whole again."""
        return self.weeks_with("qa_pairs.parquet", "players.parquet", "players.json")

    def weeks_of_season(self, season: int, *, sample: bool) -> list[NflWeek]:
        """Every real week of a season that is held; else, where `sample` may serve, those of the sample; else week 1."""
        taken = self.weeks_taken()
        weeks = [week for week in taken if not self.is_invented(week)] or (taken if sample else [])
        return [week for week in weeks if week.season == season] or [NflWeek(season, 1)]

    def weeks_with(self, *names: str) -> list[NflWeek]:
        """The weeks whose folder holds a file of one of these names, the oldest first. Folders of other names are no weeks."""
        return sorted({week for name in names for week in _weeks_of(self.root.glob(f"weeks/*/{name}"))})

    @property
    def splits(self) -> Path:
        """The folder of the JSON Lines files."""
        return self.root / "splits"

    def rows_hash(self) -> str:
        """What the splits hold, in short."""
        files = [self.splits / f"{split}.jsonl" for split in SPLITS]
        for file in files:
            read_file(file, mend=RUN_AGAIN)
        return files_hash(files)

    def read_rows(self) -> pl.DataFrame:
        """The rows of the splits, all of them; see `splits.write_splits`."""
        return read_frame(self.splits / "rows.parquet", PAIR_COLUMNS, mend=RUN_AGAIN)

    def read_splits_record(self) -> SplitsRecord:
        """What the splits were made of."""
        return read_json(self.splits / "splits.json", SplitsRecord, mend=RUN_AGAIN)

    def adapter(self, fingerprint: str) -> Path:
        """The folder of one adapter."""
        return self.root / "adapters" / fingerprint

    def unfinished(self, fingerprint: str) -> Path:
        """The folder of a training that is going on, or was broken off and will be gone on with."""
        return self.root / "adapters" / f".{fingerprint}.unfinished"

    def all_unfinished(self) -> list[Path]:
        """The folders of all such trainings."""
        return sorted(self.root.glob("adapters/.*.unfinished"))

    def lock(self, name: str) -> Path:
        """The file that stands for a lock, for `files.locked`."""
        return self.root / "locks" / name

    @property
    def dagster(self) -> Path:
        """Dagster's home: its settings, and the record of runs."""
        return self.root / "dagster"

    def sweep(self) -> list[Path]:
        """Remove what killed processes left half-written, and put back what they had moved out of the way."""
        folders = [self.root, self.root / "adapters", self.root / "reports", *self.root.glob("weeks/*")]
        return [path for folder in folders for path in sweep(folder)]

    def adapters(self) -> list[str]:
        """The fingerprints of all finished adapters, the damaged ones too, in no order that means anything."""
        found = sorted(self.root.glob("adapters/*/"))
        no_adapter = {folder for folder in found if folder.is_symlink() or folder.name.startswith(".")} | {self.current}
        return [folder.name for folder in found if folder not in no_adapter]

    def check_adapter(self, fingerprint: str) -> None:
        """Whether an adapter can be used: what it was made of, its shape, and the form of its weights.

        Raises:
            DamagedFile: no.
        """
        folder = self.adapter(fingerprint)
        provenance = self.provenance(fingerprint)
        read_json(folder / "adapter_config.json", AdapterConfig, mend=LEAVE_OUT)
        check_tensors(folder / WEIGHTS_NAME, mend=LEAVE_OUT)
        check_weights(folder, provenance, mend=LEAVE_OUT)

    def check_records(self, fingerprint: str) -> None:
        """Whether what its training, by this code, left beside an adapter can be read; it can be used without.

        Raises:
            DamagedFile: no.
        """
        folder = self.adapter(fingerprint)
        self.training_log(fingerprint)
        read_json(folder / "certificate.json", CertificateRecord, mend=LEAVE_OUT)

    @property
    def current(self) -> Path:
        """The link to the promoted adapter."""
        return self.root / "adapters" / "current"

    @property
    def promotions(self) -> Path:
        """The log of promotions, JSON Lines, the newest last."""
        return self.root / "adapters" / "promotions.jsonl"

    def promoted(self) -> str | None:
        """The fingerprint of the promoted adapter; None where there is none, or the link leads to no adapter of the store.

        In a store that was copied with its links followed (`cp -rL`) the link is a folder: a second copy of the adapter that
        was made of the same.
        """
        if self.current.is_symlink():
            target = self.current.parent / self.current.readlink()
            inside = os.path.realpath(target.parent) == os.path.realpath(self.current.parent) and target != self.current
            return target.name if inside and target.is_dir() else None
        if not (self.current / "provenance.json").is_file():
            return None
        content = _bytes_of(self.current / "provenance.json")
        same = (name for name in self.adapters() if _bytes_of(self.adapter(name) / "provenance.json") == content)
        return next(same, None) if content else None

    def check_current(self) -> None:
        """Whether the place of the link is empty or leads to an adapter.

        Raises:
            DamagedFile: no.
        """
        if self.promoted() is not None or not os.path.lexists(self.current):
            return
        leads = f"a link to {self.current.readlink()}" if self.current.is_symlink() else "no link"
        raise DamagedFile(
            self.current,
            f"is {leads}, and no adapter of this store",
            "`nfl-lora rollback FINGERPRINT` mends it (`nfl-lora history` lists them)",
        )

    def taught_facts(self, fingerprint: str) -> Path:
        """What an adapter was taught; see `taught_facts`."""
        return self.adapter(fingerprint) / "facts.parquet"

    def read_taught_facts(self, fingerprint: str) -> pl.DataFrame:
        """The frame of `taught_facts`."""
        return read_frame(self.taught_facts(fingerprint), TAUGHT_COLUMNS, mend=RUN_AGAIN).select(TAUGHT_COLUMNS)

    def report(self, fingerprint: str) -> Path:
        """The folder of the report on that adapter."""
        return self.root / "reports" / fingerprint

    @property
    def experiments(self) -> Path:
        """The folder of all trials."""
        return self.root / "experiments"

    def trial(self, study: str, arm: str, seed: int) -> Path:
        """The folder of a trial: an arm of a study with a seed."""
        return self.experiments / study / arm / str(seed)

    def set_latest(self, fingerprint: str) -> None:
        """Make an adapter the one that is evaluated and asked."""
        try:
            old = self._latest()
        except DamagedFile:  # written anew below
            old = None
        before = None if old is None else old.previous if old.adapter == fingerprint else old.adapter
        new = Latest(
            schema_version=Latest.SCHEMA,
            adapter=fingerprint,
            base_model=self.provenance(fingerprint).base_model,
            previous=before,
        )
        replace_file(self.root / "latest.json", json_bytes(new.content()))

    def latest(self) -> str:
        """The fingerprint of the newest adapter.

        Raises:
            ValueError: there is none yet.
        """
        latest = self._latest()
        if latest is None:
            raise ValueError(f"{self.root} holds no adapter yet: run `nfl-lora run`, or materialise `adapter`")
        return latest.adapter

    def previous_latest(self) -> str | None:
        """The fingerprint of the adapter that was the newest before this one."""
        latest = self._latest()
        return None if latest is None else latest.previous

    def provenance(self, fingerprint: str) -> Provenance:
        """What an adapter was made of."""
        return read_json(self.adapter(fingerprint) / "provenance.json", Provenance, mend=LEAVE_OUT)

    def training(self, fingerprint: str) -> Training:
        """How long the training of an adapter, of any code, took."""
        return read_json(self.adapter(fingerprint) / "training.json", Training, mend=LEAVE_OUT)

    def training_log(self, fingerprint: str) -> TrainingRecord:
        """All that the training of an adapter, by this code, wrote down."""
        return read_json(self.adapter(fingerprint) / "training.json", TrainingRecord, mend=LEAVE_OUT)

    def _latest(self) -> Latest | None:
        file = self.root / "latest.json"
        mend = "`nfl-lora run` writes it anew; or name an adapter (`nfl-lora history` lists them)"
        return read_json(file, Latest, mend=mend) if os.path.lexists(file) else None

    def _week(self, week: NflWeek) -> Path:
        return self.root / "weeks" / str(week)


def _weeks_of(files: Iterable[Path]) -> Iterable[NflWeek]:
    for file in files:
        try:
            yield NflWeek.parse(file.parent.name)
        except ValueError:  # somebody's copy of a week
            continue


def _bytes_of(file: Path) -> bytes:
    try:
        return read_file(file, mend="")
    except DamagedFile:
        return b""
