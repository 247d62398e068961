"""Who may ask: no page of another site in the browser, nobody under a name that is not this machine's, nobody without the key.

A page on the internet can make a browser send requests to this machine. It names itself in `Origin`, and where it has its own
name lead to this machine (DNS rebinding), `Host` has that name. Numbers cannot be rebound, so that a `Host` that is an
address may always ask.
"""

import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import Scope

from nfl_lora_pipeline.adapters.serving.schema import RequestError


@dataclass(frozen=True)
class Access:
    """What is let in.

    Attributes:
        hosts: names that a request may be sent to, beside localhost and addresses.
        origins: `scheme://host:port` of pages that may ask.
        key: what stands behind "Bearer" in `Authorization`; empty where nobody is asked for it.
    """

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    key: str = ""

    def check(self, scope: Scope) -> None:
        """Look at a request.

        Raises:
            RequestError: the request is not let in.
        """
        if scope["http_version"] not in ("1.0", "1.1"):
            raise RequestError(f"HTTP/{scope['http_version']}: ask by HTTP/1.1", status=505)
        values: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            values.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        host = "".join(values.get("host", [])[:1])
        if not self._is_ours(host):
            raise RequestError(
                f"Host {host[:100]!r}: not a name of this server; ask by its address, or start it with --allow-host",
                status=421,
            )
        for origin in values.get("origin", []):
            if origin not in self.origins and origin not in (f"http://{host}", f"https://{host}"):
                raise RequestError(
                    f"Origin {origin[:100]!r}: pages of other sites may not ask; start the server with --allow-origin",
                    status=403,
                )
        if "transfer-encoding" in values and "content-length" in values:
            raise RequestError("Transfer-Encoding and Content-Length: one of the two says how long a body is; send one")
        if values.get("content-encoding", ["identity"]) != ["identity"]:
            raise RequestError("Content-Encoding: bodies are read as they are; send yours without", status=415)
        is_open = scope["path"] == "/health" or scope["method"] == "OPTIONS"
        if self.key and not is_open and not self._has_key(values.get("authorization", [])):
            raise RequestError(
                "Authorization: the server's key is wanted, as 'Bearer KEY'", status=401, code="invalid_api_key"
            )

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _has_key(self, values: list[str]) -> bool:
        return len(values) == 1 and hmac.compare_digest(values[0].encode(), f"Bearer {self.key}".encode())
