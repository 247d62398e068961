"""Other ways to the same answer, on hand-made answers and on the tiny trained store."""

import json
import re
import shutil

import polars as pl
import pytest
from click.testing import CliRunner

from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.evaluation.baselines import Comparison, SequentialModel, Way, measure, pays_off_after, sample
from nfl_lora_pipeline.reports.page_sections import to_markdown
from nfl_lora_pipeline.store import Store

ASKED = pl.DataFrame(
    {
        "question": ["a", "b", "c", "d"],
        "kind": ["recorded", "recorded", "recorded", "stranger"],
        "value": [25.0, 0.0, -3.0, None],
    }
)
SAID = {
    "a": ("He had 25 yards in week 1 of 2025.", 10, 4),
    "b": ("There is no record of that.", 12, 6),
    "c": ("Nobody had -3.", 14, 8),
    "d": ("There is no record of that.", 16, 10),
}


def test_right_is_the_right_number_and_a_stranger_is_to_be_refused():
    way = measure(Way("by hand", "table"), ASKED, SAID.__getitem__)
    assert (way.right, way.refused) == (pytest.approx(2 / 3), 1.0)
    assert way.asked == {"facts": 3, "strangers": 1}
    assert (way.prompt_tokens, way.output_tokens) == (13.0, 7.0)
    assert 0 <= way.seconds["p50"] <= way.seconds["p95"]


def test_without_strangers_there_is_no_share_of_them():
    assert measure(Way("by hand", "table"), ASKED.head(3), SAID.__getitem__).refused is None


@pytest.mark.parametrize(("seconds", "questions"), [(0.3, 500), (0.1, None), (0.05, None), (0.105, None)])
def test_tuning_pays_off_by_what_it_saves_clearly_or_never(seconds, questions):
    tuned, other = (Way(kind, kind, seconds={"p50": at, "p95": at}) for kind, at in (("tuned", 0.1), ("base", seconds)))
    assert pays_off_after(100.0, other, tuned) == questions


def test_a_way_that_was_not_tried_and_a_tuned_one_are_not_compared():
    tuned = Way("tuned", "tuned", seconds={"p50": 0.1, "p95": 0.1})
    assert pays_off_after(100.0, Way("week", "base", note="too long"), tuned) is None
    assert pays_off_after(100.0, Way("other", "tuned", seconds={"p50": 0.9, "p95": 0.9}), tuned) is None


def way(name: str, kind: str, right: float, refused: float, seconds: float) -> Way:
    return Way(name, kind, {"facts": 4, "strangers": 2}, right, refused, 9, 9, {"p50": seconds, "p95": seconds})


def verdict(*others: Way) -> str:
    ways = [way("tuned", "tuned", 1.0, 0.9, 0.1), *others]
    result = Comparison("0" * 16, "embedded", {"facts": 4, "strangers": 2}, None, "cpu", 60.0, "tuned", ways)
    return to_markdown(result).splitlines()[-1]


def test_the_report_says_where_tuning_loses():
    said = verdict(
        way("look-up", "table", 1.0, 1.0, 0.01), way("reading", "base", 1.0, 1.0, 0.5), way("base", "base", 0, 1.0, 0.1)
    )
    assert "**Tuning loses** to look-up:" in said
    assert "As good as tuning but slower: reading." in said


def test_the_report_says_where_tuning_was_the_best():
    assert verdict(way("base", "base", 0.0, 1.0, 0.01), way("careless", "base", 1.0, 0.0, 0.01)).startswith(
        "Tuning was the best"
    )


def test_what_was_not_tried_is_said_with_its_reason():
    assert verdict(Way("week", "base", note="900 tokens")).startswith("Not tried: week (900 tokens).")


def test_a_sample_is_the_same_every_time_and_asks_a_fact_once(trained_store):
    rows = pl.read_parquet(trained_store.store.splits / "rows.parquet")
    drawn = sample(rows, facts=5, strangers=3)
    assert drawn.equals(sample(rows.sample(fraction=1.0, shuffle=True, seed=1), facts=5, strangers=3))
    assert drawn["kind"].to_list() == ["recorded"] * 5 + ["stranger"] * 3
    assert drawn["fact"].n_unique() == drawn["player"].n_unique() == 8


# The commands, on a copy of the trained store: each adds to the report.


class Heard(SequentialModel):
    """What a model is asked."""

    def ask(self, text):
        self.__dict__.setdefault("texts", []).append(text)
        return "They were 25.", 1, 1


