"""Finite models of several sizes in groups that share one compiled program."""

from collections.abc import Sequence

from ..flows._many import Size, shared_shapes


def group_by_compile_cost(sizes: Sequence[Size], max_free: int) -> list[tuple[Size, ...]]:
    """Group sizes whose models are padded to one shape, so that one program is compiled per group.

    A size joins a group if it fits into the group's shape and leaves at most `max_free` places of that shape free.
    Computing with free places costs run time; another program costs compile time.

    **Arguments:**

    - `sizes`: pairs of depth and width.
    - `max_free`: the number of free places whose run time equals the compile time of one program.

    **Returns:** the groups. The first size of each group is its largest, the shape of the group.
    """
    shapes = shared_shapes(sizes, [None] * len(sizes), max_free)
    groups: dict[Size, list[Size]] = {}
    for shape, size in sorted(zip(shapes, sizes, strict=True), key=lambda pair: _order(pair[1]), reverse=True):
        groups.setdefault(shape, []).append(size)
    return [tuple(members) for members in groups.values()]


def _order(size: Size) -> tuple[int, Size]:
    return size[0] * size[1], size
