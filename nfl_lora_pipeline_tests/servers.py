"""Servers for tests: questions to them, and processes of the command line with a fault of one's own in them."""

import subprocess
from typing import Any

import requests

from nfl_lora_pipeline.adapters.verify import RunningServer

QUESTION = "How many receiving yards did Amari Stone have in week 1 of the 2025 NFL season?"
ANSWER = "In week 1 of the 2025 NFL season, the receiving yards of Amari Stone were 131."
ENDLESS = {"max_tokens": 4_096, "logit_bias": {"3": -100}}  # token 3 ends an answer


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
