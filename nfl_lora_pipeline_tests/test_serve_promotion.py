"""What a running server does when another adapter is promoted: takes it between two requests, and loses none."""

import json
import shutil
import threading
import time
from collections import Counter

import mlx.core as mx
import pytest
import requests

from nfl_lora_pipeline.adapters.promotion import promote, roll_back
from nfl_lora_pipeline.adapters.serving.generation import load_adapter
from nfl_lora_pipeline.adapters.verify import RunningServer, running_server
from nfl_lora_pipeline.models.base_model import EMBEDDED_FOLDER
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline_tests.servers import ANSWER, ENDLESS, QUESTION, REFUSAL, chat, content, edit, put_like, wait_for

EMPTY = "b" * 16  # an adapter of no effect: the base answers
SLIM = "c" * 16  # one of another rank
DAMAGED = "d" * 16


@pytest.fixture
def store(trained_store, tmp_path) -> Store:
    """A store with the trained adapter, promoted, and three others."""
    source, held = trained_store.store, Store(tmp_path / "data")
    trained = source.promoted()
    shutil.copytree(source.adapter(trained), held.adapter(trained))
    put_like(held, EMPTY, trained, lambda name, array: array * 0)
    put_like(held, SLIM, trained, lambda name, array: (array[:, :8] if name.endswith("a") else array[:8]) * 0, rank=8)
    put_like(held, DAMAGED, trained, lambda name, array: array)
    weights = held.adapter(DAMAGED) / "adapters.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1_000])
    promote(held, trained)
    return held


def model_of(server: RunningServer) -> dict:
    (listed,) = requests.get(f"{server.address}/v1/models", timeout=30).json()["data"]
    return listed


class Asking:
    """People who go on asking: which adapter gave which answer, and how often."""

    def __init__(self, server: RunningServer, count: int):
        self.answers: Counter[tuple[str, str]] = Counter()
        self._server, self._ends = server, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def __enter__(self) -> "Asking":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._ends.is_set():
            try:
                response = chat(self._server)
                self.answers[response.json()["model"].removeprefix("nfl-lora-"), content(response)] += 1
            except requests.RequestException as error:
                self.answers["lost", repr(error)] += 1


def test_promotion_and_rollback_change_the_answers_of_a_running_server_and_lose_none(store):
    trained = store.promoted()
    with running_server(store) as server:
        long = chat(server, stream=True, **ENDLESS)
        lines = long.iter_lines()
        assert f"nfl-lora-{trained}" in next(lines).decode()
        with Asking(server, 4) as asking:
            for fingerprint in (EMPTY, SLIM):
                promote(store, fingerprint)
                wait_for(lambda: any(by == fingerprint for by, _ in asking.answers))  # noqa: B023
                listed = model_of(server)
                assert (listed["fingerprint"], listed["weeks"]) == (fingerprint, ["2025-W01", "2025-W02"])
            roll_back(store)
            before = asking.answers[EMPTY, REFUSAL]
            wait_for(lambda: asking.answers[EMPTY, REFUSAL] > before)
            roll_back(store)
            before = asking.answers[trained, ANSWER]
            wait_for(lambda: asking.answers[trained, ANSWER] > before)
        assert set(asking.answers) == {(trained, ANSWER), (EMPTY, REFUSAL), (SLIM, REFUSAL)}
        *rest, done = [line for line in lines if line]
        assert done == b"data: [DONE]"
        assert {json.loads(line.removeprefix(b"data: "))["model"] for line in rest} == {f"nfl-lora-{trained}"}
        said = server.log.read_text().splitlines()[1:]
    assert [line.split()[1] for line in said] == [EMPTY, SLIM, EMPTY, trained]
    assert said[0] == f"adapter {EMPTY} (2025 1-2) answers now, after {trained} (2025 1)"


@pytest.mark.parametrize("damage", ["weights", "provenance", "not finite", "base"])
def test_a_damaged_adapter_is_not_taken_and_the_old_one_stays(store, damage):
    folder = store.adapter(DAMAGED)
    if damage != "weights":
        shutil.copyfile(store.adapter(EMPTY) / "adapters.safetensors", folder / "adapters.safetensors")
    if damage == "provenance":
        (folder / "provenance.json").write_text("{")
    if damage == "base":
        edit(folder / "provenance.json", base_model="/nowhere")
    if damage == "not finite":
        weights = mx.load(str(folder / "adapters.safetensors"))
        broken = {name: mx.full(array.shape, float("nan")) for name, array in weights.items()}
        mx.save_safetensors(str(folder / "adapters.safetensors"), broken)
    with running_server(store) as server:
        promote(store, DAMAGED)
        wait_for(lambda: "not taken" in server.log.read_text())
        assert content(chat(server)) == ANSWER
        time.sleep(1.5)
        (_, said) = server.log.read_text().splitlines()  # once, though it looks again and again
        assert said.startswith(f"adapter {DAMAGED} is promoted and not taken, ")
        roll_back(store)
        promote(store, EMPTY)
        wait_for(lambda: model_of(server)["fingerprint"] == EMPTY)
        assert content(chat(server)) == REFUSAL


def test_an_adapter_that_was_named_stays(store):
    trained = store.promoted()
    with running_server(store, "--adapter", trained[:6]) as server:
        promote(store, EMPTY)
        time.sleep(1.5)
        assert model_of(server)["fingerprint"] == trained


def test_the_weights_of_the_base_are_shared_with_an_adapter_that_is_loaded_whatever_its_rank(store):
    first = load_adapter(store, store.promoted())
    second, slim = (load_adapter(store, fingerprint, first) for fingerprint in (EMPTY, SLIM))

    def arrays(loaded) -> dict:
        from mlx.utils import tree_flatten

        return dict(tree_flatten(loaded.model.parameters()))

    for other, fingerprint in ((second, EMPTY), (slim, SLIM)):
        shared = {name for name, array in arrays(other).items() if array is arrays(first)[name]}
        assert set(arrays(other)) - shared == set(mx.load(str(store.adapter(fingerprint) / "adapters.safetensors")))


@pytest.fixture
def strict_base(store, tmp_path) -> Store:
    """The store with its adapter on a base for several turns, whose template wants them in order and without a system."""
    base = tmp_path / "strict"
    shutil.copytree(EMBEDDED_FOLDER, base)
    (base / "README.md").unlink()
    template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate') }}{% endif %}"
        "{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    edit(base / "tokenizer_config.json", chat_template=template)
    edit(store.adapter(store.promoted()) / "provenance.json", base_model=str(base))
    return store


def test_a_base_for_several_turns_is_given_all_of_them_and_its_template_may_refuse(strict_base):
    asked = {"role": "user", "content": QUESTION}
    with running_server(strict_base) as server:
        assert not model_of(server)["single_turn"]
        alone = chat(server).json()["usage"]["prompt_tokens"]
        turns = chat(server, messages=[asked, {"role": "assistant", "content": ANSWER}, asked])
        assert turns.json()["usage"]["prompt_tokens"] > 2 * alone
        for messages, said in (
            ([{"role": "system", "content": "Be brief."}, asked], "System role not supported"),
            ([asked, asked], "Roles must alternate"),
        ):
            refused = chat(server, messages=messages)
            assert refused.status_code == 400
            assert said in refused.json()["error"]["message"]
        assert content(chat(server)) == ANSWER
