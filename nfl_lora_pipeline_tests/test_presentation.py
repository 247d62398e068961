"""The report for people: pictures, Markdown with what was added, and one HTML file."""

import re
from pathlib import Path

import polars as pl
import pytest

from nfl_lora_pipeline.adapters.verify import VerificationRecord
from nfl_lora_pipeline.evaluation.baselines import Comparison
from nfl_lora_pipeline.markdown import table
from nfl_lora_pipeline.reports.plots import loss_plot
from nfl_lora_pipeline.reports.report import add_to_report, present, to_html, with_pictures_inside
from nfl_lora_pipeline.stored import json_bytes, to_json

SCORED = pl.DataFrame(
    {
        "kind": ["recorded", "recorded", "stranger"],
        "stat": ["targets"] * 3,
        "phrasing": ["seed", "tell_me", "tell_me"],
        "split": ["train", "test", "test"],
        "right": [True, False, True],
        "lowest": [0.9, 0.2, 0.8],
    }
)
MARKDOWN = "# What the model knows\n\n## Recall\n\nall\n\n## Training\n\n![loss](loss.png)\n"
SAID = '<script>alert(1)</script> <img src="http://x/y.png"> [here](http://x) <http://x> ![p](http://x) ![q](data:text/html,x)'


def page(said: str) -> str:
    return to_html(f"# Report on <b>\n\n{table(['said'], [[said]])}")


@pytest.fixture
def folder(tmp_path) -> Path:
    report = tmp_path / "report"
    report.mkdir()
    (report / "loss.png").write_bytes(loss_plot([(1, 2.0)], [(1, 0.5)]))
    return report


def test_what_a_model_said_is_shown_and_not_obeyed():
    html = page(SAID)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<title>Report on &lt;b&gt;</title>" in html
    assert set(re.findall(r"<(\w+)", html.partition("<body>")[2])) == {
        "h1",
        "div",
        "table",
        "thead",
        "tr",
        "th",
        "tbody",
        "td",
    }


def test_the_page_needs_nothing_from_anywhere(folder):
    present(folder, MARKDOWN, SCORED)
    html = (folder / "report.html").read_text()
    assert len(re.findall(r'src="data:image/png;base64,[A-Za-z0-9+/=]+"', html)) == 3
    assert not re.search(r"https?:|<script|<link|@import|url\(|src=\"(?!data:)", html)
    assert "prefers-color-scheme: dark" in html


def test_pictures_and_additions_stand_before_the_training(folder):
    (folder / "alternatives.md").write_text("## Other ways\n\nnone\n")
    comparison = Comparison("0" * 16, "embedded", {"facts": 1, "strangers": 1}, None, "cpu", 1.0, "tuned", [])
    (folder / "alternatives.json").write_bytes(json_bytes(to_json(comparison)))
    present(folder, MARKDOWN, SCORED)
    told = re.findall(r"^## .*|\w+\.png", (folder / "report.md").read_text(), re.MULTILINE)
    pictures = ["## Recall and certainty in pictures", "recall.png", "margins.png"]
    assert told == ["## Recall", *pictures, "## Other ways", "cost.png", "## Training", "loss.png"]


@pytest.mark.parametrize("name", ["verification", "artefacts"])
def test_what_was_added_to_a_report_stays_when_it_is_written_anew_under_its_name_of_today(folder, tmp_path, name):
    before = tmp_path / "before"
    before.mkdir()
    (before / f"{name}.md").write_text("## What is handed out\n")
    (before / f"{name}.json").write_text("[]")
    present(folder, MARKDOWN, SCORED, before=before)
    assert "## What is handed out" in (folder / "report.md").read_text()
    assert (folder / "verification.json").read_text() == "[]"


def test_an_addition_to_a_report_by_other_code_waits_for_the_next_one(folder):
    (folder / "report.json").write_text("{}")
    SCORED.write_parquet(folder / "predictions.parquet")
    with pytest.raises(
        ValueError, match=r"report\.json: is of schema version 1, and this code reads from 4 on; `nfl-lora r"
    ):
        add_to_report(folder, "verification", VerificationRecord([]), "## What is handed out\n")
    assert (folder / "verification.md").read_text() == "## What is handed out\n"
    assert not (folder / "report.md").exists()


def test_markdown_can_carry_its_pictures(folder):
    carried = with_pictures_inside("![loss](loss.png) ![other](gone.png)", folder)
    assert carried.startswith("![loss](data:image/png;base64,iVBOR")
    assert carried.endswith("![other](gone.png)")
