"""One server for the stores of a folder: each a model by its name, and what happens to one is no matter of the others."""

import shutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner
from mlx.utils import tree_flatten

from nfl_lora_pipeline.adapters.promotion import promote
from nfl_lora_pipeline.adapters.serving.catalogue import ManyStores, OneStore
from nfl_lora_pipeline.adapters.serving.engine import TOGETHER, Engine, Waiting
from nfl_lora_pipeline.adapters.serving.job import Finished, Job
from nfl_lora_pipeline.adapters.serving.schema import ChatRequest, RequestError
from nfl_lora_pipeline.adapters.verify import RunningServer, running_server
from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline_tests.servers import ANSWER, ENDLESS, QUESTION, REFUSAL, chat, content, put_like, wait_for

EMPTY, SLIM, AGAIN = "b" * 16, "c" * 16, "e" * 16
SAID = {"wide-receivers": ANSWER, "running-backs": REFUSAL, "tight-ends": REFUSAL, "kickers": ANSWER}


@pytest.fixture
def stores(trained_store, tmp_path) -> Path:
    """A folder of four stores that say `SAID`, and other things that are in folders."""
    folder, source = tmp_path / "stores", trained_store.store
    trained = source.promoted()
    for name in SAID:
        shutil.copytree(source.adapter(trained), Store(folder / name).adapter(trained))
    put_like(Store(folder / "running-backs"), EMPTY, trained, lambda name, array: array * 0)
    put_like(
        Store(folder / "tight-ends"), SLIM, trained,
        lambda name, array: (array[:, :8] if name.endswith("a") else array[:8]) * 0, rank=8,
    )  # fmt: skip
    put_like(Store(folder / "kickers"), AGAIN, trained, lambda name, array: array)
    for name, adapter in zip(SAID, (trained, EMPTY, SLIM, AGAIN), strict=True):
        promote(Store(folder / name), adapter)
    (folder / "no-store").mkdir()
    (folder / "notes.txt").write_text("")
    shutil.copytree(folder / "kickers", folder / "not-promoted", symlinks=True)
    (folder / "not-promoted" / "adapters" / "current").unlink()
    return folder


def asked(server: RunningServer, model: str | None) -> str:
    return content(chat(server, model=model))


def listed(server: RunningServer) -> dict[str, dict]:
    return {each["id"]: each for each in requests.get(f"{server.address}/v1/models", timeout=30).json()["data"]}


def test_every_store_of_a_folder_answers_to_its_name_and_to_its_adapters(stores, trained_store):
    with running_server(Store(stores / "kickers"), "--stores", str(stores)) as server:
        entries = listed(server)
        assert set(entries) == set(SAID)
        with ThreadPoolExecutor(8) as pool:
            names = [*SAID, *(entry["full_name"] for entry in entries.values())] * 2
            said = list(pool.map(lambda name: asked(server, name), names))
        assert said == [*SAID.values(), *(SAID[name] for name in entries)] * 2
        assert asked(server, None) == ANSWER
        assert chat(server).json()["model"] == f"nfl-lora-{AGAIN}"
        slim = requests.get(f"{server.address}/v1/models/tight-ends", timeout=30).json()
        assert (slim["tenant"], slim["full_name"], slim["fingerprint"]) == ("tight-ends", f"nfl-lora-{SLIM}", SLIM)
        assert (slim["weeks"], slim["stats"]) == (["2025-W01", "2025-W02"], ["receiving_yards"])
        assert set(slim) - {"tenant", "full_name"} == set(
            OneStore(trained_store.store, AGAIN, follows=True).models()[0]
        )
        for unknown in (chat(server, model="runing-backs"), requests.get(f"{server.address}/v1/models/runing-backs")):
            assert unknown.status_code == 404
            assert unknown.json()["error"] == {
                "message": "model 'runing-backs': there is none of that name; near it are 'running-backs'; "
                "GET /v1/models lists all 4",
                "type": "invalid_request_error",
                "param": "model",
                "code": "model_not_found",
            }


