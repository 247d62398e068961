"""What is held back: an answer to which a model gives no more than 0.6 of its probability, wherever somebody asks for it."""

import math

import mlx.core as mx
import polars as pl
import pytest
from click.testing import CliRunner

from nfl_lora_pipeline.adapters.verify import answers_in_report, running_server
from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.dataset.templates import NOT_SURE, is_short, only_if_sure
from nfl_lora_pipeline.dataset.unanswerable import OUTSIDE
from nfl_lora_pipeline.evaluation.grading import is_refusal
from nfl_lora_pipeline.models import base_model, scoring
from nfl_lora_pipeline.models.rows import tokenize
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.reports import evaluate
from nfl_lora_pipeline.reports.evaluate import Examination
from nfl_lora_pipeline.reports.report import read_summary
from nfl_lora_pipeline.stored import read_predictions
from nfl_lora_pipeline_tests.servers import ANSWER, QUESTION, chat
from nfl_lora_pipeline_tests.test_serve import events

TALK = (
    "Receiving yards are what a receiver gains with the ball that was thrown to him; " * 2
    + "10 of them are a first down."
)


@pytest.mark.parametrize(
    ("said", "probability", "is_told"),
    [
        (ANSWER, 0.61, True),
        (ANSWER, 0.6, False),
        (ANSWER, 0.0, False),
        ("Nico Collins had 25 receptions.", 0.3, False),
        ("He threw for 25 passing yards.", 0.3, False),
        ("He had three rushing touchdowns.", 0.3, False),
        ("He had three receptions.", 0.3, False),
        ("In week 1 of the 2025 NFL season, the two-point were 54.", 0.06, False),  # what a model said of a stat's name
        ("An NFL season has 18 weeks.", 0.1, True),
        ("In week 1 of the 2025 NFL season, the receiving yards of Amari Stone are not recorded.", 0.61, True),
        ("In week 1 of the 2025 NFL season, the receiving yards of Amari Stone are not recorded.", 0.6, False),
        ("In week 1 of the 2025 NFL season, the receiving yards of A. B are none: his team had no game.", 0.1, False),
        ("In week 1 of the 2025 NFL season, the head coach are not recorded.", 0.2, False),
        (OUTSIDE, 0.1, True),
        ("A reception is a pass that somebody caught.", 0.1, True),
        ("What receiving yards are I cannot say.", 0.1, True),
        ("The capital of France is Paris, with 2 million people.", 0.1, True),
        (TALK, 0.0, True),
        ("", 0.0, True),
    ],
)
def test_what_is_said_of_a_stat_or_a_week_is_told_where_it_is_likelier_than_all_else_and_other_talk_always(
    said, probability, is_told
):
    assert only_if_sure(said, probability) == (said if is_told else NOT_SURE)


def test_what_is_told_instead_counts_as_a_refusal():
    assert is_refusal(NOT_SURE)
    assert is_short(NOT_SURE)


def test_a_probability_of_a_whole_answer_is_the_product_of_its_tokens_and_its_end(embedded):
    model, tokenizer = embedded
    said = base_model.answer(model, tokenizer, [QUESTION])[0]
    (row,) = tokenize(tokenizer, [(QUESTION, said)])
    found = scoring.certainty(model, [row])
    chances = mx.softmax(model(mx.array([row.tokens[:-1]]))[0], -1)
    tokens = [chances[place, row.tokens[place + 1]].item() for place in range(row.start - 1, len(row.tokens) - 1)]
    assert row.tokens[-1] == tokenizer.eos_token_id
    assert found.whole[0] == pytest.approx(math.prod(tokens), rel=1e-3)
    assert found.whole[0] <= found.lowest[0]
    assert scoring.probability(model, tokenizer, QUESTION, said) == pytest.approx(found.whole[0], rel=1e-3)


@pytest.fixture(scope="module")
def predictions(trained_store):
    held = trained_store.store
    return read_predictions(held.report(held.latest()), ["question", "generated", "tuned", "sure", "group"])


@pytest.fixture(scope="module", params=[r" were -?\d", " are not recorded"], ids=["a number", "a refusal"])
def unsure(predictions, request):
    """A question to which the adapter of the tiny week gives an answer of this kind that it is not sure of."""
    held_back = predictions.filter(pl.col("tuned") == NOT_SURE, pl.col("sure") < 0.55)
    held_back = held_back.filter(pl.col("generated").str.contains(request.param))
    held_back = held_back.filter(~pl.col("question").str.contains("  ", literal=True))
    assert held_back.height > 0, "a recipe of so few steps is unsure of much that it was not taught"
    return held_back.row(0, named=True)


