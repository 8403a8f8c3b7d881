"""A plan as a picture."""

from __future__ import annotations

from xml.etree import ElementTree

from perdure.cli.graph import svg, text_lines

SHOP = {"price": [], "shelf": [], "courier": ["shelf"], "receipt": ["price", "courier"], "<odd>": []}


def test_boxes_and_arrows() -> None:
    """All states, all dependencies, and an arrow over two columns that passes beside the box between."""
    root = ElementTree.fromstring(svg(SHOP))
    name = "{http://www.w3.org/2000/svg}"
    boxes = root.findall(f"{name}rect")[1:]
    texts = [each.text for each in root.findall(f"{name}text")]
    assert texts == list(SHOP)
    corners = {
        text: (int(box.get("x", "")), int(box.get("y", ""))) for text, box in zip(texts, boxes, strict=True)
    }
    assert len(set(corners.values())) == len(SHOP)
    columns = [corners[state][0] for state in ("price", "courier", "receipt")]
    assert columns == sorted(set(columns))
    arrows = [each.get("d", "") for each in root.findall(f"{name}path")]
    assert len(arrows) == 3
    (long,) = (each for each in arrows if "H" in each)
    height = int(long.split("H")[0].split()[-1])
    top = corners["courier"][1]
    assert not top <= height <= top + int(boxes[0].get("height", ""))


def test_nothing_is_an_empty_picture() -> None:
    """And no lines."""
    assert ElementTree.fromstring(svg({})).tag.endswith("svg")
    assert text_lines({}) == []
