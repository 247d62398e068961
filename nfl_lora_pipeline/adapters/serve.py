"""The promoted adapter behind mlx-lm's OpenAI-compatible server."""

import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import requests

from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.models.blas import load_fast_blas, suit_small_models
from nfl_lora_pipeline.store import Store

ANSWER_TOKENS = 64
STARTS_WITHIN_SECONDS, ANSWERS_WITHIN_SECONDS = 120, 300


def serve(held: Store, fingerprint: str, *, host: str, port: int) -> None:
    """Answer `POST /v1/chat/completions` until interrupted.

    Whatever model a request names, it is answered by this adapter on its base: a client has to name one, and left alone
    mlx-lm would load what is named, and the base without the adapter for the name that it lists under `/v1/models`.

    Raises:
        ValueError: the base model cannot be had, or the port cannot be listened on.
    """
    base = base_models.resolve(held.provenance(fingerprint)["base_model"])
    check_port(host, port)
    load_fast_blas()
    if base.size_bytes < base_models.SMALL_BYTES:
        suit_small_models()
    from mlx_lm import server

    class OneModel(server.ModelProvider):  # type: ignore[misc]
        def load(self, *requested: Any, **more: Any) -> tuple[Any, Any]:
            return super().load("default_model", None, "default_model")

    server.ModelProvider = OneModel  # which `main` makes one of
    server.scan_cache_dir = lambda: SimpleNamespace(repos=())  # whatever else is on this machine is not on offer
    options = {"--model": base.folder, "--adapter-path": held.adapter(fingerprint), "--host": host, "--port": port}
    sys.argv = ["mlx_lm.server", *(str(word) for pair in options.items() for word in pair), "--log-level", "WARNING"]
    warnings.filterwarnings("ignore", message="mlx_lm.server is not recommended")  # said in the command's help
    server.main()


def check_port(host: str, port: int) -> None:
    """Raise ValueError where nothing can listen on `host` and `port`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        raise ValueError(
            f"--host {host} --port {port}: cannot listen there ({error}); choose another --port"
        ) from error


@contextmanager
def running_server(held: Store, fingerprint: str) -> Iterator[str]:
    """`nfl-lora serve` on a free port, until the block ends.

    Yields:
        Its address, `http://127.0.0.1:PORT`.

    Raises:
        ValueError: it does not come up.
    """
    port = _free_port()
    command = [sys.executable, "-m", "nfl_lora_pipeline.cli", "serve", "--store", str(held.root)]
    command += ["--adapter", fingerprint, "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{port}"
            if not _comes_up(process, address):
                log.seek(0)
                said = log.read().decode(errors="replace").strip()[-500:]
                raise ValueError(f"`nfl-lora serve` does not come up on port {port}: {said}")
            yield address
        finally:
            process.kill()
            process.wait()


def ask_server(address: str, question: str) -> str:
    """One question over the OpenAI-compatible interface.

    Raises:
        ValueError: the server gives no answer.
    """
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": ANSWER_TOKENS, "temperature": 0}
    try:
        with _direct() as session:
            response = session.post(f"{address}/v1/chat/completions", json=body, timeout=ANSWERS_WITHIN_SECONDS)
        response.raise_for_status()
        return str(response.json()["choices"][0]["message"]["content"]).strip()
    except (requests.RequestException, KeyError, IndexError) as error:
        raise ValueError(f"{address} gives no answer to {question!r}: {error}") from error


def _comes_up(process: "subprocess.Popen[bytes]", address: str) -> bool:
    """Whether the server listens within its time; it ends early where it cannot."""
    give_up = time.monotonic() + STARTS_WITHIN_SECONDS
    while process.poll() is None and time.monotonic() < give_up:
        try:
            with _direct() as session:
                return session.get(f"{address}/health", timeout=5).ok
        except requests.RequestException:
            time.sleep(0.1)
    return False


def _direct() -> requests.Session:
    """A session past whatever proxy the environment names."""
    session = requests.Session()
    session.trust_env = False
    return session


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
