"""Looking for new and corrected weeks: in a folder, and upstream over a local HTTP server."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.loopback import free_port
from nfl_lora_pipeline.files import replace_file
from nfl_lora_pipeline.season.watch import AHEAD, Look, Memory, held_hashes, look, season_on, season_to_watch
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks import sources
from nfl_lora_pipeline.weeks.sources import Place, open_source
from nfl_lora_pipeline.weeks.sources.folder import week_file
from nfl_lora_pipeline.weeks.week import NflWeek

SEASON = 2025


class Upstream(ThreadingHTTPServer):
    """Publishes `weeks`, with the validators named in `validators`; anything else is a 404. `trouble` answers for all."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.weeks: dict[int, bytes] = {}
        self.validators = ["ETag"]
        self.trouble = 0
        self.asked: list[tuple[int, int]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answers(self) -> list[tuple[int, int]]:
        """(week, status) of what was asked since the last call."""
        asked, self.asked = self.asked, []
        return asked


class Handler(BaseHTTPRequestHandler):
    server: Upstream

    def do_GET(self) -> None:
        week = int(self.path.split("/")[2])
        body = self.server.weeks.get(week, b"404: Not Found")
        tag = hashlib.md5(body).hexdigest()
        given = dict.fromkeys(self.server.validators, tag)
        shown = (self.headers.get("If-None-Match"), self.headers.get("If-Modified-Since"))
        status = self.server.trouble or (404 if week not in self.server.weeks else 304 if tag in shown else 200)
        self.server.asked.append((week, status))
        self.send_response(status)
        for name, value in ({} if status == 404 else given).items():
            self.send_header(name, value)
        body = body if status == 200 else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def upstream(monkeypatch) -> Iterator[Upstream]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Upstream() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@dataclass
class Source:
    folder: str
    address: str = "http://127.0.0.1:9"
    kind: str = "github"

    def open(self) -> sources.Source:
        return open_source(self.kind, Place(Path(self.folder), self.address))


@dataclass
class Watcher:
    """Looks, keeps the memory, and holds what it was told to fetch."""

    source: Source
    memory: Memory
    held: dict[str, str]

    def look(self, *, fetch: bool = True) -> Look:
        found = look(self.source, SEASON, json.loads(json.dumps(self.memory)), self.held)
        self.memory = found.memory
        if fetch:
            self.held |= {str(sighting.week): sighting.sha256 for sighting in found.changed}
        return found

    def statuses(self, *, fetch: bool = True) -> dict[int, str]:
        return {sighting.week.week: sighting.status for sighting in self.look(fetch=fetch).sightings}


@pytest.fixture
def github(upstream, tmp_path) -> Watcher:
    return Watcher(Source(str(tmp_path), upstream.url), {}, {})


@pytest.fixture
def folder(tmp_path) -> Watcher:
    return Watcher(Source(str(tmp_path), kind="folder"), {}, {})


def put(watcher: Watcher, number: int, content: bytes) -> Path:
    file = week_file(Path(watcher.source.folder), NflWeek(SEASON, number))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def test_every_published_week_is_new_once_and_two_weeks_ahead_are_not_yet_there(upstream, github):
    upstream.weeks = {1: b"one", 2: b"two", 3: b"three"}
    assert github.statuses() == {1: "new", 2: "new", 3: "new", 4: "not yet", 5: "not yet"}
    assert github.held["2025-W02"] == hashlib.sha256(b"two").hexdigest()
    assert github.statuses() == {1: "unchanged", 2: "unchanged", 3: "unchanged", 4: "not yet", 5: "not yet"}


@pytest.mark.parametrize("validators", [["ETag"], ["Last-Modified"], ["ETag", "Last-Modified"]], ids=str)
def test_an_unchanged_week_is_asked_for_conditionally_and_not_sent_again(upstream, github, validators):
    upstream.weeks, upstream.validators = {1: b"one"}, validators
    github.look()
    upstream.answers()
    assert github.statuses()[1] == "unchanged"
    assert upstream.answers() == [(1, 304), (2, 404), (3, 404)]


def test_without_validators_the_content_decides(upstream, github):
    upstream.weeks, upstream.validators = {1: b"one"}, []
    github.look()
    upstream.answers()
    assert github.statuses()[1] == "unchanged"
    assert upstream.answers()[0] == (1, 200)
    upstream.weeks[1] = b"uno"
    assert github.statuses()[1] == "corrected"


def test_a_correction_is_seen_once_and_so_is_its_taking_back(upstream, github):
    upstream.weeks = {1: b"one"}
    github.look()
    for content in (b"uno", b"one", b"uno"):
        upstream.weeks[1] = content
        (seen,) = github.look().changed
        assert (seen.status, seen.sha256, seen.again) == ("corrected", hashlib.sha256(content).hexdigest(), True)
        assert github.look().changed == []


def test_a_week_that_is_still_being_fetched_is_not_asked_for_twice(upstream, github):
    upstream.weeks = {1: b"one"}
    assert github.statuses(fetch=False)[1] == "new"
    assert github.statuses(fetch=False)[1] == "unchanged"


def test_a_lost_memory_fetches_nothing_again(upstream, github):
    upstream.weeks = {1: b"one", 2: b"two"}
    github.look()
    github.memory = {}
    assert github.look().changed == []
    upstream.answers()
    github.look()
    assert upstream.answers()[:2] == [(1, 304), (2, 304)]


def test_a_week_deleted_from_the_store_is_new_again(upstream, github):
    upstream.weeks = {1: b"one"}
    github.look()
    github.look()
    github.held.clear()
    (seen,) = github.look().changed
    assert (seen.status, seen.again) == ("new", True)


def test_a_week_fetched_by_hand_in_between_is_unchanged(upstream, github):
    upstream.weeks = {1: b"one"}
    github.look()
    upstream.weeks[1] = b"uno"
    github.held["2025-W01"] = hashlib.sha256(b"uno").hexdigest()
    assert github.statuses()[1] == "unchanged"


def test_one_missing_week_does_not_hide_the_next_and_held_weeks_are_asked_wherever_they_are(upstream, github):
    upstream.weeks = {2: b"two", 17: b"seventeen"}
    github.held["2025-W17"] = "something else"
    assert github.statuses() == {1: "not yet", 2: "new", 3: "not yet", 17: "corrected"}


def test_a_withdrawn_week_stays_held_and_is_said_once(upstream, github):
    upstream.weeks = {1: b"one"}
    github.look()
    upstream.weeks.clear()
    gone = github.look()
    assert (gone.sightings[0].week.week, gone.sightings[0].status) == (1, "withdrawn")
    assert gone.changed == []
    assert gone.warnings == ["2025-W01 is held, but has gone from upstream; what is held stays"]
    assert github.look().warnings == []
    upstream.weeks = {1: b"one"}
    assert github.statuses()[1] == "unchanged"
    upstream.weeks = {}
    assert len(github.look().warnings) == 1


def test_a_week_that_comes_back_changed_is_corrected(upstream, github):
    upstream.weeks = {1: b"one"}
    github.look()
    upstream.weeks = {}
    github.look()
    upstream.weeks = {1: b"uno"}
    assert github.statuses()[1] == "corrected"


def test_a_server_in_trouble_is_said_once_and_nothing_is_lost(upstream, github):
    upstream.weeks = {1: b"one", 2: b"two"}
    github.look()
    memory = github.memory
    upstream.weeks[2], upstream.trouble = b"dos", 500
    upstream.answers()
    found = github.look()
    assert [(sighting.week.week, sighting.status) for sighting in found.sightings] == [(1, "unreachable")]
    assert {week for week, _ in upstream.answers()} == {1}
    (warning,) = found.warnings
    assert "HTTP 500" in warning
    assert found.sightings[0].problem == warning
    assert github.memory == memory
    upstream.trouble = 0
    assert github.statuses()[2] == "corrected"


def test_no_network_is_trouble_too(github):
    github.source.address = f"http://127.0.0.1:{free_port()}"
    found = github.look()
    assert [sighting.status for sighting in found.sightings] == ["unreachable"]
    assert "no answer" in found.warnings[0]


def test_a_look_without_time_asks_nothing_and_forgets_nothing(upstream, github):
    upstream.weeks = {1: b"one"}
    github.look()
    upstream.answers()
    found = look(github.source, SEASON, github.memory, github.held, seconds=0)
    assert (found.sightings, found.memory, upstream.answers()) == ([], github.memory, [])


def test_a_folders_weeks_are_new_corrected_and_unchanged(folder):
    put(folder, 2, b"two")
    put(folder, 9, b"nine")
    assert folder.statuses() == {2: "new", 9: "new"}
    assert folder.statuses() == {2: "unchanged", 9: "unchanged"}
    put(folder, 9, b"neuf!")
    assert folder.statuses() == {2: "unchanged", 9: "corrected"}


def test_a_file_of_the_same_time_and_size_is_not_read(folder, monkeypatch):
    put(folder, 1, b"one")
    folder.look()
    monkeypatch.setattr(sources.folder, "read_file", lambda file: pytest.fail(f"{file} was read"))
    assert folder.statuses() == {1: "unchanged"}


def test_a_file_that_was_only_touched_is_unchanged(folder):
    file = put(folder, 1, b"one")
    folder.look()
    file.touch()
    assert folder.statuses() == {1: "unchanged"}


def test_a_file_that_is_gone_is_a_week_withdrawn(folder):
    file = put(folder, 1, b"one")
    folder.look()
    file.unlink()
    found = folder.look()
    assert [sighting.status for sighting in found.sightings] == ["withdrawn"]
    assert found.warnings == [f"2025-W01 is held, but has gone from {file}; what is held stays"]


def test_a_file_that_cannot_be_read_does_not_hide_the_others(folder):
    week_file(Path(folder.source.folder), NflWeek(SEASON, 1)).mkdir(parents=True)
    put(folder, 2, b"two")
    found = folder.look()
    assert [sighting.status for sighting in found.sightings] == ["unreachable", "new"]
    assert "cannot be read" in found.warnings[0]


def test_what_is_no_file_is_told_and_not_waited_for(folder):
    file = week_file(Path(folder.source.folder), NflWeek(SEASON, 1))
    file.parent.mkdir(parents=True)
    os.mkfifo(file)
    put(folder, 2, b"two")
    found = folder.look()
    assert [sighting.status for sighting in found.sightings] == ["unreachable", "new"]
    assert "this is a pipe" in found.warnings[0] and str(file) in found.warnings[0]


def test_a_password_upstream_is_in_no_warning(upstream, github):
    github.source.address, upstream.trouble = upstream.url.replace("//", "//ann:secret@"), 500
    (warning,) = github.look().warnings
    assert "HTTP 500" in warning and "secret" not in warning


def test_a_folder_whose_name_only_begins_like_a_year_is_no_season(folder):
    put(folder, 1, b"one")
    other = Path(folder.source.folder) / "2030-old" / "1" / "WR.json"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"old")
    assert season_to_watch(folder.source, date(2020, 1, 1)) == SEASON


