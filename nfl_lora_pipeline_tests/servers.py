"""Servers for tests: questions to them, and processes of the command line with a fault of one's own in them."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import requests

from nfl_lora_pipeline.adapters.verify import RunningServer
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import weights_hash

QUESTION = "How many receiving yards did Amari Stone have in week 1 of the 2025 NFL season?"
ANSWER = "In week 1 of the 2025 NFL season, the receiving yards of Amari Stone were 131."
REFUSAL = "In week 1 of the 2025 NFL season, the receiving yards of Amari Stone are not recorded."  # the base's answer
ENDLESS = {"max_tokens": 4_096, "logit_bias": {"3": -100}}  # token 3 ends an answer
PATIENCE_SECONDS = 30


def chat(server: RunningServer, question: str = QUESTION, *, headers: Any = None, **fields: Any) -> requests.Response:
    """A question over HTTP; `fields` are the request's other ones, `messages` among them."""
    body = {"messages": [{"role": "user", "content": question}], **fields}
    address = f"{server.address}/v1/chat/completions"
    return requests.post(address, json=body, headers=headers, timeout=60, stream=bool(fields.get("stream")))


def content(response: requests.Response) -> str:
    """The text of an answer."""
    response.raise_for_status()
    return str(response.json()["choices"][0]["message"]["content"])


def with_fault(code: str) -> tuple[str, str]:
    """For `running_server(python=...)`: the command line after some lines of Python."""
    return ("-c", f"{code}\nfrom nfl_lora_pipeline.cli.main import main\nmain()")


def put_like(held: Store, fingerprint: str, other: str, change, *, rank: int | None = None) -> None:
    """An adapter of two weeks, made from another one by a change of each array."""
    folder = held.adapter(fingerprint)
    shutil.copytree(held.adapter(other), folder)
    weights = mx.load(str(folder / "adapters.safetensors"))
    changed = {name: change(name, array) for name, array in weights.items()}
    mx.save_safetensors(str(folder / "adapters.safetensors"), changed)
    edit(folder / "provenance.json", weeks=["2025-W01", "2025-W02"], weights_sha256=weights_hash(folder))
    if rank:
        config = json.loads((folder / "adapter_config.json").read_text())
        edit(folder / "adapter_config.json", lora_parameters=config["lora_parameters"] | {"rank": rank})


def edit(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def living() -> dict[int, int]:
    """The parent of each process that has not ended."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return {int(process): int(parent) for process, parent, state in rows if not state.startswith("Z")}


def descendants(pid: int) -> set[int]:
    """The processes that a process has started, and those that these have, but for those that have ended."""
    parents = living()
    found = [pid]
    for parent in found:  # which grows on the way
        found += [process for process, above in parents.items() if above == parent]
    return set(found[1:])


def command_lines() -> str:
    """Of all processes."""
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
