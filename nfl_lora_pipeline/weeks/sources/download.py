"""Downloads that end: within a time and a size, from the host that was asked, and without a secret in any message."""

import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast
from urllib.parse import SplitResult, urljoin, urlsplit
from weakref import WeakSet

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session
    from urllib3.connection import HTTPConnection
    from urllib3.connectionpool import HTTPConnectionPool

LARGEST = 20_000_000
CHUNK = 65_536
REDIRECTS = 5
MOVED = (301, 302, 303, 307, 308)
OWN_PORTS = {"http": 80, "https": 443}
BROKE_OFF = "the download broke off ({}); nothing was kept: fetch it again"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class SourceError(ValueError):
    """A week's bytes could not be had; the message names the file or URL, and the mend."""


class WeekNotPublished(SourceError):
    """Upstream answered that it has no such week (404)."""


class SourceUnreachable(SourceError):
    """Upstream gave no answer: no network, a timeout, or an error of the server's own (429, 5xx)."""


@dataclass(frozen=True)
class Limits:
    """How long and how often a server is waited for, and for how much.

    Attributes:
        whole_seconds: for everything: names, connections, redirects, all attempts and the body.
        answer_seconds: how long one attempt waits until the answer begins.
        silence_seconds: how long to wait for the next bytes of the body.
        largest: bytes of a body, unpacked.
        attempts: how often to ask in all.
        backoff_seconds: the wait before the third attempt; it doubles from there. The second follows at once.
    """

    whole_seconds: float = 60.0
    answer_seconds: float = 6.0
    silence_seconds: float = 20.0
    largest: int = LARGEST
    attempts: int = 3
    backoff_seconds: float = 0.5


@dataclass(frozen=True)
class Answer:
    """What a server said.

    Attributes:
        status: of HTTP; 404, or another that is of use.
        headers: by name, whatever the case.
        content: the whole body, unpacked; empty unless the status is 200.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes


def shown_url(url: str) -> str:
    """A URL as people may see it: what stands before an `@` and after a `?` may be a secret, and is left out."""
    found = _SCHEME.match(url)
    scheme = found[0] if found else ""
    _, secret, place = url.removeprefix(scheme).rpartition("@")
    path, asked, _ = place.partition("?")
    return _printable(f"{scheme}{'***@' if secret else ''}{path.partition('#')[0]}{'?***' if asked else ''}")


def _shown_host(shown: str) -> str:
    """Who is asked, of a URL as people may see it."""
    return _SCHEME.sub("", shown).partition("/")[0].removeprefix("***@")


class Connections:
    """A session of `requests` whose waiting can be ended from outside; close it after use."""

    def __init__(self) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        sockets = self._sockets = WeakSet[socket.socket]()

        class Adapter(HTTPAdapter):
            def get_connection_with_tls_context(
                self,
                request: "PreparedRequest",
                verify: bool | str | None,
                proxies: Mapping[str, str] | None = None,
                cert: str | tuple[str, str] | None = None,
            ) -> "HTTPConnectionPool":
                made = super().get_connection_with_tls_context(request, verify, proxies, cert)
                pool = cast("HTTPConnectionPool", made)
                pool.ConnectionCls = _registering(cast("type[HTTPConnection]", type(pool).ConnectionCls), sockets)
                return pool

        self.session: Session = requests.Session()
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, Adapter())

    def __enter__(self) -> "Connections":
        return self

    def __exit__(self, *of_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the session."""
        self.session.close()

    def abort(self) -> None:
        """End whatever waits on a connection: a socket's own time-out begins anew with every byte."""
        for sock in list(self._sockets):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:  # the socket has ended by itself
                continue


def _registering(connection: "type[HTTPConnection]", sockets: "WeakSet[socket.socket]") -> "type[HTTPConnection]":
    class Registering(connection):  # type: ignore[misc, valid-type]
        def connect(self) -> None:
            super().connect()
            sockets.add(self.sock)

    return Registering


