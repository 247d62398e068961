"""Other engines than MLX, each in a process of its own: reads a question in JSON on standard input, answers on standard output.

It is run by its path, by whichever interpreter has the engine, and so imports nothing of this project.
"""

import importlib.metadata
import json
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import TypedDict


class Asked(TypedDict):
    """What is asked of an engine.

    Attributes:
        base: what the engine loads: PEFT's a folder, llama.cpp's a GGUF file.
        adapter: the same of the adapter.
        prompts: token ids.
        ends: ids of which each ends an answer.
        most: tokens of an answer.
    """

    base: str
    adapter: str
    prompts: list[list[int]]
    ends: list[int]
    most: int


class Answered(TypedDict):
    """What came of it.

    Attributes:
        engine: its name and version.
        answers: token ids, without what ends an answer.
        seconds: for all of them, loading not counted.
    """

    engine: str
    answers: list[list[int]]
    seconds: float


def ask_peft(asked: Asked) -> Answered:
    """HF PEFT on torch, in float32, greedily, a question at a time."""
    import peft
    import torch
    import transformers

    base = transformers.AutoModelForCausalLM.from_pretrained(asked["base"], dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, asked["adapter"]).eval()
    began, answers = time.monotonic(), []
    for prompt in asked["prompts"]:
        tokens = torch.tensor([prompt])
        with torch.no_grad():
            found = model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=asked["most"],
                do_sample=False,
                num_beams=1,
                eos_token_id=asked["ends"],
                pad_token_id=asked["ends"][0],
            )
        answers.append(_ended(found[0, len(prompt) :].tolist(), asked["ends"]))
    versions = f"peft {peft.__version__} on torch {torch.__version__}"
    return Answered(engine=versions, answers=answers, seconds=time.monotonic() - began)


def ask_llama_cpp(asked: Asked) -> Answered:
    """llama.cpp by the package xllamacpp, greedily, a question at a time, on the CPU."""
    import xllamacpp

    settings, adapter = xllamacpp.CommonParams(), xllamacpp.CommonAdapterLoraInfo()
    adapter.path, adapter.scale = asked["adapter"], 1.0
    settings.model.path, settings.lora_adapters = asked["base"], [adapter]
    settings.n_ctx = max(map(len, asked["prompts"])) + asked["most"] + 8
    settings.n_parallel, settings.n_gpu_layers, settings.warmup = 1, 0, False
    server = xllamacpp.Server(settings)
    began, answers = time.monotonic(), []
    for prompt in asked["prompts"]:
        body = {"prompt": prompt, "n_predict": asked["most"], "temperature": 0, "return_tokens": True}
        request = urllib.request.Request(
            f"{server.listening_address}/completion",
            json.dumps(body | {"cache_prompt": False}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as reply:
            answers.append(_ended(json.load(reply)["tokens"], asked["ends"]))
    version = f"llama.cpp by xllamacpp {importlib.metadata.version('xllamacpp')}"
    return Answered(engine=version, answers=answers, seconds=time.monotonic() - began)


ENGINES: dict[str, Callable[[Asked], Answered]] = {"peft": ask_peft, "llama.cpp": ask_llama_cpp}


def _ended(tokens: list[int], ends: list[int]) -> list[int]:
    """The tokens before the first that ends an answer."""
    return next((tokens[:place] for place, token in enumerate(tokens) if token in ends), tokens)


if __name__ == "__main__":
    print(json.dumps(ENGINES[sys.argv[1]](json.load(sys.stdin))))
