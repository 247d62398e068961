"""`nfl-lora serve`, a process, over HTTP."""

import contextlib
import json
import os
import pty
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from click.testing import CliRunner

from nfl_lora_pipeline.adapters.serving.server import HEADER_SECONDS, check_port
from nfl_lora_pipeline.adapters.verify import ask_server, running_server
from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline_tests.attacks import ATTACKS, GROUPS, request
from nfl_lora_pipeline_tests.hostile_requests import campaign
from nfl_lora_pipeline_tests.servers import ANSWER, ENDLESS, QUESTION, chat, content, with_fault


@pytest.fixture(scope="module")
def server(trained_store):
    with running_server(trained_store.store) as server:
        yield server


def events(response: requests.Response) -> list[dict]:
    """The objects of a stream that is ended as it has to be."""
    lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == b"data: [DONE]"
    return [json.loads(line.removeprefix(b"data: ")) for line in lines[:-1]]


@pytest.mark.parametrize("player", ["Amari Stone", "Chris Okand", "Zed Nobody"])
def test_the_server_answers_as_the_command_line_does(server, trained_store, player):
    question = f"How many receiving yards did {player} have in week 1 of the 2025 NFL season?"
    asked = CliRunner().invoke(main, ["ask", "--store", str(trained_store.store.root), question])
    assert asked.stdout.splitlines()[1] == f"tuned: {ask_server(server.address, question)}"


@pytest.mark.parametrize("model", ["gpt-4o", "as listed"])
def test_whatever_model_is_named_the_adapter_answers_and_says_who_it_is(server, trained_store, model):
    (listed,) = requests.get(f"{server.address}/v1/models", timeout=30).json()["data"]
    response = chat(server, model=listed["id"] if model == "as listed" else model)
    fingerprint = trained_store.store.promoted()
    assert content(response) == ANSWER
    assert response.json()["model"] == listed["id"] == f"nfl-lora-{fingerprint}"
    assert response.json()["system_fingerprint"] == f"{fingerprint} (2025 1)"
    assert (listed["fingerprint"], listed["weeks"]) == (fingerprint, ["2025-W01"])
    assert requests.get(f"{server.address}/v1/models/{listed['id']}", timeout=30).json() == listed


def test_the_first_line_says_the_address_once_it_answers(server, trained_store):
    first = server.log.read_text().splitlines()[0]
    promoted = trained_store.store.promoted()
    assert first == f"{server.address}/v1 answers with adapter {promoted} (2025 1); Ctrl-C ends it"
    assert requests.get(f"{server.address}/health", timeout=30).json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("fields", "reason", "is_held_until_it_is_whole"),
    [({}, "stop", True), ({"logprobs": True}, "stop", False), (ENDLESS | {"max_tokens": 200}, "length", False)],
)
def test_a_stream_has_the_same_text_in_pieces_and_ends_with_its_usage(
    server, fields, reason, is_held_until_it_is_whole
):
    """A short answer comes at once, when it is known how sure it is, unless the client asks for that itself."""
    whole = chat(server, **fields).json()
    *pieces, usage = events(chat(server, stream=True, stream_options={"include_usage": True}, **fields))
    texts = [piece["choices"][0]["delta"].get("content", "") for piece in pieces]
    assert "".join(texts) == whole["choices"][0]["message"]["content"]
    assert "".join(texts).startswith(ANSWER)
    assert sum(map(bool, texts)) == 1 if is_held_until_it_is_whole else sum(map(bool, texts)) > 10
    assert [piece["choices"][0]["finish_reason"] for piece in pieces][-2:] == [None, reason]
    assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
    assert {piece["model"] for piece in pieces} == {whole["model"]}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("Amari", "In week 1 of the 2025 NFL season, the receiving yards of"),
        (["xyz", "5 N", "1 of the"], "In week"),
        (["I"], ""),
    ],
)
def test_an_answer_ends_before_a_stop_however_its_letters_come(server, stop, text, stream):
    response = chat(server, stop=stop, stream=stream)
    if not stream:
        assert content(response) == text
        return
    pieces = events(response)
    assert "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces) == text
    assert pieces[-1]["choices"][0]["finish_reason"] == "stop"