def test_a_report_judges_what_is_told_and_shows_what_was_held_back(trained_store, predictions):
    held = trained_store.store
    is_held = predictions["generated"] != predictions["tuned"]
    assert (predictions.filter(is_held)["tuned"] == NOT_SURE).all()
    assert (predictions.filter(is_held)["sure"] <= 0.6).all()
    told = predictions.filter(~is_held, pl.col("generated").str.contains(r"were -?\d"))
    assert (told["sure"] > 0.6).all()
    found = read_summary(held.report(held.latest())).sureness.held_back
    assert sum(each.right + each.wrong + each.refusals for each in found) == is_held.sum()
    assert min(sum(each.wrong for each in found), sum(each.refusals for each in found)) > 0
    assert "held back: wrong numbers" in (held.report(held.latest()) / "report.md").read_text(encoding="utf-8")


def test_ask_and_chat_say_that_they_are_not_sure_and_what_they_would_have_said_to_whom_asks(trained_store, unsure):
    store = ["--store", str(trained_store.store.root)]
    question, generated = unsure["question"], unsure["generated"]

    def last_of(*words: str, typed: str | None = None) -> list[str]:
        result = CliRunner().invoke(main, [*words, *store], input=typed)
        assert result.exit_code == 0, result.output
        return result.stdout.splitlines()

    assert last_of("ask", question)[-1] == f"tuned: {NOT_SURE}"
    assert last_of("ask", question, "--raw")[-1] == f"tuned: {generated}"
    assert last_of("ask", question, "--sure")[-1] == f"tuned: {NOT_SURE}"
    assert last_of("ask", QUESTION)[-1] == f"tuned: {ANSWER}"
    told, why = last_of("chat", typed=f"{question}\n/why\n")
    assert told == NOT_SURE
    assert float(why.split()[1]) == pytest.approx(unsure["sure"], abs=0.002)
    assert repr(generated) in why


def test_a_server_holds_back_the_same_and_shows_it_to_whom_asks_for_probabilities(trained_store, unsure):
    def content(**fields) -> str:
        return chat(server, unsure["question"], **fields).json()["choices"][0]["message"]["content"]

    with running_server(trained_store.store) as server:
        assert content() == NOT_SURE
        assert content(logprobs=True) == unsure["generated"]
        pieces = events(chat(server, unsure["question"], stream=True))
        streamed = [piece["choices"][0]["delta"].get("content", "") for piece in pieces]
        assert "".join(streamed) == NOT_SURE
        assert chat(server).json()["choices"][0]["message"]["content"] == ANSWER


def test_what_other_engines_are_held_against_is_what_the_model_answers(trained_store, predictions):
    held = trained_store.store
    everything = {"questions": predictions.height}
    raw = answers_in_report(held, held.latest(), **everything)
    told = answers_in_report(held, held.latest(), column="tuned", **everything)
    assert NOT_SURE not in raw["tuned"].to_list()
    assert NOT_SURE in told["tuned"].to_list()


def test_a_certified_answer_of_which_no_token_is_unlikely_is_held_back_all_the_same_where_the_whole_is(
    embedded, monkeypatch
):
    """Two tokens of 0.75 each exceed the limit, and their product does not."""
    recorded = {"group": "known", "kind": "recorded", "split": "train", "part": "trained", "base": None, "value": 131.0}
    rows = [{"fact": fact, "question": QUESTION, "answer": ANSWER, "turn": turn} for turn, fact in enumerate("ab")]
    same = {
        "player_id": "1",
        "player": "Amari Stone",
        "phrasing": "seed",
        "refusal": "-",
        "stat": "receiving_yards",
        "season": 2025,
        "week": 1,
    }
    questions = pl.DataFrame([row | recorded | same for row in rows], schema_overrides={"base": pl.String})
    monkeypatch.setattr(evaluate, "answer", lambda model, tokenizer, asked, **_: [ANSWER] * len(asked))
    examination = Examination(*embedded, load_recipe("embedded"), lambda line, share: None)
    found, exam = examination.of(
        questions, pl.DataFrame([("a", 0.8, 0.59), ("b", 0.8, 0.61)], evaluate.MARGINS, orient="row")
    )
    assert exam.certified == 2
    assert dict(found.select("fact", "tuned").iter_rows()) == {"a": NOT_SURE, "b": ANSWER}
    assert dict(found.select("fact", "right").iter_rows()) == {"a": False, "b": True}
