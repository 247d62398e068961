import contextlib
import gzip
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.loopback import free_port
from nfl_lora_pipeline.weeks.sources import Place, SourceError, SourceUnreachable, WeekNotPublished, open_source
from nfl_lora_pipeline.weeks.sources.download import Limits, redirected, shown_url
from nfl_lora_pipeline.weeks.sources.folder import read_file, week_file
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
        self.authorised: list[str | None] = []
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/players"


class Handler(BaseHTTPRequestHandler):
    server: Upstream

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.authorised.append(self.headers.get("Authorization"))
        answers = self.server.answers
        status, body, headers = answers.pop(0) if len(answers) > 1 else answers[0]
        if "X-Silent" in headers:
            self.server.release.wait(5)
            return
        if "X-Slow-Head" in headers:
            self.drip(b"HTTP/1.0 200 OK\r\nX-Filler: " + b"x" * 1000)
            return
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        self.drip(body) if "X-Slow" in headers else self.wfile.write(body)

    def drip(self, content: bytes) -> None:
        """A byte now and then, for 30 seconds at most, until nobody listens."""
        for byte in content[:600]:
            try:
                self.wfile.write(bytes([byte]))
            except OSError:
                return
            if self.server.release.wait(0.05):
                return

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
    return f"http://127.0.0.1:{free_port()}"


def fetch(folder: Path, base_url: str = "http://127.0.0.1:9", **options):
    given = {name: options.pop(name) for name in list(options) if name in Limits.__dataclass_fields__}
    limits = Limits(**{"backoff_seconds": 0.01} | given)
    said = {"say": options.pop("say")} if "say" in options else {}
    week, kind = options.pop("week", WEEK), options.pop("kind", "auto")
    return open_source(kind, Place(folder, base_url, limits=limits, **options)).fetch(week, **said)


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
        fetch(tmp_path, server.url, attempts=2, answer_seconds=0.5)
    assert len(server.asked) == 2


def test_a_refusal_is_told_apart_from_a_missing_week(server, tmp_path):
    server.answers = [(403, b"no", {})]
    with pytest.raises(SourceError, match=r"refused \(HTTP 403") as caught:
        fetch(tmp_path, server.url)
    assert type(caught.value) is SourceError


def test_a_run_whose_upstream_never_answers_says_what_it_waits_for_and_ends_with_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    command = [sys.executable, "-m", "nfl_lora_pipeline.cli.main", "run", "--source", "github"]
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the system takes connections, and nobody answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        done = subprocess.run(
            [*command, "--store", str(tmp_path / "data")],
            env=os.environ | {"NFL_LORA_BASE_URL": url},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, "")
    plan, *waits, last = done.stderr.splitlines()
    assert plan.startswith("plan: ")
    waiting = f"raw_wr_json: waiting for {url.removeprefix('http://')}, try"
    assert [line[: len(waiting) + 7] for line in waits] == [f"{waiting} {number} of 3" for number in (1, 2, 3)]
    assert last.startswith(f"Error: {url}/2025/1/WR.json: no answer (")
    assert 3 * Limits().answer_seconds + Limits().backoff_seconds < 20, "which leaves ten seconds to start in"
    assert time.monotonic() - begun < 60, "on a machine with other work; 24 s on a quiet one"


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
    code = "import sys; from nfl_lora_pipeline.weeks.sources import source_names as s; s(); sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("slow", "waited"), [("X-Slow", "not whole within 1.5 s"), ("X-Slow-Head", "timed out after 1 s")]
)
def test_a_byte_now_and_then_does_not_hold_a_download_beyond_its_time(server, tmp_path, slow, waited):
    server.answers = [(200, CONTENT, {slow: "yes"})]
    threads, begun = threading.active_count(), time.monotonic()
    with pytest.raises(SourceUnreachable, match=waited):
        fetch(tmp_path, server.url, attempts=1, whole_seconds=1.5, answer_seconds=1.0)
    assert time.monotonic() - begun < 10
    while threading.active_count() > threads and time.monotonic() - begun < 20:
        time.sleep(0.02)
    assert threading.active_count() == threads


def test_all_attempts_together_have_one_deadline(server, tmp_path):
    server.answers = [(500, b"", {})]
    begun = time.monotonic()
    with pytest.raises(SourceUnreachable, match="HTTP 500"):
        fetch(tmp_path, server.url, attempts=1000, whole_seconds=1.0, backoff_seconds=0.05)
    assert time.monotonic() - begun < 10
    assert 1 < len(server.asked) < 20