@dataclass
class _Attempt:
    """One question, asked in a thread of its own, so that nothing in it can be waited for beyond its time."""

    connections: Connections
    url: str
    headers: Mapping[str, str]
    limits: Limits
    begun: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    size: int = 0
    answer: Answer | None = None
    error: Exception | None = None

    def within(self, seconds: float) -> Answer:
        """Ask, and return or raise what came of it.

        Raises:
            SourceUnreachable: there was no answer in time, or not the whole of it.
            SourceError: it was none of use.
        """
        ends = time.monotonic() + seconds
        threading.Thread(target=self._ask, daemon=True).start()
        try:
            wait = min(seconds, self.limits.answer_seconds)
            if not self.begun.wait(wait):
                raise SourceUnreachable(f"no answer (timed out after {wait:.3g} s); check the network")
            if not self.ended.wait(max(0.0, ends - time.monotonic())):
                whole = f"{self.limits.whole_seconds:.3g} s"
                raise SourceUnreachable(f"not whole within {whole} ({self.size:,} bytes came); try again later")
        finally:
            if not self.ended.is_set():
                self.connections.abort()
        if self.error or self.answer is None:
            raise self.error or AssertionError("an attempt ended without an answer")
        return self.answer

    def _ask(self) -> None:
        import requests
        from urllib3.exceptions import HTTPError

        broken = (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError)
        try:
            with self._follow() as response:
                self.begun.set()
                try:
                    content = self._body(response) if response.status_code == 200 else b""
                except (*broken, requests.ConnectionError, requests.Timeout, HTTPError, OSError) as error:
                    raise SourceError(BROKE_OFF.format(_innermost(error))) from None
            self.answer = Answer(response.status_code, response.headers, content)
        except SourceError as error:
            self.error = error
        except broken as error:
            self.error = SourceError(BROKE_OFF.format(_innermost(error)))
        except (requests.ConnectionError, requests.Timeout) as error:
            self.error = SourceUnreachable(f"no answer ({_innermost(error)}); check the network")
        except (requests.RequestException, HTTPError, ValueError) as error:  # the texts of these repeat the URL
            self.error = SourceError(f"not an address to download from ({type(error).__name__}); correct the base URL")
        except Exception as error:  # a connection that was ended while the thread read it raises anything
            self.error = SourceUnreachable(f"no answer ({type(error).__name__}); check the network")
        self.begun.set()
        self.ended.set()

    def _follow(self) -> "Response":
        """The answer, after redirects of the same host."""
        limits, url = self.limits, self.url
        for _ in range(REDIRECTS + 1):
            response = self.connections.session.get(
                url,
                headers=dict(self.headers),
                timeout=(limits.answer_seconds, limits.silence_seconds),
                allow_redirects=False,
                stream=True,
            )
            place = response.headers.get("Location")
            if response.status_code not in MOVED or not place:
                return response
            response.close()
            url = redirected(url, urljoin(url, place))
        raise SourceError(f"more than {REDIRECTS} redirects; correct the base URL")

    def _body(self, response: "Response") -> bytes:
        content = bytearray()
        for chunk in response.iter_content(CHUNK):
            content += chunk
            self.size = len(content)
            if self.size > self.limits.largest:
                raise SourceError(f"larger than {self.limits.largest / 1e6:g} MB, and no week is; check the base URL")
        return bytes(content)


def download(
    connections: Connections,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    by_hand: str,
    say: Callable[[str], None] = lambda line: None,
) -> Answer:
    """Get what stands at a URL, whole or not at all.

    Args:
        connections: one serves many downloads, one after the other.
        url: may hold a password or a token; no message repeats it.
        headers: of the request. With some that set a condition, 304 is an answer as good as 200.
        limits: those of `Limits` unless given.
        by_hand: what to do instead, for messages.
        say: is told of each attempt whom it asks, which one it is of how many, and why there has to be another.

    Raises:
        SourceUnreachable: the server gave no answer, or is in trouble, in all attempts; or the time is over.
        SourceError: the download broke off, is too large, was refused or sent to another host, or the URL is of no use.
    """
    limits, shown, why = limits or Limits(), shown_url(url), ""
    ends = time.monotonic() + limits.whole_seconds
    for attempt in range(1, limits.attempts + 1):
        say(f"waiting for {_shown_host(shown)}, try {attempt} of {limits.attempts}{why}")
        try:
            answer = _Attempt(connections, url, headers or {}, limits).within(ends - time.monotonic())
            if answer.status == 429 or answer.status >= 500:
                raise SourceUnreachable(f"the server is in trouble (HTTP {answer.status}); try again later")
            if answer.status not in (200, 404) and not (headers and answer.status == 304):
                raise SourceError(f"refused (HTTP {answer.status}); check the base URL")
            return answer
        except SourceUnreachable as error:
            pause = limits.backoff_seconds * 2 ** (attempt - 2) if attempt > 1 else 0.0
            if attempt == limits.attempts or time.monotonic() + pause >= ends:
                raise SourceUnreachable(f"{shown}: {error}, or {by_hand}") from None
            why = f"; the last: {str(error).partition(';')[0]}"
            time.sleep(pause)
        except SourceError as error:
            raise SourceError(f"{shown}: {error}, or {by_hand}") from None
    raise ValueError(f"attempts: {limits.attempts} is none")


def redirected(before: str, after: str) -> str:
    """The address of a redirect, with the first one's password, or SourceError where it must not be followed."""
    old, new = urlsplit(before), urlsplit(after)
    if new.scheme not in OWN_PORTS or (old.scheme == "https" and new.scheme == "http"):
        raise SourceError(
            f"the server sends from {old.scheme} to {new.scheme or 'nowhere'}, which is not followed; correct the base URL"
        )
    if _host(old) != _host(new):
        raise SourceError(
            f"{_host(old)} sends to another host, {_host(new)}, which is not followed; correct the base URL"
        )
    secret, mark, _ = old.netloc.rpartition("@")
    return new._replace(netloc=f"{secret}{mark}{new.netloc.rpartition('@')[2]}").geturl()


def _host(address: SplitResult) -> str:
    own = address.port in (None, OWN_PORTS.get(address.scheme))
    return _printable(f"{address.hostname}" if own else f"{address.hostname}:{address.port}")


def _innermost(error: BaseException) -> str:
    while error.__context__ is not None:
        error = error.__context__
    return _printable(str(error) or type(error).__name__)


def _printable(text: str) -> str:
    """A text on one line, of which a server may have written a part."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:300])
