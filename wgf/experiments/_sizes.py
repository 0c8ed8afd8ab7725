"""Which finite models share a program."""

from collections.abc import Sequence

Size = tuple[int, int]


def together(sizes: Sequence[Size], most_free: int) -> list[tuple[Size, ...]]:
    """Sizes that share a program: those which fit into another's shape and leave few of its places free.

    **Arguments:** pairs of depth and width; the most places that may stay free, those that take no longer to move than
    another program to compile. **Returns:** groups, the largest size, whose shape all of it take, first.
    """
    shapes: dict[Size, list[Size]] = {}
    for size in sorted(sizes, key=lambda size: (size[0] * size[1], size), reverse=True):
        fits = (
            shape
            for shape in shapes
            if size[0] <= shape[0] and size[1] <= shape[1] and shape[0] * shape[1] - size[0] * size[1] <= most_free
        )
        shapes.setdefault(min(fits, key=lambda shape: shape[0] * shape[1], default=size), []).append(size)
    return [tuple(members) for members in shapes.values()]
