"""Pictures of what a person sees, for the documents: pages in Debian's Chromium, driven by Playwright.

python -m benchmarks.screenshots report --store data --out docs/report.png
python -m benchmarks.screenshots lineage --store data --out docs/lineage.png
"""

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from playwright.sync_api import Browser, sync_playwright

from deploy.loopback import free_port
from nfl_lora_pipeline.store import Store

CHROMIUM = "chromium"  # as Debian's package names its program
WIDE, HIGH = 1280, 900
MARGIN = 12  # pixels around what is cut out of a page
WAIT_MS = 300_000  # for a page of Dagster's UI, on a slow machine


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


@main.command()
@click.option("--store", type=click.Path(path_type=Path, exists=True, file_okay=False), default=Path("data"))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="PNG.")
def lineage(store: Path, out: Path) -> None:
    """The assets of a store in Dagster's UI, and what each is made of."""
    with running_ui(store) as address, browser() as opened:
        page = opened.new_page(viewport={"width": 1600, "height": 1000}, device_scale_factor=2)
        page.set_default_timeout(WAIT_MS)
        page.goto(address)
        page.get_by_text("promoted_adapter", exact=True).last.wait_for()
        page.wait_for_timeout(5000)  # until nothing moves any more
        page.wait_for_function("() => !/loading|fetching/i.test(document.body.innerText)")
        boxes = [box for node in page.locator("foreignObject").all() if (box := node.bounding_box())]
        left, top = min(box["x"] for box in boxes) - MARGIN, min(box["y"] for box in boxes) - MARGIN
        right = max(box["x"] + box["width"] for box in boxes) + MARGIN
        bottom = max(box["y"] + box["height"] for box in boxes) + MARGIN
        page.screenshot(path=out, clip={"x": left, "y": top, "width": right - left, "height": bottom - top})


@contextlib.contextmanager
def running_ui(store: Path) -> Iterator[str]:
    """`nfl-lora ui` on a store and a free port, until the end of the block; the address of its lineage."""
    port = str(free_port())
    command = [sys.executable, "-m", "nfl_lora_pipeline.cli.main", "ui", "--store", str(store), "--port", port]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = (re.search(r"The UI is at (\S+);", line) for line in process.stderr)
        address = next((found[1] for found in said if found), None)
        try:
            if address is None:
                raise ValueError("nfl-lora ui has ended by itself")
            yield address
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