def test_who_is_promoted_comes_or_goes_is_followed_and_the_others_answer_meanwhile(stores, trained_store):
    trained = trained_store.store.promoted()
    answers: Counter[tuple[str, str]] = Counter()
    with running_server(Store(stores / "kickers"), "--stores", str(stores), "--loaded", "2") as server:
        with ThreadPoolExecutor(2) as pool:
            ends = time.monotonic() + 60
            done: list[bool] = []

            def go_on() -> None:
                while not done and time.monotonic() < ends:
                    answers["kickers", asked(server, "kickers")] += 1

            others = [pool.submit(go_on) for _ in range(2)]
            try:
                assert asked(server, "running-backs") == REFUSAL
                promote(Store(stores / "running-backs"), trained)
                wait_for(lambda: asked(server, "running-backs") == ANSWER)
                shutil.copytree(stores / "tight-ends", stores / ".punters", symlinks=True)
                (stores / ".punters").rename(stores / "punters")
                wait_for(lambda: chat(server, model="punters").ok)
                assert asked(server, "punters") == REFUSAL
                shutil.rmtree(stores / "tight-ends")
                wait_for(lambda: chat(server, model="tight-ends").status_code == 404)
            finally:
                done.append(True)
            for other in others:
                other.result()
        assert set(answers) == {("kickers", ANSWER)}
        log = server.log.read_text()
    assert f"model 'running-backs': adapter {trained} (2025 1) answers now, after {EMPTY} (2025 1-2)" in log
    assert "model 'punters' is here" in log and "model 'tight-ends' has gone" in log


def test_a_tenant_whose_adapter_is_damaged_is_told_so_and_is_answered_once_it_is_mended(stores):
    weights = Store(stores / "running-backs").adapter(EMPTY) / "adapters.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1_000])
    with running_server(Store(stores / "kickers"), "--stores", str(stores)) as server:
        with ThreadPoolExecutor(8) as pool:
            responses = list(pool.map(lambda name: chat(server, model=name), [*SAID] * 4))
        damaged = [each for each in responses if not each.ok]
        assert [content(each) for each in responses if each.ok] == [ANSWER, REFUSAL, ANSWER] * 4
        assert [each.status_code for each in damaged] == [503] * 4
        error = damaged[0].json()["error"]
        assert (error["type"], error["param"]) == ("server_error", "model")
        assert error["message"].startswith(f"model 'running-backs': its adapter {EMPTY} cannot be loaded")
        assert str(stores) not in error["message"]
        assert server.log.read_text().count("cannot be loaded") == 1
        weights.write_bytes(whole)
        wait_for(lambda: chat(server, model="running-backs").ok)
        assert asked(server, "running-backs") == REFUSAL


def test_what_is_promoted_damaged_is_not_taken_whether_it_is_loaded_or_not(stores):
    said: list[str] = []
    catalogue = ManyStores(stores)
    catalogue.start(said.append)
    for name in ("kickers", "running-backs"):
        held = Store(stores / name)
        put_like(held, "d" * 16, held.promoted(), lambda name, array: array)
        weights = held.adapter("d" * 16) / "adapters.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1_000])
        before = held.promoted()
        promote(held, "d" * 16)
        catalogue.look(said.append)
        assert said[-1].startswith(f"model '{name}': adapter {'d' * 16} is promoted and not taken, {before}")
        found = catalogue.load(catalogue.find(name), [], said.append)
        assert found.fingerprint == before


