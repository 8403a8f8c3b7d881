"""Drawing a plan: as lines of text, and as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_BOX_HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 34, 56, 18, 16
_CHARACTER_WIDTH = 7.4

_ARROW_HEAD = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
    'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#64748b"/></marker></defs>'
)

Before = Mapping[str, Sequence[str]]
"""Each state with those that come before it, in an order in which they can run."""


def text_lines(before: Before) -> list[str]:
    """A line a state: what it waits for, and its place in the order."""
    width = max(map(len, before), default=0)
    return [
        f"{state.ljust(width)}  ← {', '.join(earlier)}" if earlier else state
        for state, earlier in before.items()
    ]


def svg(before: Before) -> str:
    """The plan as an SVG document: columns by how many states must come first, arrows between boxes."""
    columns: dict[str, int] = {}
    for state, earlier in before.items():
        columns[state] = max((columns[each] + 1 for each in earlier), default=0)
    width = round(max(map(len, before), default=1) * _CHARACTER_WIDTH) + 24
    rows: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    for state, column in columns.items():
        row = rows.get(column, 0)
        rows[column] = row + 1
        x = _MARGIN + column * (width + _GAP_X)
        places[state] = (x, _MARGIN + row * (_BOX_HEIGHT + _GAP_Y))
    full_width = _MARGIN * 2 + len(rows) * width + (len(rows) - 1) * _GAP_X
    full_height = _MARGIN * 2 + max(rows.values(), default=1) * (_BOX_HEIGHT + _GAP_Y) - _GAP_Y
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {full_width} {full_height}" '
        f'width="{full_width}" height="{full_height}" font-family="ui-monospace, monospace" font-size="12">'
    )
    parts = [head, _ARROW_HEAD, f'<rect width="{full_width}" height="{full_height}" fill="#ffffff"/>']
    for state, earlier in before.items():
        parts.extend(_arrow(places[each], places[state], width) for each in earlier)
    for state, (x, y) in places.items():
        parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{_BOX_HEIGHT}" rx="6" fill="#eff6ff" '
            f'stroke="#2563eb"/><text x="{x + width / 2:g}" y="{y + 21}" text-anchor="middle" '
            f'fill="#0f172a">{escape(state)}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


def _arrow(start: tuple[int, int], end: tuple[int, int], width: int) -> str:
    x1, y1 = start[0] + width, start[1] + _BOX_HEIGHT // 2
    x2, y2 = end[0], end[1] + _BOX_HEIGHT // 2
    bend = (x2 - x1) // 2
    return (
        f'<path d="M{x1} {y1} C{x1 + bend} {y1} {x2 - bend} {y2} {x2 - 1} {y2}" fill="none" '
        'stroke="#64748b" stroke-width="1.3" marker-end="url(#arrow)"/>'
    )
