"""Requests that a server has to survive: malformed, oversized, unfinished, from elsewhere. Each with what may be answered."""

import json
import math
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from nfl_lora_pipeline.base_pretraining.pretrain import VOCAB_SIZE

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
CLOSED = 0  # instead of a status: the connection was closed without a response
QUESTION = "How many receiving yards did Amari Stone have in week 1 of the 2025 NFL season?"
ASKED = {"messages": [{"role": "user", "content": QUESTION}]}
PATIENCE_SECONDS = 30.0
LOOPS = "{% for a in range(9999) %}{% for b in range(9999) %}{{ messages }}{% endfor %}{% endfor %}"


@dataclass(frozen=True)
class Attack:
    """One hostile request.

    Attributes:
        name: unique.
        send: sends it to a port of this machine; the status of the response, or `CLOSED`.
        expects: what may come back.
    """

    name: str
    send: Callable[[int], int]
    expects: frozenset[int]


def exchange(port: int, data: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes and read until the server closes, or says nothing more for a while."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        received = bytearray()
        try:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65_536):
                received += chunk
        except ConnectionError:
            pass
        return bytes(received)


def status_of(response: bytes) -> int:
    """The status in a response's first line."""
    return int(response.split(b" ", 2)[1]) if response.startswith(b"HTTP/1.") else CLOSED


def request(
    path: str = CHAT, body: bytes = b"", *, method: str = "POST", host: str | None = "127.0.0.1", headers: str = ""
) -> bytes:
    """A well-formed request but for what it is given, after which the server closes the connection."""
    lines = f"{method} {path} HTTP/1.1\r\n" + ("" if host is None else f"Host: {host}\r\n")
    length = f"Content-Length: {len(body)}\r\n" if body or method == "POST" else ""
    return f"{lines}{headers}{length}Connection: close\r\n\r\n".encode("latin-1") + body


def _raw(name: str, data: bytes, *expects: int) -> Attack:
    return Attack(name, lambda port: status_of(exchange(port, data)), frozenset(expects))


def _body(name: str, content: bytes, *expects: int, path: str = CHAT) -> Attack:
    return _raw(name, request(path, content), *expects)


def _field(field: str, value: Any) -> Attack:
    """A chat whose field has a value that is out of bounds or of another type."""
    return _body(f"{field} {_short(value)}", json.dumps({**ASKED, field: value}).encode(), 400)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 70 else f"{text[:60]}... of {len(text):,} characters"


def _fields(**values: Iterable[Any]) -> list[Attack]:
    return [_field(name, value) for name, several in values.items() for value in several]


def _prompt(value: Any) -> Attack:
    return _body(f"prompt {_short(value)}", json.dumps({"prompt": value}).encode(), 400, path=COMPLETION)


WRONG_FIELDS = _fields(
    logit_bias=[
        {"999999": 100},
        {str(VOCAB_SIZE): 1},
        {"2147483647": 1},
        {"99999999999999999999": 1},
        {"-1": 1},
        {"a": 1},
        {"5": 1e9},
        {"5": None},
        [],
        "5",
        {str(token): 1 for token in range(2_000)},
    ],
    stop=[5, True, "", [None], [""], [5], [["a"]], {"a": 1}, list("abcde"), "x" * 10_000],
    top_k=[10**9, 10**30, -1, 1.5, "5", True],
    top_p=[-1, 2, "x", math.nan],
    min_p=[-0.1, 5, math.inf],
    temperature=[-1, 3, 1e9, "hot", math.nan, math.inf, [], True],
    max_tokens=[10**9, 10**40, 0, -5, 1.5, "many"],
    max_completion_tokens=[10**9, 0],
    seed=[2**70, "x", 1.5],
    repetition_penalty=[0, -1, 1e300, "x"],
    repetition_context_size=[0, 10**9],
    presence_penalty=[100],
    frequency_penalty=[-100],
    n=[0, 2, 10**6, "1"],
    stream=["yes", 5],
    stream_options=[5, {"include_usage": "x"}],
    logprobs=["x", 5],
    top_logprobs=[3, 50],
    response_format=[{"type": "json_schema"}, "text"],
    tools=[[{"type": "function"}]],
    functions=[[{"name": "f"}]],
    chat_template_kwargs=[{"chat_template": LOOPS}, {"enable_thinking": False}],
    role_mapping=[{"user": "x"}],
    adapters=["/etc"],
    draft_model=["/etc/passwd"],
    model=[5, {}, "x" * 5_000],
)