def test_auto_takes_the_folders_file_and_asks_upstream_for_the_rest(upstream, github):
    github.source.kind = "auto"
    put(github, 1, b"mine")
    upstream.weeks = {1: b"one", 2: b"two"}
    assert github.statuses() == {1: "new", 2: "new", 3: "not yet", 4: "not yet"}
    assert github.held["2025-W01"] == hashlib.sha256(b"mine").hexdigest()
    assert upstream.answers() == [(2, 200), (3, 404), (4, 404)]


def test_auto_still_looks_at_the_folder_when_upstream_is_in_trouble(upstream, github):
    github.source.kind, upstream.trouble = "auto", 503
    put(github, 4, b"four")
    assert github.statuses() == {1: "unreachable", 4: "new"}


def test_the_sample_is_watched_like_a_folder(tmp_path):
    found = look(Source(str(tmp_path), kind="sample"), SEASON, {}, {})
    assert [(sighting.week.week, sighting.status) for sighting in found.sightings] == [
        (1, "new"),
        (2, "new"),
        (3, "new"),
    ]


def test_in_short_counts_and_names_a_folders_other_seasons(folder):
    assert folder.look().in_short() == "season 2025: no week to be seen"
    put(folder, 1, b"one")
    put(folder, 2, b"two")
    assert folder.look().in_short() == "season 2025: 2 new"
    other = look(folder.source, 2026, {}, {}).in_short()
    assert other == "season 2026: no week to be seen; the folder has weeks of 2025: set NFL_LORA_SEASON"


@pytest.mark.parametrize(
    ("day", "season"),
    [(date(2025, 8, 31), 2024), (date(2025, 9, 1), 2025), (date(2025, 12, 31), 2025), (date(2026, 2, 3), 2025)],
)
def test_a_season_lasts_from_september_to_the_next_august(day, season):
    assert season_on(day) == season


def test_the_store_says_which_hashes_are_held_and_none_of_a_damaged_file(tmp_path):
    store = Store(tmp_path)
    assert held_hashes(store) == {}
    hashes = {}
    for number in (2, 1, 3):
        week, content = NflWeek(SEASON, number), f"week {number}".encode()
        hashes[str(week)] = hashlib.sha256(content).hexdigest()
        origin = {"kind": "github", "origin": "", "sha256": hashes[str(week)], "fetched_at": ""}
        replace_file(store.raw_origin(week), json.dumps(origin).encode())
        replace_file(store.raw(week), content)
    store.raw(NflWeek(SEASON, 3)).write_bytes(b"week")
    assert held_hashes(store) == hashes | {"2025-W03": ""}


def test_importing_watch_does_not_import_requests():
    code = "import sys, nfl_lora_pipeline.season.watch; sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert AHEAD == 2