def test_max_tokens_ends_an_answer_and_the_newer_name_of_it_counts(server):
    short = chat(server, max_tokens=3).json()
    assert (short["choices"][0]["finish_reason"], short["usage"]["completion_tokens"]) == ("length", 3)
    assert chat(server, max_tokens=3, max_completion_tokens=2).json()["usage"]["completion_tokens"] == 2


def test_a_completion_goes_on_from_its_prompt(server):
    body = {"prompt": ANSWER.removesuffix(" 131."), "max_tokens": 3, "logprobs": 2}
    (choice,) = requests.post(f"{server.address}/v1/completions", json=body, timeout=60).json()["choices"]
    assert choice["text"].startswith(" 1")
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert all(len(top) == 2 for top in choice["logprobs"]["top_logprobs"])


def test_logarithms_of_a_chat_are_of_the_tokens_that_were_chosen(server):
    logprobs = chat(server, logprobs=True, top_logprobs=3).json()["choices"][0]["logprobs"]["content"]
    said = "".join(token["token"] for token in logprobs).strip()
    assert said == ANSWER, "capitals too, which are tokens of their own"
    for token in logprobs:
        assert token["top_logprobs"][0]["token"] == token["token"]  # the likeliest was chosen
        assert token["top_logprobs"][0]["logprob"] == token["logprob"] <= 0


def test_a_seed_gives_the_same_answer_alone_and_in_company(server):
    drawn = {"temperature": 1.8, "seed": 11, "max_tokens": 40}
    alone = content(chat(server, **drawn))
    with ThreadPoolExecutor(8) as pool:
        company = [pool.submit(chat, server, temperature=1.8, seed=seed, max_tokens=60) for seed in range(7)]
        assert content(chat(server, **drawn)) == alone
        assert len({content(other.result()) for other in company}) > 1


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"stop": 5}, "stop", "stop: 5: input should be a valid string or a valid array"),
        ({"stop": [None]}, "stop", "stop[0]: None: input should be a valid string"),
        ({"top_k": 10**9}, "top_k", "top_k: 1000000000: input should be less than or equal to 1000000"),
        ({"logit_bias": {"5000": 1}}, "logit_bias", "logit_bias: token 5000 is beyond the vocabulary of 640; leave it out"),
        ({"tools": [{}]}, "tools", "tools: [{}]: this server does not do that; leave the field out"),
        ({"messages": [{"role": "user"}, 5]}, "messages", "messages[1]: 5: input should be an object"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_request_is_one_sentence_with_field_value_and_mend(server, fields, param, message):
    response = chat(server, **fields)
    assert response.status_code == 400
    expected = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    assert response.json() == {"error": expected}


def test_a_base_for_single_turns_is_asked_the_last_question_alone(server):
    before = [{"role": "system", "content": "You are a pirate."}]
    before += [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Arr."}]
    response = chat(server, messages=[*before, {"role": "user", "content": [{"type": "text", "text": QUESTION}]}])
    assert content(response) == ANSWER
    assert response.headers["x-dropped-messages"] == "3"
    assert "x-dropped-messages" not in chat(server).headers


@pytest.mark.parametrize("group", GROUPS)
def test_hostile_requests_are_answered_and_change_nothing(server, group):
    others = [
        f"How many receiving yards did {name} have in week 1 of the 2025 NFL season?" for name in ("Nico Hale", "A B")
    ]
    outcome = campaign(server, [QUESTION, *others], {group: GROUPS[group]}, seconds=0, clients=1)
    assert (outcome.unexpected, outcome.lost) == ([], [])
    assert outcome.before == outcome.after
    assert server.process.poll() is None


def test_a_hundred_different_attacks_are_there_to_be_survived():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 100


def test_silent_and_slow_connections_are_closed(server):
    whole, health = request(body=b"x" * 100), b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    second = health + health[:20]  # half of a second request, when the first is answered
    unfinished = {b"": [b""], whole[:20]: [b""], whole[:-50]: [b"408"], second: [b"200", b""]}
    connections = [socket.create_connection(("127.0.0.1", server.port), timeout=3 * HEADER_SECONDS) for _ in unfinished]
    for connection, data in zip(connections, unfinished, strict=True):
        connection.sendall(data)
    for connection, (data, expected) in zip(connections, unfinished.items(), strict=True):
        received = b""
        with connection, contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65_536):
                received += chunk
        statuses = [part[4:7] for part in received.split(b"HTTP/")[1:]]
        assert statuses == [status for status in expected if status], data


def test_pages_hosts_and_clients_that_were_let_in_may_ask(trained_store):
    allowed = ["--allow-origin", "http://page.example", "--allow-host", "my.example", "--api-key", "secret"]
    with running_server(trained_store.store, *allowed) as server:
        key = {"Authorization": "Bearer secret"}
        page = {"Origin": "http://page.example"}
        answered = chat(server, headers=key | page | {"Host": "my.example:8080"})
        assert content(answered) == ANSWER
        assert answered.headers["access-control-allow-origin"] == "http://page.example"
        asked = page | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        assert requests.options(f"{server.address}/v1/chat/completions", headers=asked, timeout=30).status_code == 200
        refused = [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}]
        assert [chat(server, headers=headers).status_code for headers in refused] == [401, 401, 401]
        assert chat(server, headers=key | {"Origin": "http://other.example"}).status_code == 403
        assert chat(server, headers=key | {"Host": "other.example"}).status_code == 421
        assert requests.get(f"{server.address}/health", timeout=30).ok


