"""The parts of the server: sampling, the engine's thread, what `verify` asks, and what a base's card says."""

import json
import math
import time

import mlx.core as mx
import polars as pl
import pytest

from nfl_lora_pipeline.adapters.export import export_fused
from nfl_lora_pipeline.adapters.serving import engine as engines
from nfl_lora_pipeline.adapters.serving.catalogue import OneStore
from nfl_lora_pipeline.adapters.serving.engine import Engine
from nfl_lora_pipeline.adapters.serving.generation import candidates, make_sampler
from nfl_lora_pipeline.adapters.serving.job import Begun, Finished, Job, Piece
from nfl_lora_pipeline.adapters.serving.schema import ChatRequest, RequestError, parse_chat, parse_completion
from nfl_lora_pipeline.adapters.verify import Verification, in_all_settings, to_markdown
from nfl_lora_pipeline.base_pretraining.pretrain import Plan, build
from nfl_lora_pipeline.models.base_model import resolve
from nfl_lora_pipeline.stored import Miss
from nfl_lora_pipeline_tests.servers import ENDLESS, QUESTION

PROBABILITIES = [0.1, 0.4, 0.05, 0.3, 0.15]


def kept(**bounds) -> list[int]:
    """Which of five tokens may be chosen."""
    result = candidates(mx.log(mx.array([PROBABILITIES])), **bounds)
    return [token for token, value in enumerate(result[0].tolist()) if value > -math.inf]


@pytest.mark.parametrize(
    ("bounds", "tokens"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"top_k": 2}, [1, 3]),
        ({"top_k": 10**6}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.0}, [1]),
        ({"top_p": 0.39}, [1]),
        ({"top_p": 0.6}, [1, 3]),
        ({"top_p": 0.8}, [1, 3, 4]),
        ({"min_p": 0.3}, [1, 3, 4]),
        ({"min_p": 1.0}, [1]),
        ({"top_k": 3, "top_p": 0.6, "min_p": 0.01}, [1, 3]),
    ],
)
def test_the_likeliest_tokens_are_kept(bounds, tokens):
    assert kept(**bounds) == tokens


def test_tokens_are_drawn_as_often_as_they_are_likely():
    sample = make_sampler(ChatRequest(messages=[{"role": "user", "content": "a"}], temperature=1.0, seed=3))
    logprobs = mx.log(mx.array([PROBABILITIES]))
    drawn = [int(sample(logprobs).item()) for _ in range(2_000)]
    shares = [drawn.count(token) / len(drawn) for token in range(5)]
    assert shares == pytest.approx(PROBABILITIES, abs=0.05)


@pytest.fixture
def engine(trained_store):
    held = trained_store.store
    deaths: list[BaseException] = []
    engine = Engine(OneStore(held, held.promoted(), follows=False), report=print, on_death=deaths.append)
    engine.start()
    yield engine
    assert engine.stop(seconds=10)
    assert not deaths


def job(events: list, **fields) -> Job:
    request = ChatRequest.model_validate({"messages": [{"role": "user", "content": QUESTION}], **fields}, strict=False)
    return Job(request, events.append)


def wait_for(condition) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_a_client_that_left_is_generated_for_no_longer(engine):
    events: list = []
    left = job(events, stream=True, **ENDLESS)
    engine.submit(left)
    wait_for(lambda: any(isinstance(event, Piece) for event in events))
    left.is_cancelled = True
    others: list = []
    engine.submit(job(others))
    wait_for(lambda: any(isinstance(event, Finished) for event in others))
    count = len(events)
    time.sleep(0.3)
    assert len(events) == count
    assert not any(isinstance(event, Finished) for event in events)


