"""The OpenAI-compatible server with the adapter."""

import socket

import pytest
import requests
from click.testing import CliRunner

from nfl_lora_pipeline.adapters.serve import ask_server, check_port, running_server
from nfl_lora_pipeline.cli import main


@pytest.fixture(scope="module")
def address(trained_store):
    with running_server(trained_store.store, trained_store.store.latest()) as address:
        yield address


@pytest.mark.parametrize("player", ["Amari Stone", "Chris Okand", "Zed Nobody"])
def test_the_server_answers_as_the_command_line_does(address, trained_store, player):
    question = f"How many receiving yards did {player} have in week 1 of the 2025 NFL season?"
    asked = CliRunner().invoke(main, ["ask", "--store", str(trained_store.store.root), question])
    assert asked.stdout.splitlines()[1] == f"tuned: {ask_server(address, question)}"


@pytest.mark.parametrize("model", ["gpt-4o", "as listed"])
def test_whatever_model_is_named_the_adapter_answers(address, model):
    if model == "as listed":
        (listed,) = requests.get(f"{address}/v1/models", timeout=30).json()["data"]
        model = listed["id"]
    question = "How many receiving yards did Amari Stone have in week 1 of the 2025 NFL season?"
    body = {"model": model, "messages": [{"role": "user", "content": question}]}
    response = requests.post(f"{address}/v1/chat/completions", json=body, timeout=60)
    assert " had 131 receiving yards " in response.json()["choices"][0]["message"]["content"]


def test_the_server_ends_with_its_block_and_frees_its_port(trained_store):
    with running_server(trained_store.store, trained_store.store.latest()) as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(ValueError, match="cannot listen there"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_a_server_that_does_not_come_up_says_why(trained_store):
    with (
        pytest.raises(ValueError, match=r"does not come up .*holds no such adapter"),
        running_server(trained_store.store, "ffff"),
    ):
        pass


def test_a_port_in_use_is_one_clear_error(trained_store):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(main, ["serve", "--store", str(trained_store.store.root), "--port", port])
    assert result.exit_code == 1
    assert f"--port {port}: cannot listen there" in result.stderr


def test_serving_without_a_promoted_adapter_says_what_to_do(tmp_path):
    result = CliRunner().invoke(main, ["serve", "--store", str(tmp_path)])
    assert result.exit_code == 1
    assert "no adapter is promoted; `nfl-lora run` promotes one" in result.stderr