def test_a_body_that_unpacks_to_more_than_the_cap_is_refused_and_never_held(server, tmp_path):
    server.answers = [(200, gzip.compress(bytes(60_000_000), 1), {"Content-Encoding": "gzip"})]
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match=r"larger than 2 MB, and no week is; check the base URL"):
            fetch(tmp_path, server.url, largest=2_000_000)
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()
    assert len(server.asked) == 1


def test_a_plain_body_has_the_same_cap(server, tmp_path):
    server.answers = [(200, bytes(1001), {})]
    with pytest.raises(SourceError, match=r"larger than 0\.001 MB"):
        fetch(tmp_path, server.url, largest=1000)
    server.answers = [(200, bytes(1000), {})]
    assert len(fetch(tmp_path, server.url, largest=1000).content) == 1000


def test_each_attempt_says_whom_it_asks_and_why_it_follows_another(server, tmp_path):
    server.answers = [(503, b"", {}), (503, b"", {}), (200, CONTENT, {})]
    said: list[str] = []
    fetch(tmp_path, server.url.replace("//", "//ann:secret@"), say=said.append)
    host = f"waiting for 127.0.0.1:{server.server_port}, try"
    why = "; the last: the server is in trouble (HTTP 503)"
    assert said == [f"{host} 1 of 3", f"{host} 2 of 3{why}", f"{host} 3 of 3{why}"]


def test_a_redirect_within_the_host_is_followed_with_its_password(server, tmp_path):
    server.answers = [
        (302, b"", {"Location": "/elsewhere/WR.json"}),
        (301, b"", {"Location": server.url}),
        (200, CONTENT, {}),
    ]
    raw = fetch(tmp_path, server.url.replace("//", "//ann:secret@"))
    assert raw.content == CONTENT
    assert server.asked == ["/players/2025/1/WR.json", "/elsewhere/WR.json", "/players"]
    assert len(set(server.authorised)) == 1 and server.authorised[0]


def test_a_redirect_without_end_is_left(server, tmp_path):
    server.answers = [(302, b"", {"Location": "/again"})]
    with pytest.raises(SourceError, match="more than 5 redirects"):
        fetch(tmp_path, server.url)
    assert len(server.asked) == 6


def test_a_redirect_to_another_host_is_refused_and_both_are_named(server, tmp_path):
    other = "http://ann:secret@elsewhere.example/2025/1/WR.json"
    server.answers = [(302, b"", {"Location": other})]
    with pytest.raises(
        SourceError, match=r"127\.0\.0\.1:\d+ sends to another host, elsewhere\.example, which is not"
    ) as caught:
        fetch(tmp_path, server.url)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["http://example.org/x", "file:///etc/passwd", "javascript:alert(1)"])
def test_a_redirect_out_of_https_is_refused(place):
    with pytest.raises(SourceError, match="which is not followed"):
        redirected("https://example.org/x", place)


def test_a_redirect_from_http_to_https_of_the_same_host_is_followed():
    assert redirected("http://a:b@example.org/x", "https://example.org/y") == "https://a:b@example.org/y"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.org/players", "https://example.org/players"),
        ("https://ann:secret@example.org/players", "https://***@example.org/players"),
        ("https://ann:sec/ret?@example.org:80/p?token=secret&x=1#secret", "https://***@example.org:80/p?***"),
        ("https://secret@example.org?secret", "https://***@example.org?***"),
        ("ann:secret@example.org", "***@example.org"),
        ("example.org/p?token=secret&u=http://x", "example.org/p?***"),
        ("https://[::1/\x1b[31m", "https://[::1/?[31m"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, shown):
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {}),
        (200, {"Content-Length": "9999"}),
        (302, {"Location": "http://elsewhere.example"}),
        (403, {}),
        (404, {}),
        (500, {}),
    ],
    ids=str,
)
def test_a_password_and_a_token_are_sent_and_never_repeated(server, tmp_path, status, headers):
    server.answers = [(status, CONTENT, headers)]
    said: list[str] = []
    address = server.url.replace("//", "//ann:secret@") + "?token=secret"
    try:
        said.append(fetch(tmp_path, address, say=said.append).origin)
    except SourceError as error:
        assert error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)
        said.append(str(error))
    assert server.asked[0] == "/players/2025/1/WR.json?token=secret"
    assert server.authorised[0]
    assert "secret" not in "".join(said) and "2025/1/WR.json" in said[-1]


