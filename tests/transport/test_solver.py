"""The solver that is one of OTT's."""

import jax
import numpy as np
from helpers import bound, promotion
from ott.geometry.pointcloud import PointCloud
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn

from wgf.transport._geometry import GibbsPointCloud
from wgf.transport._solver import GibbsSinkhorn

EPSILON, TIGHT, CLOSE = 0.5, bound(1e-8, 1e-5), bound(1e-6, 1e-4)


def test_our_solver_solves_a_problem_of_ott_from_any_start(problem):
    x, y, a, b = problem
    geom = GibbsPointCloud(x, y, epsilon=EPSILON)
    solver, question = GibbsSinkhorn(TIGHT), LinearProblem(geom, a, b)
    cold = solver(question)
    warm = solver(question, cold.potentials)
    with promotion():
        theirs = Sinkhorn(threshold=TIGHT, max_iterations=20000)(LinearProblem(PointCloud(x, y, epsilon=EPSILON), a, b))
    np.testing.assert_allclose(cold.reg_ot_cost, theirs.reg_ot_cost, rtol=CLOSE)
    np.testing.assert_allclose(cold.matrix, theirs.matrix, atol=CLOSE)
    assert int(warm.n_iters) < int(cold.n_iters)
    leaves, structure = jax.tree.flatten(solver)
    again = jax.tree.unflatten(structure, leaves)
    assert (again.threshold, again.most, again.max_iterations, again.of_self) == (TIGHT, 2000, 2000, False)
