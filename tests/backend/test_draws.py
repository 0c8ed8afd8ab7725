"""Numbers that are drawn as a vector are those of the array."""

import jax
import numpy as np
import pytest

from wgf._backend.draws import draw_flat


@pytest.mark.parametrize("law", [jax.random.normal, jax.random.uniform])
@pytest.mark.parametrize("shape", [(), (3,), (4, 5), (2, 3, 7)])
@pytest.mark.parametrize("partitionable", [False, True])
def test_a_vector_holds_the_numbers_of_the_array(law, shape, partitionable, key):
    with jax.threefry_partitionable(partitionable):
        np.testing.assert_array_equal(draw_flat(law, key, shape), law(key, shape))
