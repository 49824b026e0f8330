"""HTML in which notebooks show levels, tickets and studies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table_html(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table under a title; all texts are escaped.

    >>> table_html("a < b", ["name"], [["x"]])
    '<p><b>a &lt; b</b></p><table><tr><th>name</th></tr><tr><td>x</td></tr></table>'
    """
    lines = [("th", columns), *(("td", row) for row in rows)]
    cells = ("".join(f"<{tag}>{escape(text)}</{tag}>" for text in line) for tag, line in lines)
    body = "".join(f"<tr>{line}</tr>" for line in cells)
    return f"<p><b>{escape(title)}</b></p><table>{body}</table>"
