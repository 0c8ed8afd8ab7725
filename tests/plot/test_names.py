"""Names beside points: rectangles, their overlaps, and the places that are chosen."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from wgf.plot._names import Box, Place, name_points, places

FRAME = Box(0.0, 0.0, 300.0, 200.0)


def test_the_overlap_is_the_area_that_is_shared():
    box = Box(0.0, 0.0, 4.0, 2.0)
    assert box.overlap(Box(3.0, 1.0, 9.0, 9.0)) == 1.0
    assert box.overlap(Box(4.0, 0.0, 5.0, 2.0)) == 0.0
    assert box.overlap(Box(-9.0, 5.0, 9.0, 9.0)) == 0.0
    assert box.outside(Box(0.0, 0.0, 1.0, 9.0)) == 6.0


def test_a_name_is_beside_its_point_on_its_side():
    right, left = (Place(side, 0).box(np.array([100.0, 50.0]), "name") for side in (1, -1))
    assert right.left > 100.0 > left.right
    assert right.right - right.left == pytest.approx(left.right - left.left)
    assert (right.low + right.high) / 2 == 50.0


def test_a_point_alone_has_its_name_on_the_right_unless_that_leaves_the_frame():
    assert places(np.array([[100.0, 100.0]]), ["name"], FRAME) == [Place(1, 0)]
    assert places(np.array([[295.0, 100.0]]), ["name"], FRAME) == [Place(-1, 0)]


def test_names_of_one_place_are_spread():
    """Points on top of each other."""
    points, names = np.full((4, 2), 100.0), ["a name", "b name", "c name", "d name"]
    boxes = [place.box(*each) for place, *each in zip(places(points, names, FRAME), points, names, strict=True)]
    assert sum(a.overlap(b) for i, a in enumerate(boxes) for b in boxes[:i]) == 0
    assert all(box.outside(FRAME) == 0 for box in boxes)


def test_a_line_leads_to_a_name_that_is_far_from_its_point():
    axes = Figure(figsize=(3, 3)).subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    x = np.full(10, 0.5)
    name_points(axes, x, x, [f"name {number}" for number in range(10)], ["black"] * 10)
    notes = [text for text in axes.texts if isinstance(text, Annotation)]
    with_line = [note for note in notes if note.arrow_patch is not None]
    assert with_line
    assert len(with_line) < 10
    assert all(abs(note.xyann[1]) > 11 for note in with_line)
