"""A report as one HTML file that needs nothing else: no script, no font, no address outside of it."""

import re
from typing import Any

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --quiet: #5c5c5c; --ground: #ffffff; --line: #dcdcdc; --band: #f6f7f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e4e4; --quiet: #a8a8a8; --ground: #16181b; --line: #363a40; --band: #1f2226; }
}
body { margin: 2rem auto; max-width: 62rem; padding: 0 1.25rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1, h2, h3 { line-height: 1.25; margin: 2.2rem 0 0.8rem; }
h2 { border-bottom: 1px solid var(--line); padding-bottom: 0.3rem; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.9rem 0.35rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: break-word; }
thead:not(:has(th:not(:empty))) { display: none; }
th { color: var(--quiet); font-weight: 600; }
tbody tr:nth-child(even) { background: var(--band); }
th:first-child, td:first-child { padding-left: 0.5rem; }
blockquote { margin: 1rem 0; padding: 0.2rem 1rem; border-left: 4px solid #d98200; background: var(--band); }
img { display: block; max-width: 100%; width: 790px; height: auto; box-sizing: border-box; margin: 1rem 0; padding: 10px;
  background: #ffffff; border-radius: 6px; }
code { background: var(--band); padding: 0 0.25em; }
"""
_DATA_URI = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")


def to_html(markdown: str) -> str:
    """A whole HTML document of a report in Markdown.

    What models said is in it: tags are shown, not obeyed; there are no links, and a picture is shown only where it lies
    in the text itself.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "autolink", "reference"])
    parser.validateLink = lambda url: bool(_DATA_URI.fullmatch(url))  # type: ignore[method-assign]
    for name, rendered in (("table_open", '<div class="table"><table>\n'), ("table_close", "</table></div>\n")):
        parser.add_render_rule(name, _always(rendered))
    title = markdown.partition("\n")[0].lstrip("# ")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escaped(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{parser.render(markdown)}</body>\n</html>\n"
    )


def _always(text: str) -> Any:
    return lambda *of_the_renderer: text


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