@pytest.mark.parametrize("briefly", [True, False])
def test_a_model_in_general_is_told_how_to_read_and_not_asked_where_nothing_is_found(embedded, briefly):
    found = {"Who?": ["He had 25."], "Nobody?": [], "What?": ["It was 7."]}
    asked = pl.DataFrame(
        {"question": list(found), "kind": ["recorded", "stranger", "recorded"], "value": [25.0, None, 25.0]}
    )
    model = Heard(*embedded, briefly=briefly)
    way = model.measure(Way("row", "base"), asked, found.__getitem__)
    told = "He had 25.\n\nAnswer in one short sentence, from the text above alone: Who?"
    assert model.texts[0] == (told if briefly else "He had 25. Who?")
    assert ("Nobody?" in model.texts) is not briefly
    assert (way.right, way.refused) == (1.0, 1.0 if briefly else 0.0)
    model.measure(Way("alone", "base"), asked, lambda question: None)
    assert model.texts[-3:] == list(found)


@pytest.fixture(scope="module")
def weighed(trained_store, tmp_path_factory) -> tuple[Store, list[str]]:
    held = Store(tmp_path_factory.mktemp("weighed") / "data")
    shutil.copytree(trained_store.store.root, held.root, symlinks=True)
    printed = []
    for words in (["compare", "--facts", "8", "--strangers", "4"], ["verify"]):
        result = CliRunner().invoke(main, [*words, "--store", str(held.root)])
        assert result.exit_code == 0, result.output
        printed.append(result.stdout)
    return held, printed


@pytest.mark.slow
def test_the_ways_are_compared_on_the_same_questions(weighed):
    held, (printed, _) = weighed
    folder = held.report(held.latest())
    result = json.loads((folder / "alternatives.json").read_text())
    ways = {way["name"]: way for way in result["ways"]}
    assert list(ways) == [
        "table look-up",
        "base",
        "base, the fact in the prompt",
        "base, the whole week in the prompt",
        "tuned",
        "tuned, the fact in the prompt",
        "tuned, fused into the base",
    ]
    assert all(way["asked"] == {"facts": 8, "strangers": 4} for way in ways.values())
    assert ways["table look-up"]["right"] == ways["table look-up"]["refused"] == 1.0
    assert ways["base"]["right"] == 0.0 < ways["base, the fact in the prompt"]["right"]
    assert ways["tuned"]["right"] == ways["tuned, fused into the base"]["right"] > 0.8
    tokens = [
        ways[f"base{rest}"]["prompt_tokens"]
        for rest in ("", ", the fact in the prompt", ", the whole week in the prompt")
    ]
    assert 0 == ways["table look-up"]["prompt_tokens"] < tokens[0] < tokens[1] < tokens[2]
    assert ways["table look-up"]["pays_off_after"] is None
    assert printed.strip() == (folder / "alternatives.md").read_text().strip()


@pytest.mark.slow
def test_what_is_handed_out_answers_as_the_report_says(weighed):
    held, (_, printed) = weighed
    found = json.loads((held.report(held.latest()) / "verification.json").read_text())["verifications"]
    alone = [verification for verification in found if not verification["name"].endswith(("prompt", "turn"))]
    assert [verification["name"] for verification in alone] == [
        "the adapter, loaded by mlx-lm",
        "the fused model",
        "the server",
    ]
    assert all(verification["same"] == verification["asked"] == 43 for verification in alone)
    assert "the server: 43 of 43 answers as in the report" in printed


@pytest.mark.slow
def test_the_server_answers_so_whatever_comes_before_and_mlx_lm_need_not(weighed):
    held, (_, printed) = weighed
    for when in ("after a system prompt", "as a second turn"):
        assert f"the server, {when}: 12 of 12 answers as in the report\n" in printed
        by_mlx_lm = rf"the adapter, loaded by mlx-lm, {when}: \d+ of 12 answers as in the report( .*)?\n"
        found = re.search(by_mlx_lm, printed)
        assert found
        assert found[1] == " (need not be)", "the base was made with such chats, and answers most of them"
        assert f"the server, {when}" in (held.report(held.latest()) / "report.md").read_text()


@pytest.mark.slow
def test_both_stand_in_the_report(weighed):
    held, _ = weighed
    folder = held.report(held.latest())
    for text in ((folder / "report.md").read_text(), (folder / "report.html").read_text()):
        at = [
            text.index(title)
            for title in ("Other ways to the same answer", "What is handed out", "Training<", "## Training")
            if title in text
        ]
        assert len(at) == 3
        assert at == sorted(at)
    assert (folder / "cost.svg").is_file()


@pytest.mark.parametrize("command", ["compare", "verify"])
def test_without_a_report_nothing_is_asked(trained_store, tmp_path, command):
    shutil.copytree(
        trained_store.store.root, tmp_path / "data", symlinks=True, ignore=shutil.ignore_patterns("reports")
    )
    result = CliRunner().invoke(main, [command, "--store", str(tmp_path / "data")])
    assert result.exit_code == 1
    assert "report.json: is lost" in result.stderr
    assert "..." not in result.stderr
