"""What `nfl-lora run` does with odd files and servers, in a process of its own."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nfl_lora_pipeline_tests import upstream

NOBODY_PLAYED = upstream.week_bytes([upstream.row(name="Sam Bench")])
SECRET = "pa55word"


class Handler(BaseHTTPRequestHandler):
    """Answers 200 with `content`, or 503 where there is none, and keeps who asked."""

    content = b""
    asked: tuple[str, ...] = ()

    def do_GET(self) -> None:
        Handler.asked += (f"{self.path} {self.headers.get('Authorization')}",)
        self.send_response(200 if self.content else 503)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def address(monkeypatch) -> Iterator[str]:
    """Of upstream, as somebody with a password and a token writes it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield f"http://ann:{SECRET}@127.0.0.1:{server.server_port}/players?token={SECRET}"
        server.shutdown()


def run(store: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nfl_lora_pipeline.cli.main", "run", "--store", str(store), *options]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=90, check=False, env=os.environ | environment
    )


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error, without a traceback."""
    assert (done.returncode, done.stdout) == (1, "")
    told = done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    assert [line.startswith("Error: ") for line in told] == [False] * (len(told) - 1) + [True]
    return told[-1]


def test_a_pipe_in_the_place_of_a_week_is_refused_at_once(tmp_path):
    file = upstream.write_week(tmp_path / "raw", b"") / "2025" / "1" / "WR.json"
    file.unlink()
    os.mkfifo(file)
    begun = time.monotonic()
    done = run(tmp_path / "data", "--source", "folder", "--data-dir", str(tmp_path / "raw"))
    assert refusal(done) == f"Error: {file}: cannot be read (this is a pipe); put the file there"
    assert time.monotonic() - begun < 60


def test_a_key_that_stands_twice_is_one_line_with_its_row(tmp_path):
    content = upstream.week_bytes(upstream.tiny_week()).replace(b'"Pos":"WR"', b'"Pos":"WR","ReceivingYDS":"9"', 1)
    raw = upstream.write_week(tmp_path / "raw", content)
    told = refusal(run(tmp_path / "data", "--source", "folder", "--data-dir", str(raw)))
    assert told.endswith(
        "WR.json: row 1 (Nico Hale): the field 'ReceivingYDS' stands twice; fetch the week again, or correct the file"
    )


@pytest.mark.parametrize("content", [b"", NOBODY_PLAYED], ids=["trouble", "a week"])
def test_a_password_is_sent_and_stands_nowhere(tmp_path, address, monkeypatch, content):
    monkeypatch.setattr(Handler, "content", content)
    monkeypatch.setattr(Handler, "asked", ())
    done = run(tmp_path / "data", "--source", "github", "--season", "2025", "--weeks", "1", NFL_LORA_BASE_URL=address)
    assert refusal(done)
    assert Handler.asked and SECRET in Handler.asked[0] and "Basic " in Handler.asked[0]
    if content:
        origin = json.loads((tmp_path / "data" / "weeks" / "2025-W01" / "raw.json").read_text())["origin"]
        assert origin.startswith("http://***@127.0.0.1:") and origin.endswith("/players/2025/1/WR.json?***")
    else:
        assert ", try 3 of 3; the last: the server is in trouble" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    written = {str(file): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    packed = dict(snapshots(tmp_path / "data" / "dagster" / "history" / "runs.db"))
    assert any(b"week_source" in content for content in packed.values())
    assert [name for name, content in (written | packed).items() if SECRET.encode() in content] == []


def snapshots(storage: Path) -> Iterator[tuple[str, bytes]]:
    """What Dagster keeps of each run's job, which it compresses."""
    with contextlib.closing(sqlite3.connect(storage)) as connection:
        for name, body in connection.execute("SELECT snapshot_id, snapshot_body FROM snapshots"):
            yield name, zlib.decompress(body)