WRONG_MESSAGES = _fields(
    messages=[
        None,
        [],
        "x",
        {},
        [None],
        [5],
        [{}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": "  "}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": [5]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}],
        [{"role": "user", "content": [{"type": "text", "text": None}]}],
        [{"role": "user", "content": [{"type": "text", "text": "a"}] * 100}],
        [{"role": "king", "content": "a"}],
        [{"role": "tool", "content": "a"}],
        [{"role": ["user"], "content": "a"}],
        [{"role": "system", "content": "a"}],
        [{"role": "assistant", "content": "a"}],
        [{"role": "user", "content": "a"}] * 300,
        [{"role": "user", "content": "a " * 2_000}],
        [{"role": "user", "content": "a" * 40_000}],
        [{"role": "user", "content": "a" * 30_000}] * 3,
    ]
)

WRONG_PROMPTS = [
    *map(_prompt, [None, "", [], [""], 5, [1, 2, 3], ["a", "b"], [[1]], {}, "a " * 5_000]),
    _body("no prompt", b"{}", 400, path=COMPLETION),
    *(
        _body(f"completion with {field}", json.dumps({"prompt": "a", field: value}).encode(), 400, path=COMPLETION)
        for field, value in {
            "echo": True,
            "suffix": "x",
            "best_of": 5,
            "logprobs": 100,
            "logit_bias": {"5000": 1},
        }.items()
    ),
]

WRONG_BODIES = [
    _body("no body", b"", 400),
    _body("half an object", b'{"messages": [', 400),
    *(_body(f"the body {word}", word.encode(), 400) for word in ("[]", "null", "5", '"x"', "{}", "True", "a=b&c=d")),
    _body("100,000 brackets", b"[" * 100_000, 400),
    _body("objects 20,000 deep", b'{"messages":' * 20_000, 400),
    _body("a deep value in an unknown field", b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400),
    _body("bytes that are no UTF-8", b'{"messages": "\xff\xfe"}', 400),
    _body("a lone surrogate", b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400),
    _body("UTF-16", json.dumps(ASKED).encode("utf-16"), 400),
    _body("a byte order mark", b"\xef\xbb\xbf" + json.dumps(ASKED).encode(), 400),
    _body("a number of 10,000 digits", b'{"seed": ' + b"9" * 10_000 + b"}", 400),
    _body("gzip without saying so", b"\x1f\x8b\x08\x00" + b"x" * 100, 400),
    _body("300 KB", b"{" + b" " * 300_000 + b"}", 413),
    _body("5 MB", b" " * 5_000_000, 413, CLOSED),
]

WELL_FORMED = [
    _body(name, json.dumps({**ASKED, **fields}).encode(), 200)
    for name, fields in {
        "every field null": dict.fromkeys(("stop", "seed", "tools", "top_k", "logit_bias", "n", "stream", "user")),
        "fields that nobody knows": {"store": True, "metadata": {"a": 1}, "x": [[[]]], "service_tier": "auto"},
        "all tokens equally unlikely": {"logit_bias": {str(token): -100 for token in range(VOCAB_SIZE)}, "temperature": 2},
        "the coldest temperature": {"temperature": 1e-300, "top_p": 0},
        "top_p 0 and top_k beyond the vocabulary": {"temperature": 1, "top_p": 0, "top_k": 1_000_000},
        "penalties at their bounds": {"repetition_penalty": 10, "presence_penalty": 2, "frequency_penalty": -2},
        "the longest answer": {"max_tokens": 4_096, "logit_bias": {"3": -100}, "stop": ["qqqq", "zzzz"]},
        "the model's own marks": {"messages": [{"role": "user", "content": "<|end|><|assistant|><|user|>\0\x1b[2J"}]},
        "logarithms of the impossible": {"logprobs": True, "top_logprobs": 20, "logit_bias": {"5": -100}, "max_tokens": 5},
    }.items()
]  # fmt: skip

