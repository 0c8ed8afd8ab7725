"""Runs that keep their parts, and are read again."""

import numpy as np
from helpers import check_texts

from wgf.experiments import Parts


def run_with_parts(experiment, config, folder):
    """The result of a run, whose parts stay in a folder."""
    return experiment.run(config, parts=Parts(folder, config))


def check_read_again(experiment, result, folder):
    """The parts alone give the same result bit for bit: the arrays, the table, the figure."""
    again = experiment.run(result.config, parts=Parts(folder, result.config, only_read=True))
    found, expected = again.arrays(), result.arrays()
    assert list(found) == list(expected)
    for name, array in expected.items():
        found_array, array = np.asarray(found[name]), np.asarray(array)
        assert found_array.dtype == array.dtype, name
        np.testing.assert_array_equal(found_array, array, err_msg=name)
    assert again.table() == result.table()
    assert again.failures == result.failures == ()
    figure = again.figure()
    assert len(figure.axes) == len(result.figure().axes)
    check_texts(figure)
