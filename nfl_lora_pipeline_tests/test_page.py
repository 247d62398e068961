"""`report.html` in a browser: how it looks, and whether everybody can read it."""

from dataclasses import replace

import polars as pl
import pytest

from nfl_lora_pipeline.evaluation.gates import judge
from nfl_lora_pipeline.evaluation.grading import with_verdict
from nfl_lora_pipeline.evaluation.regressions import Lost, Regression, Regressions, WeekChange
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.reports.report import write_report
from nfl_lora_pipeline_tests.evaluations import pairs_of, perfect_answers, saying, summary_of
from nfl_lora_pipeline_tests.pages import GROUNDS, OPEN_ALL, ground, serious, shown

CONTRAST = """() => {
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(each => each / 255)
      .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return [...document.querySelectorAll('svg.plot text')].map(text => {
    const ground = getComputedStyle(text.closest('svg').querySelector('path')).fill;
    const [low, high] = [getComputedStyle(text).fill, ground].map(light).sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  });
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with every section, of an adapter that is wrong in places."""
    answers = perfect_answers(pairs_of())
    weak = saying(answers, pl.col("group").is_in(["typo", "tight_ends", "last_name"]), "He had 12.")
    weak = saying(weak, (pl.col("split") == "test") & (pl.col("player") == "Other Man"), "I don't know.")
    lost = [Regression("How many?", "train", "He had 5.", "He had 6.")]
    changed = [WeekChange("2025-W01", 90, 80, 79, 1, 0)]
    summary = replace(
        summary_of(weak),
        warnings=["two people have no position"],
        regressions=Regressions(Lost(90, 1), Lost(60, 1), lost, against="f" * 16, promoted=True, by_week=changed),
    )
    summary = replace(summary, gates=judge(summary, with_verdict(weak), load_recipe("embedded")))
    folder = tmp_path_factory.mktemp("page") / "report"
    write_report(folder, summary, with_verdict(weak))
    return folder / "report.html"


def test_the_page_is_short_where_it_is_folded_and_asks_nothing_of_the_network(browser, report):
    page = shown(browser, report, width=1280)
    assert page.requested == [report.as_uri()]
    assert 900 < page.evaluate("document.documentElement.scrollHeight") < 4000
    assert page.locator("details[open]").count() == 0
    first = page.locator("dl.questions").bounding_box()
    assert first["y"] < 900, "verdict, figures and the first question are on the first screen"


def test_on_a_phone_no_part_of_the_page_is_wider_than_it_and_tables_scroll_in_themselves(browser, report):
    page = shown(browser, report, width=390)
    page.evaluate(OPEN_ALL)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    wide = page.evaluate(
        "() => [...document.querySelectorAll('.table')].filter(each => each.scrollWidth > each.clientWidth).length"
    )
    assert wide > 5
    narrow = page.evaluate("() => Math.min(...[...document.querySelectorAll('td')].map(each => each.clientWidth))")
    assert narrow >= 70, "no column is a word wide"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_and_the_texts_of_pictures_can_be_read(browser, report, scheme):
    page = shown(browser, report, width=1280, scheme=scheme)
    assert ground(page) == GROUNDS[scheme]
    page.evaluate(OPEN_ALL)
    assert serious(page) == {}
    contrasts = page.evaluate(CONTRAST)
    assert len(contrasts) > 30
    assert min(contrasts) > 4.5


def test_a_link_of_the_contents_opens_its_section(browser, report):
    page = shown(browser, report, width=1280)
    page.get_by_role("link", name="Making things up").click()
    assert page.locator("details[open] > summary h2").all_inner_texts() == ["Making things up"]
    assert page.get_by_text("Questions without an answer").is_visible()