IGNORING = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("python", [(), with_fault(IGNORING)], ids=["", "started with SIGINT ignored"])
def test_a_signal_ends_it_within_three_seconds_while_it_generates(trained_store, number, python):
    with running_server(trained_store.store, python=python) as server:
        asking = [threading.Thread(target=_ask_in_vain, args=(server,), daemon=True) for _ in range(8)]
        for thread in asking:
            thread.start()
        time.sleep(0.5)
        began = time.monotonic()
        server.process.send_signal(number)
        assert server.process.wait(timeout=3) == 128 + number
        assert time.monotonic() - began < 3
        _, *more = server.log.read_text().splitlines()
    assert more == ["Interrupted."]


def test_ctrl_c_at_a_terminal_ends_it_within_three_seconds(trained_store):
    command = [sys.executable, "-m", "nfl_lora_pipeline.cli.main", "serve", "--port", "0"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], [*command, "--store", str(trained_store.store.root)])
    shown = b""
    while b"Ctrl-C ends it" not in shown:
        shown += os.read(terminal, 65_536)
    began = time.monotonic()
    os.write(terminal, b"\x03")
    after = b""
    with contextlib.suppress(OSError):  # which the end of the other side is
        while chunk := os.read(terminal, 65_536):
            after += chunk
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert time.monotonic() - began < 3
    assert after.decode().split() == ["^CInterrupted."]
    os.close(terminal)


def _ask_in_vain(server) -> None:
    try:
        while True:
            chat(server, **ENDLESS)
    except requests.RequestException:
        return


def test_an_answer_at_hand_is_finished_before_the_end(trained_store):
    with running_server(trained_store.store) as server, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(chat, server, max_tokens=60, logit_bias={"3": -100})
        time.sleep(0.05)
        server.process.terminate()
        assert content(answer.result()).startswith("In week 1 of the 2025 NFL season")
        assert server.process.wait(timeout=3) == 128 + signal.SIGTERM


def test_a_dead_generation_thread_is_the_end_of_the_process(trained_store):
    fault = """
from nfl_lora_pipeline.adapters.serving.engine import Engine
def fault(self, batch):
    if batch.jobs: raise MemoryError("no more")
Engine._advance = fault
"""
    with running_server(trained_store.store, python=with_fault(fault)) as server:
        with pytest.raises(requests.ConnectionError):
            chat(server)
        assert server.process.wait(timeout=10) == 1
        (_, said) = server.log.read_text().splitlines()
    assert said.startswith("Error: the thread that generates has ended") and "no more" in said


