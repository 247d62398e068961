import gzip
import hashlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nfl_lora_pipeline.weeks.source import (
    SourceError,
    SourceUnreachable,
    WeekNotPublished,
    fetch_week,
    week_file,
)
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests import upstream

WEEK = NflWeek(2025, 1)
CONTENT = upstream.week_bytes([upstream.row(name="Ann Example", ReceivingYDS="12")])


class Upstream(ThreadingHTTPServer):
    """Answers with `answers` in turn, the last one for good; an answer is (status, body, headers)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, bytes, dict[str, str]]] = []
        self.asked: list[str] = []
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/players"


class Handler(BaseHTTPRequestHandler):
    server: Upstream

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answers = self.server.answers
        status, body, headers = answers.pop(0) if len(answers) > 1 else answers[0]
        if "X-Silent" in headers:
            self.server.release.wait(5)
            return
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Upstream]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Upstream() as upstream_server:
        threading.Thread(target=upstream_server.serve_forever, args=(0.01,), daemon=True).start()
        yield upstream_server
        upstream_server.release.set()
        upstream_server.shutdown()


@pytest.fixture
def refusing_url(monkeypatch) -> str:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def fetch(folder: Path, base_url: str = "http://127.0.0.1:9", **options):
    return fetch_week(options.pop("week", WEEK), folder=folder, base_url=base_url, backoff_seconds=0.01, **options)


def put(folder: Path, content: bytes) -> Path:
    file = week_file(folder, WEEK)
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return file


def test_a_published_week_is_downloaded_from_upstreams_layout(server, tmp_path):
    server.answers = [(200, CONTENT, {})]
    raw = fetch(tmp_path, server.url + "/")
    assert (raw.week, raw.content, raw.kind) == (WEEK, CONTENT, "github")
    assert raw.origin == f"{server.url}/2025/1/WR.json"
    assert server.asked == ["/players/2025/1/WR.json"]


def test_a_raw_week_knows_its_hash_size_and_time(tmp_path):
    put(tmp_path, CONTENT)
    raw = fetch(tmp_path)
    assert raw.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert raw.size == len(CONTENT)
    assert raw.fetched_at.tzinfo is UTC


def test_a_packed_download_is_unpacked(server, tmp_path):
    server.answers = [(200, gzip.compress(CONTENT), {"Content-Encoding": "gzip"})]
    assert fetch(tmp_path, server.url).content == CONTENT


def test_the_folder_comes_first_and_upstream_is_not_asked(server, tmp_path):
    server.answers = [(200, b"[]", {})]
    file = put(tmp_path, CONTENT)
    raw = fetch(tmp_path, server.url)
    assert (raw.content, raw.kind, raw.origin) == (CONTENT, "folder", str(file))
    assert server.asked == []


def test_github_can_be_forced_past_the_folder(server, tmp_path):
    server.answers = [(200, CONTENT, {})]
    put(tmp_path, b"[]")
    assert fetch(tmp_path, server.url, kind="github").content == CONTENT


def test_a_forced_folder_without_the_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(SourceError, match=r"no such file; put 2025-W01 there") as caught:
        fetch(tmp_path, kind="folder")
    assert str(week_file(tmp_path, WEEK)) in str(caught.value)


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path):
    file = week_file(tmp_path, WEEK)
    file.mkdir(parents=True)
    with pytest.raises(SourceError, match="cannot be read") as caught:
        fetch(tmp_path, kind="folder")
    assert str(file) in str(caught.value)


def test_a_404_says_that_the_week_is_not_published_and_is_asked_for_once(server, tmp_path):
    server.answers = [(404, b"404: Not Found", {})]
    with pytest.raises(WeekNotPublished, match=r"not \(yet\) published upstream \(HTTP 404.*try again later") as caught:
        fetch(tmp_path, server.url)
    assert f"{server.url}/2025/1/WR.json" in str(caught.value)
    assert str(week_file(tmp_path, WEEK)) in str(caught.value)
    assert len(server.asked) == 1


def test_a_404_is_not_replaced_by_the_sample(server, tmp_path):
    server.answers = [(404, b"404: Not Found", {})]
    with pytest.raises(WeekNotPublished):
        fetch(tmp_path, server.url, sample_fallback=True)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server, tmp_path, status):
    server.answers = [(status, b"busy", {"Retry-After": "60"}), (status, b"busy", {}), (200, CONTENT, {})]
    assert fetch(tmp_path, server.url).content == CONTENT
    assert len(server.asked) == 3


def test_a_server_that_stays_in_trouble_is_given_up_after_the_attempts(server, tmp_path):
    server.answers = [(500, b"oops", {})]
    with pytest.raises(SourceUnreachable, match="HTTP 500"):
        fetch(tmp_path, server.url, attempts=2)
    assert len(server.asked) == 2


def test_a_server_that_says_nothing_is_asked_again_and_given_up(server, tmp_path):
    server.answers = [(200, b"", {"X-Silent": "yes"})]
    with pytest.raises(SourceUnreachable, match=r"no answer .*timed out"):
        fetch(tmp_path, server.url, attempts=2, read_seconds=0.1)
    assert len(server.asked) == 2


def test_a_refusal_is_told_apart_from_a_missing_week(server, tmp_path):
    server.answers = [(403, b"no", {})]
    with pytest.raises(SourceError, match=r"refused \(HTTP 403") as caught:
        fetch(tmp_path, server.url)
    assert type(caught.value) is SourceError


def test_a_refused_connection_names_the_url_and_the_mend(refusing_url, tmp_path):
    with pytest.raises(SourceUnreachable, match=r"no answer .*refused.*; check the network, or put the file") as caught:
        fetch(tmp_path, refusing_url)
    assert f"{refusing_url}/2025/1/WR.json" in str(caught.value)


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}], ids=["plain", "gzip"])
def test_a_download_that_breaks_off_is_an_error_and_not_half_a_week(server, tmp_path, headers):
    body = gzip.compress(CONTENT) if headers else CONTENT
    server.answers = [(200, body[:-10], {"Content-Length": str(len(body))} | headers)]
    with pytest.raises(SourceError, match=r"the download broke off .*; nothing was kept: fetch it again"):
        fetch(tmp_path, server.url, sample_fallback=True)


def test_an_address_that_is_none_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"ftp://example/2025/1/WR.json: not an address .* correct the base URL"):
        fetch(tmp_path, "ftp://example")


def test_the_sample_steps_in_without_a_network_only_when_asked(refusing_url, tmp_path):
    with pytest.raises(SourceUnreachable):
        fetch(tmp_path, refusing_url)
    assert fetch(tmp_path, refusing_url, sample_fallback=True).kind == "sample"


def test_the_sample_steps_in_for_a_server_in_trouble(server, tmp_path):
    server.answers = [(503, b"", {})]
    assert fetch(tmp_path, server.url, sample_fallback=True).kind == "sample"


def test_the_sample_does_not_step_in_for_forced_github_or_a_week_it_has_not(refusing_url, tmp_path):
    with pytest.raises(SourceUnreachable):
        fetch(tmp_path, refusing_url, kind="github", sample_fallback=True)
    with pytest.raises(SourceUnreachable):
        fetch(tmp_path, refusing_url, week=NflWeek(2025, 4), sample_fallback=True)


def test_a_forced_sample_without_the_week_says_which_weeks_there_are(tmp_path):
    with pytest.raises(SourceError, match="the bundled sample has weeks 1 to 3 of 2025, not 2025-W04"):
        fetch(tmp_path, kind="sample", week=NflWeek(2025, 4))


def test_importing_source_does_not_import_requests():
    code = "import sys, nfl_lora_pipeline.weeks.source; sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
