"""Runs that keep their parts, and are read again."""

import dataclasses

import numpy as np
from helpers import check_texts

from wgf.experiments import Parts, load, save


class FinishedParts(Parts):
    """The parts of a finished run: none is computed."""

    def part(self, name, compute, **options):
        def refused():
            raise AssertionError(f"the part {name!r} is computed anew")

        return super().part(name, refused, **options)


def run_with_parts(experiment, config, folder):
    """The result of a run, whose parts stay in a folder."""
    return experiment.run(config, parts=Parts(folder, config))


def check_read_again(experiment, result, folder):
    """The parts alone, and `result.npz` alone, give the same result bit for bit: the arrays, the table, the figure."""
    check_same(experiment.run(result.config, parts=FinishedParts(folder, result.config)), result)
    place = folder / "saved"
    save("name", dataclasses.replace(result, config=dataclasses.replace(result.config, out=place)))
    for other in ("config.json", "name.png", "table.txt"):
        (place / other).unlink()
    found = load(place)
    check_same(found, result)
    assert len(repr(found)) < 80


def check_same(found, result):
    """Two results are the same bit for bit, and the figure of the first can be read."""
    arrays, expected = found.arrays(), result.arrays()
    assert list(arrays) == list(expected)
    for name, array in expected.items():
        found_array, array = np.asarray(arrays[name]), np.asarray(array)
        assert found_array.dtype == array.dtype, name
        np.testing.assert_array_equal(found_array, array, err_msg=name)
    assert found.table() == result.table()
    assert found.failures == result.failures == ()
    figure = found.figure()
    assert len(figure.axes) == len(result.figure().axes)
    check_texts(figure)
