"""Tables of an HTML page as text."""

from html.parser import HTMLParser


class _Rows(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[dict[str, str | None], list[str]]] = []
        self.in_cell = False

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append((dict(attrs), []))
        elif tag in ("th", "td"):
            self.in_cell = True
            self.rows[-1][1].append("")

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self.in_cell = False

    def handle_data(self, data):
        if self.in_cell:
            self.rows[-1][1][-1] += f" {data}"


def rows(text: str, attribute: str = "") -> list[list[str]]:
    """Texts of the cells of each row that has an attribute; words are apart by one space."""
    parsed = _Rows()
    parsed.feed(text)
    return [
        [" ".join(cell.split()) for cell in cells]
        for attributes, cells in parsed.rows
        if not attribute or attribute in attributes
    ]
