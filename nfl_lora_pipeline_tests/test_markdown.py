import pytest
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml

from nfl_lora_pipeline.evaluation.metrics import measured, of_asked, share_of
from nfl_lora_pipeline.markdown import Markup, escape, marked, percent, sections_of, table


@pytest.mark.parametrize(
    ("share", "text"), [(None, "-"), (0, "0%"), (1, "100%"), (0.9999, "99.9%"), (0.0001, "0.1%"), (0.5, "50.0%")]
)
def test_only_all_is_100_percent_and_only_nothing_is_0(share, text):
    assert percent(share) == text


def test_a_share_is_shown_with_its_interval_and_its_counts():
    assert measured(share_of(81, 263)) == "30.8% (25.5 to 36.6)"
    assert measured(share_of(13230, 13230)) == "100% (99.9 to 100.0)"
    assert measured(share_of(0, 0)) == "-"
    assert of_asked(share_of(1988, 2010)) == "1,988 of 2,010"


def test_a_table_holds_whatever_a_model_says():
    assert table(["a", "b"], [["x | y", "1\n2"]]) == "| a | b |\n| --- | --- |\n| x \\| y | 1 2 |\n"


def test_a_cell_that_is_markdown_on_purpose_stays_so():
    assert table(["a"], [[Markup("**wrong**")], ["**wrong**"]]).splitlines()[2:] == [
        "| **wrong** |",
        r"| \*\*wrong\*\* |",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "![x](http://127.0.0.1/x)",
        "<img src=x onerror=alert(1)>",
        "<http://x.org>",
        "[a](javascript:alert(1)) [b][c]",
        "`code` ``",
        "a | b \\| c \\",
        "*a* **b** _c_ __d__ ~~e~~ f_g_h",
        "&amp; &lt; &#33;",
        "$x$ $$y$$",
        "see https://x.org or www.x.org",
        "D'Andre St. Brown-Jones 3. #1 + 2 > 1!",
    ],
)
def test_an_escaped_text_is_shown_letter_for_letter(text):
    renderer = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    assert renderer.render(f"x {escape(text)}") == f"<p>x {escapeHtml(text)}</p>\n"


def test_lines_become_one_so_that_no_block_begins():
    assert escape("a\n\n# b\u2028- c\r\nd") == "a # b - c d"


def test_what_needs_no_escape_has_none():
    plain = "receiving_yards of D'Andre St. Brown-Jones (2025-W01): 98.9%, -3, p > 0"
    assert escape(plain) == plain.replace(">", r"\>")


def test_sections_are_found_again_by_their_marks_and_not_by_what_they_hold():
    page = "\n\n".join(["# Page", marked("one", "## One\n\ntext\n"), marked("two", "<!-- begin other -->")])
    assert sections_of(page) == {"one": "## One\n\ntext", "two": "<!-- begin other -->"}
    assert sections_of("# Page") == {}