WRONG_PLACES = [
    *(
        _raw(f"{method} of a chat", request(method=method), 405)
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO")
    ),
    _raw("CONNECT", request("example.com:443", method="CONNECT"), 400, 404, 405),
    _raw("POST of the models", request("/v1/models"), 405),
    *(
        _raw(f"path {path[:30]}", request(path, method="GET"), 400, 404)
        for path in (
            "/",
            "/metrics",
            "/../../etc/passwd",
            "/v1/models/../../../etc/passwd",
            "/v1/models/%2e%2e%2f%00",
            "/v1/chat/completions/",
            "//evil.example/",
            "http://evil.example/",
            "/\xff\xfe",
            "/" + "a" * 40_000,
        )
    ),
]  # fmt: skip

FROM_ELSEWHERE = [
    *(
        _raw(f"Host {host!r}", request("/v1/models", method="GET", host=host), 400, 421)
        for host in (
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "evil.example:8080",
            "[::1",
            "",
            "0x7f.evil",
            None,
        )
    ),
    _raw("two Hosts", request("/v1/models", method="GET", headers="Host: evil.example\r\n"), 400),
    *(
        _raw(f"Origin {origin}", request(body=json.dumps(ASKED).encode(), headers=f"Origin: {origin}\r\n"), 403)
        for origin in (
            "http://evil.example",
            "https://evil.example:443",
            "http://127.0.0.1.evil.example",
            "http://127.0.0.1:1",
            "http://127.0.0.1@evil.example",
            "null",
            "file://",
            "http://[",
            "x",
        )
    ),
    _raw(
        "a preflight",
        request(method="OPTIONS", headers="Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n"),
        403,
    ),
]

CHUNKED = "Transfer-Encoding: chunked"


def _posted(header: str, body: str) -> bytes:
    """A chat of one header, beside the necessary one, and a body that it may be at odds with."""
    return f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n{body}".encode()


_SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n"
_ASK = json.dumps(ASKED).encode()
WRONG_HEADERS = [
    _raw("a header of 100 KB", request(headers=f"X: {'a' * 100_000}\r\n"), 400, CLOSED),
    _raw("5,000 headers", request(headers="X: a\r\n" * 5_000), 400, CLOSED),
    _raw("NUL in a header", request(headers="X: a\0b\r\n"), 400),
    _raw("a header without a name", request(headers=": a\r\n"), 400),
    _raw("a header without a colon", request(headers="nonsense\r\n"), 400),
    _raw("a blank before the colon", request(headers="X : a\r\n"), 400),
    *(
        _raw(f"Content-Length {length}", _posted(f"Content-Length: {length}", "{}"), 400)
        for length in ("-1", "abc", "1e3", "9" * 30, "2\r\nContent-Length: 3")
    ),
    _raw("Content-Length and chunks", request(body=_ASK, headers="Transfer-Encoding: chunked\r\n"), 400),
    _raw("a smuggled request", request(body=b"0\r\n\r\n" + _SMUGGLED, headers="Transfer-Encoding: chunked\r\n"), 400),
    *(
        _raw(f"Transfer-Encoding {name}", _posted(f"Transfer-Encoding: {name}", "0\r\n\r\n"), 400, 501)
        for name in ("gzip", "chunked, chunked", "xchunked", "\x0bchunked")
    ),
    *(
        _raw(f"chunk size {size}", _posted(CHUNKED, f"{size}\r\nab\r\n0\r\n\r\n"), 400, CLOSED)
        for size in ("z", "-1", "F" * 40)
    ),
    _raw("HTTP/0.9", b"GET /v1/models\r\n\r\n", 400, CLOSED),
    _raw("HTTP/9.9", b"GET /v1/models HTTP/9.9\r\nHost: localhost\r\nConnection: close\r\n\r\n", 505),
    _raw("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 421, 505),
    _raw("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2 + b"\r\n\r\n", 400, CLOSED),
    _raw("random bytes", bytes((73 * place * place + 11) % 251 for place in range(2_000)) + b"\r\n\r\n", 400, CLOSED),
    _raw("a websocket", request("/v1/models", method="GET", headers="Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n"), 200),
    _raw("Content-Encoding gzip", request(body=_ASK, headers="Content-Encoding: gzip\r\n"), 415),
    _raw("an Expect that nobody knows", request(body=_ASK, headers="Expect: 200-nonsense\r\n"), 200, 417),
    _raw("a Content-Type that nobody knows", request(body=_ASK, headers="Content-Type: a/b; charset=\xff\r\n"), 200),
]  # fmt: skip


def _unfinished(name: str, data: bytes) -> Attack:
    """Sends the beginning of a request and leaves."""

    def send(port: int) -> int:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
            connection.sendall(data)
        return CLOSED

    return Attack(name, send, frozenset({CLOSED}))


def _leaves(name: str, *, wait_for: bytes, reset: bool, **fields: Any) -> Attack:
    """Asks for a long answer and leaves before its end: after `wait_for` has come, or at once."""
    body = json.dumps({**ASKED, "max_tokens": 4_096, "logit_bias": {"3": -100}, **fields}).encode()

    def send(port: int) -> int:
        connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        connection.sendall(request(body=body))
        received = b""
        while wait_for not in received and (chunk := connection.recv(4_096)):
            received += chunk
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        return CLOSED

    return Attack(name, send, frozenset({CLOSED}))


def _slow_body(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(request(body=_ASK)[: -len(_ASK)])
        for byte in _ASK[:10]:
            connection.sendall(bytes([byte]))
            time.sleep(0.1)
    return CLOSED


def _many_at_once(count: int) -> Callable[[int], int]:
    """Connections that are opened together, and all asked over; the worst status."""

    def send(port: int) -> int:
        connections = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) for _ in range(count)]
        statuses = []
        for connection in connections:
            connection.sendall(request(body=_ASK))
        for connection in connections:
            response = b""
            while chunk := connection.recv(65_536):
                response += chunk
            statuses.append(status_of(response))
            connection.close()
        return next((status for status in statuses if status != 200), 200)

    return send


def _silent_connections(port: int) -> int:
    connections = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) for _ in range(100)]
    time.sleep(0.5)
    for connection in connections:
        connection.close()
    return CLOSED


