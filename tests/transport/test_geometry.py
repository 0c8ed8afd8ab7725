"""The point cloud that is a geometry for OTT."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, promotion
from ott.geometry.pointcloud import PointCloud
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn

from wgf.transport._geometry import GibbsPointCloud

EPSILON, TIGHT, CLOSE = 0.5, bound(1e-8, 1e-5), bound(1e-6, 1e-4)


@pytest.mark.heavy
def test_our_geometry_is_a_geometry_for_ott(problem):
    """Any method that OTT's outputs call, whole and in blocks, has the numbers of a plain point cloud."""
    x, y, a, b = problem
    f, g, vectors = jnp.sin(x[:, 0]), jnp.cos(y[:, 0]), {0: jnp.sin(3 * x[:, 1]), 1: jnp.cos(2 * y[:, 1])}
    plain = PointCloud(x, y, epsilon=EPSILON)
    with promotion():
        for batch_size in (None, 4, 100):
            ours = GibbsPointCloud(x, y, epsilon=EPSILON, batch_size=batch_size)
            np.testing.assert_allclose(ours.cost_matrix, plain.cost_matrix, rtol=CLOSE, atol=CLOSE)
            for axis in (0, 1):
                for vec in (None, vectors[axis]):
                    log, sign = ours.apply_lse_kernel(f, g, 0.7, vec, axis)
                    other, other_sign = plain.apply_lse_kernel(f, g, 0.7, vec, axis)
                    np.testing.assert_allclose(log, other, rtol=10 * CLOSE, atol=CLOSE)
                    np.testing.assert_array_equal(sign, jnp.broadcast_to(other_sign, sign.shape))
                expected = plain.apply_transport_from_potentials(f, g, vectors[axis], axis)
                found = ours.apply_transport_from_potentials(f, g, vectors[axis], axis)
                np.testing.assert_allclose(found, expected, rtol=10 * CLOSE, atol=CLOSE)
            theirs = Sinkhorn(threshold=TIGHT)(LinearProblem(ours, a, b))
            np.testing.assert_allclose(theirs.matrix.sum(1), a, atol=10 * TIGHT)