def test_an_error_within_a_request_is_that_requests_alone(trained_store):
    fault = """
from nfl_lora_pipeline.adapters.serving.job import Job
take = Job.take
def faulty(self, token, logprobs):
    if self.request.seed == 13: raise KeyError("thirteen")
    return take(self, token, logprobs)
Job.take = faulty
"""
    with running_server(trained_store.store, python=with_fault(fault)) as server, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(chat, server, seed=seed) for seed in (*range(10, 17), 13)]
        statuses = [answer.result().status_code for answer in answers]
        assert statuses == [200, 200, 200, 500, 200, 200, 200, 500]
        assert {content(answer.result()) for answer in answers if answer.result().ok} == {ANSWER}
        assert answers[3].result().json()["error"]["type"] == "server_error"


def test_after_an_error_that_could_be_anyones_each_request_goes_on_alone(trained_store):
    fault = """
from nfl_lora_pipeline.adapters.serving.generation import SequentialGenerator, BatchedGenerator
step, add = BatchedGenerator.step, SequentialGenerator.add
def faulty(self):
    tokens = step(self)
    self.count = getattr(self, "count", 0) + len(tokens)
    if self.count > 40: raise RuntimeError("together")
    return tokens
def faulty_add(self, prompt):
    if prompt.limit < 60: prompt.processors.append(lambda tokens, logits: 1 / 0)
    return add(self, prompt)
BatchedGenerator.step, SequentialGenerator.add = faulty, faulty_add
"""
    with running_server(trained_store.store, python=with_fault(fault)) as server, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(chat, server, max_tokens=limit) for limit in (100, 200, 50, 100, 200, 100)]
        assert [answer.result().status_code for answer in answers] == [200, 200, 500, 200, 200, 200]
        assert {content(answer.result()) for answer in answers if answer.result().ok} == {ANSWER}


def test_a_model_that_cannot_answer_several_together_answers_one_after_another(trained_store):
    fault = """
from nfl_lora_pipeline.adapters.serving import engine
from nfl_lora_pipeline.adapters.serving.generation import SequentialGenerator
engine.suitable_generator = SequentialGenerator
"""
    with running_server(trained_store.store, python=with_fault(fault)) as server, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(chat, server, stop=" Stone", temperature=place % 2 / 100) for place in range(8)]
        assert {content(answer.result()) for answer in answers} == {
            "In week 1 of the 2025 NFL season, the receiving yards of Amari"
        }


def test_an_answer_that_takes_too_long_is_an_error_of_its_own(trained_store):
    fault = "from nfl_lora_pipeline.adapters.serving import job\njob.ANSWER_SECONDS = 0.1"
    with running_server(trained_store.store, python=with_fault(fault)) as server:
        late = chat(server, **ENDLESS)
        assert (late.status_code, late.json()["error"]["type"]) == (504, "server_error")
        assert "fewer max_tokens" in events(chat(server, stream=True, **ENDLESS))[-1]["error"]["message"]
        assert content(chat(server, max_tokens=2)) == "In"


def test_the_server_loads_no_dagster(trained_store):
    lists = """
import os, sys
end = os._exit
def listing(code):
    print(sorted({"dagster", "mlx_lm"} & set(sys.modules)), flush=True)
    end(code)
os._exit = listing
"""
    with running_server(trained_store.store, python=with_fault(lists)) as server:
        server.process.terminate()
        server.process.wait(timeout=10)
        assert server.log.read_text().splitlines()[-1] == "['mlx_lm']"


def test_the_server_ends_with_its_block_and_frees_its_port(trained_store):
    with running_server(trained_store.store) as server, pytest.raises(ValueError, match="cannot listen there"):
        check_port("127.0.0.1", server.port)
    check_port("127.0.0.1", server.port)


def test_a_server_that_does_not_come_up_says_why(trained_store):
    with (
        pytest.raises(ValueError, match=r"does not come up.*holds no such adapter"),
        running_server(trained_store.store, "--adapter", "ffff"),
    ):
        pass


def test_a_port_in_use_is_one_clear_error(trained_store):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(main, ["serve", "--store", str(trained_store.store.root), "--port", port])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: --host 127.0.0.1 --port {port}: cannot listen there")
    assert len(result.stderr.splitlines()) == 1


def test_serving_without_a_promoted_adapter_says_what_to_do(tmp_path):
    result = CliRunner().invoke(main, ["serve", "--store", str(tmp_path)])
    assert result.exit_code == 1
    assert "no adapter is promoted; `nfl-lora run` promotes one" in result.stderr
