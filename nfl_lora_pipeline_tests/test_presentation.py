"""The report for people: pictures, Markdown with what was added, and one HTML file."""

import re
from pathlib import Path

import pytest

from nfl_lora_pipeline.adapters.verify import VerificationRecord
from nfl_lora_pipeline.evaluation.baselines import Comparison
from nfl_lora_pipeline.evaluation.grading import with_verdict
from nfl_lora_pipeline.markdown import table
from nfl_lora_pipeline.reports.page import markdown_to_html
from nfl_lora_pipeline.reports.report import add_to_report, present
from nfl_lora_pipeline.stored import json_bytes, to_json
from nfl_lora_pipeline_tests.evaluations import pairs_of, perfect, summary_of

SAID = '<script>alert(1)</script> <img src="http://x/y.png"> [here](http://x) <http://x> ![p](http://x) ![q](data:text/html,x)'


@pytest.fixture(scope="module")
def predictions():
    return perfect(pairs_of())


@pytest.fixture
def folder(tmp_path) -> Path:
    report = tmp_path / "report"
    report.mkdir()
    return report


def put_report(folder: Path, predictions, **options) -> None:
    present(folder, summary_of(predictions), with_verdict(predictions), **options)


def test_what_a_model_said_is_shown_and_not_obeyed_even_where_nobody_escaped_it():
    html = markdown_to_html(f"{SAID}\n\n{table(['said'], [[SAID]])}", 'a "table"')
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    assert set(re.findall(r"<(\w+)", html)) == set("p div table thead tr th tbody".split())
    assert 'aria-label="a &#34;table&#34;"' in html


def test_the_page_needs_nothing_from_anywhere(folder, predictions):
    put_report(folder, predictions)
    html = (folder / "report.html").read_text()
    assert html.count('<svg class="plot" role="img" aria-label="') == 3
    assert not re.search(r"https?:|<script|<link|@import|url\((?!#)|src=", html)
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html


def test_pictures_come_first_and_additions_stand_before_the_training(folder, predictions):
    (folder / "alternatives.md").write_text("## Other ways\n\nnone\n")
    comparison = Comparison("0" * 16, "embedded", {"facts": 1, "strangers": 1}, None, "cpu", 1.0, "tuned", [])
    (folder / "alternatives.json").write_bytes(json_bytes(to_json(comparison)))
    put_report(folder, predictions)
    told = re.findall(r"^## .*|\w+\.svg", (folder / "report.md").read_text(), re.MULTILINE)
    pictures = ["## Pictures", "recall.svg", "margins.svg", "loss.svg", "cost.svg"]
    assert told[1:7] == [*pictures, "## Recall"]
    assert told[-4:] == ["## Misses", "## Other ways", "## Training", "## What the words mean"]


@pytest.mark.parametrize("name", ["verification", "artefacts"])
def test_what_was_added_to_a_report_stays_when_it_is_written_anew_under_its_name_of_today(
    folder, predictions, tmp_path, name
):
    before = tmp_path / "before"
    before.mkdir()
    (before / f"{name}.md").write_text("## What is handed out\n")
    (before / f"{name}.json").write_text("[]")
    put_report(folder, predictions, before=before)
    assert "## What is handed out" in (folder / "report.md").read_text()
    assert (folder / "verification.json").read_text() == "[]"


def test_an_addition_to_a_report_by_other_code_waits_for_the_next_one(folder, predictions):
    (folder / "report.json").write_text("{}")
    predictions.write_parquet(folder / "predictions.parquet")
    with pytest.raises(
        ValueError, match=r"report\.json: is of schema version 1, and this code reads from 4 on; `nfl-lora r"
    ):
        add_to_report(folder, "verification", VerificationRecord([]), "## What is handed out\n")
    assert (folder / "verification.md").read_text() == "## What is handed out\n"
    assert not (folder / "report.md").exists()
