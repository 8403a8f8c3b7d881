"""Drawing a plan: as lines of text, and as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

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
    """The plan as an SVG document: columns by how many states must come first, arrows between boxes.

    An arrow over several columns has a place of its own in each, so that it passes no box from behind.
    """
    columns: dict[str, int] = {}
    for state, earlier in before.items():
        columns[state] = max((columns[each] + 1 for each in earlier), default=0)
    ways = {
        (first, then): [
            (columns[first], first),
            *((column, f"{first} {then}") for column in range(columns[first] + 1, columns[then])),
            (columns[then], then),
        ]
        for then, earlier in before.items()
        for first in earlier
    }
    rows = _rows(columns, ways)
    width = round(max(map(len, before), default=1) * _CHARACTER_WIDTH) + 24

    def place(column: int, name: str) -> tuple[int, int]:
        return (
            _MARGIN + column * (width + _GAP_X),
            _MARGIN + rows[column, name] * (_BOX_HEIGHT + _GAP_Y) + _BOX_HEIGHT // 2,
        )

    full_width = _MARGIN * 2 + (max(columns.values(), default=0) + 1) * (width + _GAP_X) - _GAP_X
    full_height = _MARGIN * 2 + (max(rows.values(), default=0) + 1) * (_BOX_HEIGHT + _GAP_Y) - _GAP_Y
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {full_width} {full_height}" '
        f'width="{full_width}" height="{full_height}" font-family="ui-monospace, monospace" font-size="12">'
    )
    parts = [head, _ARROW_HEAD, f'<rect width="{full_width}" height="{full_height}" fill="#ffffff"/>']
    parts += [_arrow([place(*point) for point in way], width) for way in ways.values()]
    for state, column in columns.items():
        x, y = place(column, state)
        parts.append(
            f'<rect x="{x}" y="{y - _BOX_HEIGHT // 2}" width="{width}" height="{_BOX_HEIGHT}" rx="6" '
            f'fill="#eff6ff" stroke="#2563eb"/><text x="{x + width / 2:g}" y="{y + 4}" '
            f'text-anchor="middle" fill="#0f172a">{escape(state)}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


def _rows(
    columns: Mapping[str, int], ways: Mapping[tuple[str, str], Sequence[tuple[int, str]]]
) -> dict[tuple[int, str], int]:
    """The row of each box, and of each arrow that passes a column: near those it comes from."""
    sources: dict[tuple[int, str], list[tuple[int, str]]] = {
        (column, state): [] for state, column in columns.items()
    }
    for way in ways.values():
        for before, after in pairwise(way):
            sources.setdefault(after, []).append(before)
    rows: dict[tuple[int, str], int] = {}
    for column in range(max(columns.values(), default=-1) + 1):
        here = [point for point in sources if point[0] == column]
        heights = {
            point: sum(rows[each] for each in sources[point]) / max(1, len(sources[point])) for point in here
        }
        ordered = sorted(here, key=heights.__getitem__)
        rows |= {point: row for row, point in enumerate(ordered)}
    return rows


def _arrow(points: Sequence[tuple[int, int]], width: int) -> str:
    x, y = points[0][0] + width, points[0][1]
    path = [f"M{x} {y}"]
    for number, (x2, y2) in enumerate(points[1:], 2):
        bend = (x2 - x) // 2
        end = x2 - 1 if number == len(points) else x2
        path.append(f"C{x + bend} {y} {x2 - bend} {y2} {end} {y2}")
        if number < len(points):
            path.append(f"H{x2 + width}")
        x, y = x2 + width, y2
    style = 'fill="none" stroke="#64748b" stroke-width="1.3" marker-end="url(#arrow)"'
    return f'<path d="{" ".join(path)}" {style}/>'