def test_so_many_adapters_are_loaded_and_the_one_asked_for_longest_ago_is_dropped_unless_it_is_busy(stores):
    catalogue = ManyStores(stores, most_loaded=2)
    catalogue.start(print)

    def load(name, *busy):
        return catalogue.load(catalogue.find(name), busy, print)

    def names() -> set[str]:
        return {each["id"] for each in catalogue.models() if catalogue.find(each["id"]).loaded}

    kickers, backs = load("kickers"), load("running-backs")
    assert names() == {"kickers", "running-backs"}
    assert load("kickers") is kickers
    ends = load("tight-ends")
    assert names() == {"kickers", "tight-ends"}
    assert load("wide-receivers", ends, kickers) is None
    assert names() == {"kickers", "tight-ends"}
    load("wide-receivers", kickers)
    assert names() == {"kickers", "wide-receivers"}
    arrays = [dict(tree_flatten(loaded.model.parameters())) for loaded in (kickers, backs, ends)]
    base = [name for name in arrays[0] if not name.endswith(("lora_a", "lora_b"))]
    assert all(other[name] is arrays[0][name] for other in arrays for name in base)


def test_with_room_for_one_adapter_everybody_is_answered(stores):
    options = ("--stores", str(stores), "--loaded", "1")
    with running_server(Store(stores / "kickers"), *options) as server, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda name: asked(server, name), [*SAID] * 4)) == [*SAID.values()] * 4


def job(events: list, **fields) -> Job:
    request = ChatRequest.model_validate({"messages": [{"role": "user", "content": QUESTION}], **fields}, strict=False)
    return Job(request, events.append)


def test_a_tenant_who_asks_without_end_leaves_room_for_the_others(stores):
    catalogue, deaths = ManyStores(stores), []
    engine = Engine(catalogue, report=print, on_death=deaths.append)
    engine.start()
    endless = [job([], model="kickers", **ENDLESS) for _ in range(200)]
    for each in endless:
        engine.submit(each)
    events: list = []
    engine.submit(job(events, model="running-backs"))
    wait_for(lambda: events and isinstance(events[-1], Finished))
    assert sum(each.deadline > 0 for each in endless) < TOGETHER
    for each in endless:
        each.is_cancelled = True
    assert engine.stop(seconds=10)
    assert not deaths


class Named:
    """Stands for a tenant in a row."""


def test_whose_turn_it_is_has_the_fewest_answered_and_the_longest_row_gives_way():
    waiting, busy, other = Waiting(4), Named(), Named()
    told: list = []
    first, second, third, last = (job(told if place == 3 else []) for place in range(4))
    for each in (first, second, third, last):
        waiting.put(busy, each)
    with pytest.raises(RequestError, match="come again"):
        waiting.put(busy, job([]))
    late = job([])
    waiting.put(other, late)
    assert [error.status for error in told] == [503]
    assert waiting.first({}, seconds=0) == (busy, first)
    assert waiting.first({busy: 1}, seconds=0) == (other, late)
    assert waiting.first({busy: 1, other: 2}, seconds=0) == (busy, first)
    assert [waiting.take(busy) for _ in range(3)] == [first, second, third]
    assert waiting.take(other) is late
    assert waiting.first({}, seconds=0) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--stores", "nowhere"], "Error: --stores nowhere: no such folder"),
        (["--stores", "stores/kickers"], "Error: --stores stores/kickers: a store itself"),
        (["--stores", "stores", "--adapter", "abc"], "Error: --adapter abc --stores stores: of every store"),
        (["--stores", "stores", "--store", "data"], "Error: --store data --stores stores: the one is no folder in the"),
    ],
)
def test_a_folder_that_holds_no_stores_and_options_that_exclude_each_other_are_one_line(
    stores, monkeypatch, options, said
):
    monkeypatch.chdir(stores.parent)
    result = CliRunner().invoke(main, ["serve", "--port", "0", *options])
    assert result.exit_code == 1
    assert result.stderr.startswith(said)
    assert len(result.stderr.splitlines()) == 1


def test_of_several_tenants_one_has_to_be_named_and_a_single_one_need_not(stores):
    catalogue = ManyStores(stores)
    catalogue.start(print)
    with pytest.raises(RequestError, match="GET /v1/models lists them") as refused:
        catalogue.find(None)
    assert refused.value.status == 400
    for name in SAID:
        if name != "kickers":
            shutil.rmtree(stores / name)
    catalogue.look(print)
    assert catalogue.find(None) is catalogue.find("kickers")
