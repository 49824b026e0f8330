"""SVG of a figure: small, to be inlined in a page, with the values as hover texts.

Text stays text in the page's font, so that it can be searched and copied.
"""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from matplotlib import rc_context

from lth_core.analysis.cells import evenly_spaced
from tracking.figures.drawing.study_figure import StudyFigure

SVG, XLINK = "http://www.w3.org/2000/svg", "{http://www.w3.org/1999/xlink}href"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
MOST_HOVERS = 1500
"""Largest number of hover texts in a figure; of more values, every second, third ... has one."""
RADIUS = 7
"""Radius of the area of a hover text, in points."""
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
UNTURNED = re.compile(r"^rotate\(-?0 [-\d. ]*\)$")
LONG = re.compile(r"-?\d+\.\d{3,}")
GEOMETRY = ("d", "x", "y", "width", "height", "transform")

ElementTree.register_namespace("", SVG)


def svg_text(figure: StudyFigure, name: str, title: str) -> str:
    """SVG element of a figure; equal figures give equal text.

    Args:
        name: makes the identifiers in it unique among a page's figures.
        title: its accessible name; the figure's caption is its description.
    """
    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(NOT_XML.sub("\N{REPLACEMENT CHARACTER}", file.getvalue()))
    for child in [root.find(f"{{{SVG}}}{tag}") for tag in ("metadata", "defs")]:
        assert child is not None  # matplotlib's rights and its style, which would style the page
        root.remove(child)
    _shorten(root)
    paper = next(root.iter(f"{{{SVG}}}path"))
    paper.attrib = {"class": "paper", "fill": "#fff", "d": paper.attrib["d"]}
    root.attrib |= {
        "role": "img", "aria-label": _xml(title), "font-family": FONT, "stroke-linejoin": "round",
    }  # fmt: skip
    description = Element(f"{{{SVG}}}desc")
    description.text = _xml(figure.caption)
    root.insert(0, description)
    _add_hovers(root, figure)
    return ElementTree.tostring(root, "unicode")


def _shorten(parent: Element) -> None:
    """Remove names that other figures have too, groups that say nothing, and digits."""
    children = []
    for child in parent:
        _shorten(child)
        child.tail = None
        bare = child.tag == f"{{{SVG}}}g" and not child.attrib
        children += list(child) if bare else [child]
    parent[:] = children
    if not (parent.text or "").strip():
        parent.text = None
    if parent.tag == f"{{{SVG}}}g":
        parent.attrib.pop("id", None)
    if XLINK in parent.attrib:
        parent.attrib["href"] = parent.attrib.pop(XLINK)
    for key in GEOMETRY:
        if key in parent.attrib:
            value = LONG.sub(lambda number: f"{float(number[0]):.2f}", parent.attrib[key])
            parent.attrib[key] = " ".join(value.split())
    if UNTURNED.match(parent.attrib.get("transform", "")):
        del parent.attrib["transform"]
    if "style" in parent.attrib:
        styles = (style.strip().replace(": ", ":") for style in parent.attrib["style"].split(";"))
        parent.attrib["style"] = ";".join(s for s in styles if not s.startswith("font-family"))


def _add_hovers(root: Element, figure: StudyFigure) -> None:
    """Add an invisible circle with a title to each value, above all that is drawn."""
    areas = SubElement(root, f"{{{SVG}}}g", {"class": "hovers", "fill": "none"})
    areas.attrib["pointer-events"] = "all"
    points_per_pixel, height = 72 / figure.dpi, 72 * figure.get_size_inches()[1]
    for drawn in evenly_spaced(figure.values, MOST_HOVERS):
        x, y = points_per_pixel * drawn.panel.transData.transform(drawn.place)
        place = {"cx": f"{x:.1f}", "cy": f"{height - y:.1f}", "r": f"{RADIUS}"}
        area = SubElement(areas, f"{{{SVG}}}circle", place)
        SubElement(area, f"{{{SVG}}}title").text = _xml(figure.hover_text(drawn))


def _xml(text: str) -> str:
    """Text without the characters that XML forbids."""
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