@pytest.mark.parametrize("scheme", ["ftp", "http", "https"])
def test_an_address_of_no_use_with_a_password_does_not_repeat_it(scheme, tmp_path):
    for address in (f"{scheme}://ann:sec/ret@[::1", f"{scheme}://ann:secret@ex ample:port"):
        with pytest.raises(SourceError) as caught:
            fetch(tmp_path, address, attempts=1, answer_seconds=0.5)
        assert not re.search("sec|ret@", str(caught.value)), str(caught.value)


def make_odd(file: Path, kind: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if kind == "a pipe":
        os.mkfifo(file)
    elif kind == "a folder":
        file.mkdir()
    elif kind == "a device":
        file.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(file.parent):  # a socket's path is short
            listener.bind(file.name)


@pytest.mark.parametrize("source", ["folder", "auto"])
@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device", "a socket"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, kind, source):
    file = week_file(tmp_path, WEEK)
    make_odd(file, kind)
    with pytest.raises(SourceError, match=rf"cannot be read \(this is {kind}\); put the file there") as caught:
        fetch(tmp_path, kind=source)
    assert str(file) in str(caught.value)


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    file = put(tmp_path, b"")
    os.truncate(file, 20_000_001)
    with pytest.raises(SourceError, match="20,000,001 bytes, and no week is larger than 20 MB"):
        fetch(tmp_path, kind="folder")
    os.truncate(file, 20_000_000)
    assert len(read_file(file)) == 20_000_000


ARCHIVE = '''
"""Weeks in an archive of one file a week."""
from datetime import UTC, datetime
from nfl_lora_pipeline.weeks.sources import Place, RawWeek, Source, WeekNotPublished, quiet, source

@source("archive")
class Archive(Source):
    def __init__(self, place: Place) -> None:
        self.folder = place.folder

    def fetch(self, week, say=quiet):
        file = self.folder / f"{week}.json"
        if not file.exists():
            raise WeekNotPublished(f"{file}: not yet")
        return RawWeek(week, file.read_bytes(), str(file), "archive", datetime.now(UTC))
'''
FROM_THE_ARCHIVE = """
import json
import dagster as dg
from click.testing import CliRunner
from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.defs.resources import DatasetResource, StoreResource, WeekSource
from nfl_lora_pipeline.defs.dataset import players, raw_wr_json
from nfl_lora_pipeline.season.watch import held_hashes, look
from nfl_lora_pipeline.weeks.week import NflWeek

store, archive = StoreResource(root="store"), WeekSource(kind="archive", folder="raw")
before = look(archive, 2025, {}, {})
instance = dg.DagsterInstance.ephemeral()
instance.add_dynamic_partitions("nfl_week", ["2025-W01"])
dg.materialize_to_memory(
    [raw_wr_json, players],
    instance=instance,
    partition_key="2025-W01",
    resources={"store": store, "week_source": archive, "dataset": DatasetResource()},
)
after = look(archive, 2025, before.memory, held_hashes(store.open()))
print(json.dumps({
    "seen": [[str(seen.week), seen.status] for look in (before, after) for seen in look.sightings],
    "kind": store.open().source_kind(NflWeek(2025, 1)),
    "players": store.open().read_players(NflWeek(2025, 1))["player"].to_list(),
    "help": CliRunner().invoke(main, ["run", "--help"]).output,
}))
"""


def test_a_new_source_is_one_file_and_nothing_else(tmp_path):
    package = upstream.copy_of_package(tmp_path)
    (package / "weeks" / "sources" / "archive.py").write_text(ARCHIVE)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "2025-W01.json").write_bytes(CONTENT)
    made = json.loads(upstream.python_with(package, FROM_THE_ARCHIVE).splitlines()[-1])
    ahead = [["2025-W02", "not yet"], ["2025-W03", "not yet"]]
    assert made["seen"] == [["2025-W01", "new"], *ahead, ["2025-W01", "unchanged"], *ahead]
    assert (made["kind"], made["players"]) == ("archive", ["Ann Example"])
    assert "[archive|auto|folder|github|sample]" in made["help"]


def test_a_source_that_is_none_is_named_with_those_that_are(tmp_path):
    with pytest.raises(ValueError, match="source 'ftp': use auto, folder, github, sample"):
        open_source("ftp", Place(tmp_path))
