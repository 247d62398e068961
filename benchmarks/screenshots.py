"""Pictures of what a person sees, for the documents: pages in Debian's Chromium, driven by Playwright.

python -m benchmarks.screenshots report --store data --out docs/report.png
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
from playwright.sync_api import Browser, sync_playwright

from nfl_lora_pipeline.store import Store

CHROMIUM = "chromium"  # as Debian's package names its program
WIDE, HIGH = 1280, 900


def chromium() -> str | None:
    """The path of the browser; None where there is none."""
    return shutil.which(CHROMIUM)


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser without a window, until the end of the block.

    Raises:
        ValueError: there is none on this machine.
    """
    program = chromium()
    if program is None:
        raise ValueError(f"no {CHROMIUM} on this machine: `apt-get install {CHROMIUM}`")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            opened.close()


@click.group()
def main() -> None:
    """Take a picture of a page."""


@main.command()
@click.option("--store", type=click.Path(path_type=Path, exists=True, file_okay=False), default=Path("data"))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="PNG.")
@click.option("--dark", is_flag=True, help="As in a browser that asks for dark pages.")
@click.option("--width", type=click.IntRange(200), default=WIDE, show_default=True)
@click.option("--whole", is_flag=True, help="The page to its end, and not the first screen alone.")
def report(store: Path, out: Path, dark: bool, width: int, whole: bool) -> None:
    """The report on the newest adapter of a store."""
    held = Store(store)
    page_file = held.report(held.latest()) / "report.html"
    with browser() as opened:
        page = opened.new_page(viewport={"width": width, "height": HIGH}, color_scheme="dark" if dark else "light")
        page.goto(page_file.resolve().as_uri())
        page.screenshot(path=out, full_page=whole)


if __name__ == "__main__":
    main()
