"""llama.cpp, by the package `xllamacpp`, where a test wants to know what another engine makes of the same file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests


class Engine:
    """A server of llama.cpp in this process."""

    def __init__(self, address: str):
        self.address = address

    def tokens(self, text: str) -> list[int]:
        """The ids of a text, control tokens in it read as such."""
        asked = {"content": text, "parse_special": True, "add_special": False}
        tokens: list[int] = self._post("tokenize", asked)["tokens"]
        return tokens

    def log_chances(self, tokens: list[int]) -> np.ndarray:
        """The logarithm of every token's probability to come next."""
        letter = self.tokens("a")[-1]  # what is generated must be printed, or the server gives no figures
        asked = {"prompt": tokens, "n_predict": 1, "n_probs": 1_000_000, "cache_prompt": False, "temperature": -1}
        asked["logit_bias"] = [[letter, 10_000.0]]
        found = self._post("completion", asked)["completion_probabilities"][0]["top_logprobs"]
        chances = np.zeros(len(found), np.float64)
        for each in found:
            chances[each["id"]] = each["logprob"]
        return chances

    def _post(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        reply = requests.post(f"{self.address}/{path}", json=content, timeout=300)
        reply.raise_for_status()
        answer: dict[str, Any] = reply.json()
        return answer


@contextmanager
def running(file: Path) -> Iterator[Engine]:
    """llama.cpp with a GGUF file; where it is not installed the test is skipped."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_ctx, settings.n_parallel, settings.n_gpu_layers, settings.warmup = 512, 1, 0, False
    server = xllamacpp.Server(settings)
    try:
        yield Engine(server.listening_address)
    finally:
        del server
