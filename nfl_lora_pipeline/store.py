"""Where everything lies on disk. Paths only: who writes a file writes it whole or not at all (`files`)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfl_lora_pipeline.files import files_hash, replace_file, sweep
from nfl_lora_pipeline.lessons.splits import SPLITS
from nfl_lora_pipeline.weeks.week import NflWeek


@dataclass(frozen=True)
class Store:
    """The folder with all results.

    weeks/2025-W01/      WR.json, raw.json, players.parquet, players.json (`week_record`), qa_pairs.parquet
    splits/              train.jsonl, valid.jsonl, test.jsonl, rows.parquet
    adapters/{print}/    adapters.safetensors, adapter_config.json, certificate.json, training.json, provenance.json,
                         facts.parquet (`taught_facts`)
    adapters/.{print}.unfinished/   checkpoint.safetensors
    adapters/current     the promoted adapter, a link; adapters/promotions.jsonl is the log of its moves (`promotion`)
    reports/{print}/     report.md, report.html, report.json, predictions.parquet, *.png, and what `nfl-lora compare`
                         (alternatives.json, .md) and `nfl-lora verify` (artefacts.json, .md) add
    locks/               who works on what; never deleted
    latest.json          the fingerprint of the newest adapter, its base model, and the newest adapter before it
    """

    root: Path

    def raw(self, week: NflWeek) -> Path:
        """The week's file, byte for byte as it was published."""
        return self._week(week) / "WR.json"

    def raw_origin(self, week: NflWeek) -> Path:
        """Where that file came from: JSON with `kind`, `origin`, `sha256` and `fetched_at`."""
        return self._week(week) / "raw.json"

    def players(self, week: NflWeek) -> Path:
        """The frame of `players.parse_week`."""
        return self._week(week) / "players.parquet"

    def players_record(self, week: NflWeek) -> Path:
        """What is kept beside that frame for people; see `week_record`."""
        return self._week(week) / "players.json"

    def source_kind(self, week: NflWeek) -> str:
        """What kind of source a week's file came from: "folder", "github" or "sample"; empty where that is not on record."""
        try:
            return str(json.loads(self.raw_origin(week).read_text(encoding="utf-8"))["kind"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def is_invented(self, week: NflWeek) -> bool:
        """Whether a week is of the bundled sample, whose people are invented."""
        return self.source_kind(week) == "sample"

    def real_weeks(self) -> list[NflWeek]:
        """Those of `weeks` that are not of the bundled sample."""
        return [week for week in self.weeks() if not self.is_invented(week)]

    def qa_pairs(self, week: NflWeek) -> Path:
        """The frame of `questions.qa_pairs`."""
        return self._week(week) / "qa_pairs.parquet"

    def weeks(self) -> list[NflWeek]:
        """The weeks that have question/answer pairs, the oldest first."""
        return sorted(NflWeek.parse(file.parent.name) for file in self.root.glob("weeks/*/qa_pairs.parquet"))

    @property
    def splits(self) -> Path:
        """The folder of the JSON Lines files."""
        return self.root / "splits"

    def rows_hash(self) -> str:
        """What the splits hold, in short."""
        return files_hash([self.splits / f"{split}.jsonl" for split in SPLITS])

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

    def sweep(self) -> list[Path]:
        """Remove what killed processes left half-written, and put back what they had moved out of the way."""
        folders = [self.root, self.root / "adapters", self.root / "reports", *self.root.glob("weeks/*")]
        return [path for folder in folders for path in sweep(folder)]

    def adapters(self) -> list[str]:
        """The fingerprints of all finished adapters, in no order that means anything."""
        found = sorted(file.parent for file in self.root.glob("adapters/*/provenance.json"))
        return [folder.name for folder in found if not folder.is_symlink() and not folder.name.startswith(".")]

    @property
    def current(self) -> Path:
        """The link to the promoted adapter."""
        return self.root / "adapters" / "current"

    @property
    def promotions(self) -> Path:
        """The log of promotions, JSON Lines, the newest last."""
        return self.root / "adapters" / "promotions.jsonl"

    def promoted(self) -> str | None:
        """The fingerprint of the promoted adapter; None where there is none, or its folder is gone."""
        return self.current.readlink().name if self.current.is_symlink() and self.current.exists() else None

    def taught_facts(self, fingerprint: str) -> Path:
        """What an adapter was taught; see `taught_facts`."""
        return self.adapter(fingerprint) / "facts.parquet"

    def report(self, fingerprint: str) -> Path:
        """The folder of the report on that adapter."""
        return self.root / "reports" / fingerprint

    def set_latest(self, fingerprint: str) -> None:
        """Make an adapter the one that is evaluated and asked."""
        old = self._latest() or {}
        before = old.get("previous") if old.get("adapter") == fingerprint else old.get("adapter")
        base = self.provenance(fingerprint)["base_model"]
        content = {"adapter": fingerprint, "base_model": base, "previous": before}
        replace_file(self.root / "latest.json", (json.dumps(content, indent=2) + "\n").encode())

    def latest(self) -> str:
        """The fingerprint of the newest adapter.

        Raises:
            ValueError: there is none yet.
        """
        content = self._latest()
        if content is None:
            raise ValueError(f"{self.root} holds no adapter yet: run `nfl-lora run`, or materialise `adapter`")
        return str(content["adapter"])

    def previous_latest(self) -> str | None:
        """The fingerprint of the adapter that was the newest before this one."""
        return (self._latest() or {}).get("previous")

    def provenance(self, fingerprint: str) -> dict[str, Any]:
        """What an adapter was made of."""
        content: dict[str, Any] = json.loads(
            (self.adapter(fingerprint) / "provenance.json").read_text(encoding="utf-8")
        )
        return content

    def _latest(self) -> dict[str, Any] | None:
        file = self.root / "latest.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def _week(self, week: NflWeek) -> Path:
        return self.root / "weeks" / str(week)