def test_who_comes_when_too_many_wait_is_told_to_come_again(engine):
    events: list = []
    jobs = [job(events, **ENDLESS) for _ in range(400)]
    with pytest.raises(RequestError, match="come again") as refused:
        for each in jobs:
            engine.submit(each)
    assert refused.value.status == 503
    for each in jobs:
        each.is_cancelled = True
    answered: list = []
    wait_for(lambda: not engine._waiting.full())
    engine.submit(job(answered))
    wait_for(lambda: any(isinstance(event, Finished) for event in answered))
    assert isinstance(answered[0], Begun)


def test_only_so_many_requests_are_answered_at_a_time_as_there_is_memory_for(engine, monkeypatch):
    monkeypatch.setattr(engines, "TOGETHER_TOKENS", 1_000)  # of which each of these may take the 512 that the base has
    events: list = []
    for _ in range(4):
        engine.submit(job(events))
    wait_for(lambda: sum(isinstance(event, Finished) for event in events) == 4)
    kinds = [type(event) for event in events if not isinstance(event, Piece)]
    assert kinds == [Begun, Finished] * 4


def test_null_stands_for_every_field_that_can_be_left_out():
    for parse, wanted in (
        (parse_chat, {"messages": [{"role": "user", "content": "a"}]}),
        (parse_completion, {"prompt": "a"}),
    ):
        fields = type(parse(json.dumps(wanted).encode())).model_fields
        nulls = {name: None for name in fields if name not in wanted}
        assert len(nulls) > 20
        assert parse(json.dumps(nulls | wanted).encode()) == parse(json.dumps(wanted).encode())


def test_messages_in_parts_are_read_as_one_text():
    body = (
        b'{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]}'
    )
    assert [message.text for message in parse_chat(body).messages] == ["ab"]


EXPECTED = pl.DataFrame({"question": ["q1", "q2"], "tuned": ["a1", "a2"]})


def test_verify_asks_alone_after_a_system_prompt_and_as_a_second_turn():
    asked: list = []

    def ask(chats) -> list[str]:
        asked.append(chats)
        if chats[0][0]["role"] == "system":
            raise ValueError("no system")
        return ["a1", "a2"]

    alone, system, turn = in_all_settings("it", EXPECTED, ask)
    assert (alone.same, alone.required, alone.faithful) == (2, True, True)
    assert (system.same, system.required, system.faithful) == (0, False, True)
    assert {miss.answer for miss in system.different} == {"(no system)"}
    assert turn.same == 2
    assert [[message["role"] for message in chats[1]] for chats in asked] == [
        ["user"],
        ["system", "user"],
        ["user", "assistant", "user"],
    ]
    assert "it, after a system prompt (need not)" in to_markdown([alone, system, turn])
    required = in_all_settings("it", EXPECTED, ask, required=True)
    assert [verification.faithful for verification in required] == [True, False, True]


def test_of_what_need_not_be_right_some_examples_are_shown():
    miss = Miss(question="q", expected="a", answer="b" * 1_000)
    verification = Verification("it", 50, 0, [miss] * 50, required=False)
    assert [len(shown.answer) for shown in verification.shown] == [120] * 3
    assert Verification("it", 50, 0, [miss] * 50).shown == [miss] * 50


def test_the_embedded_base_one_that_is_built_and_a_fused_one_say_that_they_know_single_turns(trained_store, tmp_path):
    assert resolve("embedded").single_turn
    build(tmp_path / "built", Plan(steps=4), report=lambda line: None)
    assert resolve(str(tmp_path / "built")).single_turn
    held = trained_store.store
    export_fused(held, held.promoted(), tmp_path / "fused", check=lambda folder: None)
    assert resolve(str(tmp_path / "fused")).single_turn


def test_a_card_is_no_part_of_a_bases_revision(tmp_path):
    build(tmp_path, Plan(steps=4), report=lambda line: None)
    before = resolve(str(tmp_path))
    for content in ("", "single_turn: true", "---\nsingle_turn: [\n---\n", "---\nsingle_turn: 1\n---\n"):
        (tmp_path / "README.md").write_text(content)
        without = resolve(str(tmp_path))
        assert (without.revision, without.single_turn) == (before.revision, False)
