"""Names beside points, placed so that they do not overlap."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from ._style import SMALL, root_of

_LETTER, _LINE = 0.58 * SMALL, 1.25 * SMALL
"""The mean width of a letter, and the height of a line, in points."""
_SWEEPS = 4
_MARK = 4.0
"""Half the size of a point with its margin, in points."""


class Box(NamedTuple):
    """A rectangle in points of print: its left, lower, right and upper ends."""

    left: float
    low: float
    right: float
    high: float

    def overlap(self, other: "Box") -> float:
        """The area that two rectangles share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        return max(0.0, width) * max(0.0, min(self.high, other.high) - max(self.low, other.low))

    def outside(self, frame: "Box") -> float:
        """The area of this rectangle that lies outside another one."""
        return (self.right - self.left) * (self.high - self.low) - self.overlap(frame)


class Place(NamedTuple):
    """Where a name is: on the right (1) or on the left (-1) of its point, and how many lines above it."""

    side: int
    lines: float

    def box(self, point: np.ndarray, name: str) -> Box:
        """The rectangle of a name at its point."""
        x, y = point
        near, far = x + self.side * _MARK, x + self.side * (_MARK + _LETTER * len(name))
        middle = y + self.lines * _LINE
        return Box(min(near, far), middle - _LINE / 2, max(near, far), middle + _LINE / 2)


def places(points: np.ndarray, names: Sequence[str], frame: Box) -> list[Place]:
    """A place for each name: that with the least overlap, and of these the nearest to its point.

    One name after the other takes its best place among the others, several times.

    **Arguments:** the points `[count, 2]` in points of print; their names; the rectangle that they are in.
    """
    marks = [Box(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in points]
    found = [Place(1, 0)] * len(names)
    for index in [*range(len(names))] * _SWEEPS:
        others = [place.box(point, name) for place, point, name in zip(found, points, names, strict=True)]
        del others[index]
        taken = others + marks[:index] + marks[index + 1 :]

        def cost(place: Place, index: int = index, taken: list[Box] = taken) -> float:
            box = place.box(points[index], names[index])
            return sum(map(box.overlap, taken)) + box.outside(frame) + _LINE * abs(place.lines)

        found[index] = min(_candidates(), key=cost)
    return found


def _candidates() -> Iterator[Place]:
    lines = (0, *itertools.chain.from_iterable((0.5 * n, -0.5 * n) for n in range(1, 9)))
    return (Place(side, line) for line in lines for side in (1, -1))


def name_points(axes: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str], colours: Sequence[str]) -> None:
    """Write names beside points; a thin line leads from a name that is far from its point.

    The limits and the scales of the axes must be set.

    **Arguments:** the axes; x and y, `[points]` each; the name and the colour of each point.
    """
    scale = 72 / root_of(axes).dpi
    points = axes.transData.transform(np.stack([x, y], axis=1)) * scale
    frame = Box(*(np.asarray(axes.get_window_extent().extents) * scale))
    for px, py, place, name, colour in zip(x, y, places(points, names, frame), names, colours, strict=True):
        # From the near end of the name.
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "relpos": (place.side < 0, 0.5), "shrinkB": 3}
        axes.annotate(
            name,
            (px, py),
            xytext=(place.side * _MARK, place.lines * _LINE),
            textcoords="offset points",
            ha="left" if place.side > 0 else "right",
            va="center",
            fontsize=SMALL,
            color=colour,
            arrowprops=line if abs(place.lines) > 1 else None,
        )
