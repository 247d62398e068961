"""`nfl-lora season`, as whoever types it sees it, and its page."""

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from nfl_lora_pipeline.adapters.promotion import promote
from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.evaluation.regressions import Lost, Regressions
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import json_bytes, to_json
from nfl_lora_pipeline_tests.evaluations import of_fact, pairs_of, perfect, saying, summary_of
from nfl_lora_pipeline_tests.fakes import put_adapter
from nfl_lora_pipeline_tests.pages import GROUNDS, OPEN_ALL, ground, serious, shown

OLD, NEW, OTHER = "0" * 16, "f" * 16, "a" * 16


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    held = Store(tmp_path_factory.mktemp("season") / "data")
    put_adapter(held, OLD, written_at=1_750_000_000)
    put_adapter(held, NEW, written_at=1_760_000_000, weeks=["2025-W01", "2025-W02"], parent=OLD)
    put_adapter(held, OTHER, written_at=1_700_000_000, weeks=["2024-W01"])
    summary = summary_of(saying(perfect(pairs_of()), of_fact("Nico Collins"), "12?"))
    lost = Regressions(Lost(90, 9), Lost(60, 6), [], against=OLD, promoted=True)
    summary = replace(summary, regressions=lost, recall_by_week={"2025-W01": 0.9, "2025-W02": 1.0})
    held.report(NEW).mkdir(parents=True)
    (held.report(NEW) / "report.json").write_bytes(json_bytes(to_json(summary)))
    promote(held, OLD)
    promote(held, NEW)
    return held


def season(held, *options):
    return CliRunner().invoke(main, ["season", "--store", str(held.root), *options], env={"COLUMNS": "160"})


def test_each_adapter_of_the_newest_season_is_a_line_with_its_weeks_the_oldest_first(store):
    header, first, second = [line.split() for line in season(store).stdout.splitlines()]
    assert header[:7] == ["adapter", "trained", "(UTC)", "week", "1", "week", "2"]
    assert first == [OLD[:8], "2025-06-15", "15:06", "-", "-", "-", "no", "report", "0.7"]
    assert second == [NEW[:8], "2025-10-09", "08:53", "90.0%", "100%", "6", "14", "of", "14", "0.3", "promoted"]


def test_another_season_has_its_own_line_and_one_that_nobody_knows_says_so(store):
    assert OTHER[:8] in season(store, "--season", "2024").stdout
    assert OLD[:8] not in season(store, "--season", "2024").stdout
    unknown = season(store, "--season", "2023")
    assert unknown.exit_code == 1
    assert "holds no adapter of 2023: run `nfl-lora run`" in unknown.stderr


def test_the_page_of_a_season_says_the_same_and_what_was_promoted_when(store):
    assert season(store, "--html").stdout.splitlines()[-1] == str(store.root / "season-2025.html")
    html = (store.root / "season-2025.html").read_text()
    assert f"In use is adapter {NEW}." in html
    for cell in ("week 2", "90.0%", "14 of 14", "no report", "checks passed"):
        assert f">{cell}</t" in html
    assert "https:" not in html


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_the_page_in_both_themes_and_on_a_phone(store, browser, scheme):
    file = Path(season(store, "--html").stdout.splitlines()[-1])
    page = shown(browser, file, width=390, scheme=scheme)
    assert page.requested == [file.as_uri()]
    assert ground(page) == GROUNDS[scheme]
    page.evaluate(OPEN_ALL)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert serious(page) == {}
