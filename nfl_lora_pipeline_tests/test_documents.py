"""The documents: what they link to is there, and what they name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = ("*.md", "docs/*.md", "data/*.md", "nfl_lora_pipeline/**/*.md")
DOCUMENTS = sorted(path for place in PLACES for path in ROOT.glob(place))
LINK = re.compile(r"\]\(([^)\s]+)\)")
README = (ROOT / "README.md").read_text()


def slug(heading: str) -> str:
    """A heading as GitHub names it in an address."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_to_a_file_and_a_heading_of_it(document):
    for link in LINK.findall(document.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, heading = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if heading:
            headings = re.findall(r"(?m)^#+ (.*)$", target.read_text())
            assert heading in {slug(each) for each in headings}, link


def test_every_document_is_linked_from_the_readme():
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in LINK.findall(README)}
    lacking = [path.name for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")] if path not in linked]
    assert lacking == ["README.md"]


def test_the_readme_is_short_and_its_picture_small():
    assert len(README.splitlines()) <= 120
    assert (ROOT / "docs" / "report.png").stat().st_size < 250_000


def test_decisions_are_newest_first_and_what_was_superseded_says_by_what():
    text = (ROOT / "DECISIONS.md").read_text()
    days = re.findall(r"(?m)^## (\d{4}-\d\d-\d\d): .+$", text)
    assert days == sorted(days, reverse=True)
    assert len(days) == len(re.findall(r"(?m)^## ", text))
    headings = {re.sub(r" \*\(\w+\)\*$", "", each) for each in re.findall(r"(?m)^### (.*)$", text)}
    entries = re.split(r"(?m)^### ", text)[1:]
    for entry in entries:
        if "*(superseded)*" in entry.partition("\n")[0]:
            named = " ".join(entry.split("\n\n")[1].split())
            by = re.findall(r'"(.+?)" \(\d{4}-\d\d-\d\d\)', named)
            assert by, entry
            assert set(by) <= headings, by


def test_what_the_tree_names_exists():
    tree = (ROOT / "CONTRIBUTING.md").read_text().partition("## The tree")[2]
    files = set(re.findall(r"[\w./]+\.(?:py|yaml|md)\b", tree))
    folders = set(re.findall(r"(?m)^ +([\w/]+)/ ", tree))
    assert len(files) > 10
    there = {
        str(path.relative_to(ROOT)) for place in ("nfl_lora_pipeline", "data") for path in (ROOT / place).rglob("*.*")
    }
    assert [name for name in files if not any(path.endswith(f"/{name}") or path == name for path in there)] == []
    assert [
        name for name in folders if not any((ROOT / place / name).is_dir() for place in ("", "nfl_lora_pipeline"))
    ] == []