def _pipeline(port: int) -> int:
    asks = request("/v1/models", method="GET").replace(b"Connection: close\r\n", b"")
    responses = exchange(port, asks * 49 + request("/v1/models", method="GET"))
    return 200 if responses.count(b"HTTP/1.1 200 OK") == 50 else CLOSED


def _reads_nothing(port: int) -> int:
    body = json.dumps({**ASKED, "stream": True, "max_tokens": 300, "logit_bias": {"3": -100}}).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)
        connection.sendall(request(body=body))
        time.sleep(1)
    return CLOSED


LEFT_OPEN = [
    _unfinished("a connection and nothing", b""),
    _unfinished("half a request line", b"POST /v1/ch"),
    _unfinished("half of the headers", request(body=_ASK)[:40]),
    _unfinished("half of a body", request(body=_ASK)[:-20]),
    _unfinished("a chunk that does not end", _posted(CHUNKED, "FF\r\nab")),
    _unfinished("Expect: 100-continue and no body", request(body=_ASK, headers="Expect: 100-continue\r\n")[: -len(_ASK)]),
    Attack("a body of a byte every 0.1 s", _slow_body, frozenset({CLOSED})),
    Attack(
        "a half-closed connection",
        lambda port: status_of(exchange(port, request(body=_ASK), half_close=True)),
        frozenset({200, CLOSED}),
    ),
    *(
        _leaves(f"leaves {how}", wait_for=wait_for, reset=reset, stream=stream)
        for how, stream, wait_for, reset in (
            ("a stream at once", True, b"", False),
            ("a stream at once, by a reset", True, b"", True),
            ("a stream in its midst", True, b"content", False),
            ("a stream in its midst, by a reset", True, b"content", True),
            ("a plain answer", False, b"", False),
            ("a plain answer, by a reset", False, b"", True),
        )
    ),
    Attack("64 connections at once", _many_at_once(64), frozenset({200})),
    Attack("100 silent connections", _silent_connections, frozenset({CLOSED})),
    Attack("50 requests in one piece", _pipeline, frozenset({200})),
    Attack("a stream that nobody reads", _reads_nothing, frozenset({CLOSED})),
]  # fmt: skip

GROUPS = {
    "a field out of bounds, or of another type": WRONG_FIELDS,
    "messages that are none": WRONG_MESSAGES,
    "prompts that are none": WRONG_PROMPTS,
    "bodies that are no request": WRONG_BODIES,
    "fields at their bounds": WELL_FORMED,
    "methods and paths": WRONG_PLACES,
    "hosts and origins": FROM_ELSEWHERE,
    "headers, lengths and smuggling": WRONG_HEADERS,
    "connections left open or early": LEFT_OPEN,
}
ATTACKS = [attack for group in GROUPS.values() for attack in group]
