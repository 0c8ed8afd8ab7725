r"""Linear attention on in-context regression: the whole training is one number, known in closed form.

Prompts have examples \( x_i \sim N(0, I_d) \), \( y_i = w^\top x_i \) with \( w \sim N(0, I_d) \). A head whose value
matrix holds v at (y, y) alone and whose \( K^\top Q \) is κ I on the inputs answers \( a\,w^\top \hat S x_q \) with
\( \hat S = \frac1N \sum_i x_i x_i^\top \) and a = c v κ. The library divides by N + 1 and by √k, hence
c = N/((N + 1) √k); arXiv:2306.09927 and arXiv:2501.16265 have c = 1.

1. \( E \hat S = I \) and \( E \hat S^2 = \frac{N + d + 1}{N} I \), because \( E |x|^2 x x^\top = (d + 2) I \). So the
   risk is \( L(a) = \frac12 E\,\mathrm{tr}(a \hat S - I)^2 = \frac d2 (1 - 2a + a^2/a^*) \), a* = N/(N + d + 1).
2. All other entries have zero gradient: a term in them is odd in w, or meets the hidden label 0.
3. Merged, U = Kᵀ Q = u I: \( \dot v = -c u L' \), \( \dot u = -c v L'/d \), so v² − d u² is constant. Balanced,
   v = √d u: \( \dot a = 2 c \sqrt d\,a (1 - a/a^*) \), a logistic curve of rate 2 c √d.
4. The same holds for the mean of M balanced heads, which keep their ratios: each has \( \dot a_j \propto a_j \).
5. Separate, K = k I, Q = q I, balanced as k = q, v = √d q: \( \dot a = 3 c^{2/3} d^{1/3} a^{4/3} (1 - a/a^*) \).
"""

import jax
import numpy as np
import pytest
from _truths import best_scale, cubic_time, logistic_scale, population_loss, regression_design
from _truths_models import linear_constant, merged_model, merged_scales, sampled_scales, split_model, split_scales
from helpers import float64_only

import wgf

pytestmark = float64_only

TAUS = np.linspace(0, 4, 9)
TIGHT = {"rtol": 1e-10, "atol": 1e-12}


def population(dim, examples):
    """Q on a finite set of prompts that has the moments of the Gaussian population."""
    tokens, labels, weights = regression_design(dim, examples)
    return wgf.Objective(wgf.prompts.Prompts(tokens, labels, label_row=dim, weights=weights))


@pytest.mark.parametrize(("dim", "examples"), [(1, 2), (2, 3), (3, 2)])
def test_the_finite_prompt_set_has_the_moments_of_the_population(dim, examples):
    tokens, labels, weights = regression_design(dim, examples)
    x, query = tokens[:, :dim, :-1], tokens[:, :dim, -1]
    second = np.einsum("bin,bjn->bij", x, x) / examples
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-14)
    np.testing.assert_allclose(np.tensordot(weights, second, 1), np.eye(dim), atol=1e-13)
    squares = np.tensordot(weights, second @ second, 1)
    np.testing.assert_allclose(squares, (examples + dim + 1) / examples * np.eye(dim), atol=1e-13)
    np.testing.assert_allclose(np.einsum("b,bi,bj->ij", weights, query, query), np.eye(dim), atol=1e-13)
    for scale in (0.0, 0.3, 1.2):
        answers = scale * np.einsum("bin,bn,bi->b", x, tokens[:, dim, :-1], query) / examples
        risk = np.sum(weights * (answers - labels) ** 2) / 2
        np.testing.assert_allclose(risk, population_loss(scale, dim, examples), rtol=1e-13)


def test_balanced_merged_heads_follow_the_logistic_curve():
    dim, examples, starts = 2, 3, np.array([0.02, 0.05, 0.11])
    solution = wgf.flow(population(dim, examples), merged_model(dim, examples, starts), TAUS, **TIGHT)
    scales = merged_scales(solution.models.measure.particles, dim, examples)[:, 0]
    truth = logistic_scale(starts.mean(), dim, examples, TAUS, linear_constant(dim, examples, dim + 1))
    np.testing.assert_allclose(scales.mean(axis=1), truth, rtol=0, atol=1e-9)
    np.testing.assert_allclose(scales / truth[:, None], np.tile(starts / starts.mean(), (9, 1)), rtol=1e-8)
    np.testing.assert_allclose(solution.risk, population_loss(truth, dim, examples), rtol=0, atol=1e-9)
    assert truth[-1] > 0.9 * best_scale(dim, examples), "the case must train"


@pytest.mark.heavy
def test_a_balanced_head_of_the_library_follows_its_own_law():
    dim, examples = 3, 2
    solution = wgf.flow(population(dim, examples), split_model(dim, examples, 0.05), TAUS, **TIGHT)
    scales = split_scales(solution.models.measure.particles, dim, examples)[:, 0, 0]
    found = cubic_time(0.05, scales, dim, examples, linear_constant(dim, examples, dim))
    np.testing.assert_allclose(found, TAUS, rtol=0, atol=1e-8)
    assert scales[-1] > 0.9 * best_scale(dim, examples), "the case must train"


@pytest.mark.slow
def test_sampled_prompts_approach_the_population_at_the_sampling_rate():
    """The library's own prompts. Their tasks are unit vectors, so E w wᵀ = I/d, and training is d times slower."""
    sizes, start, tau, counts = (2, 3), 0.05, 6.0, np.array([32, 128, 512])
    constant = linear_constant(*sizes, 3)
    truth = logistic_scale(start, *sizes, np.array([tau / sizes[0]]), constant)[0]
    keys = jax.random.split(jax.random.key(5), 24)
    scales = [sampled_scales(keys, count, counts[-1], sizes, start, tau) for count in counts]
    errors = [np.sqrt(np.mean((found - truth) ** 2)) for found in scales]
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope + 0.5) < 0.15, f"slope {slope} of errors {dict(zip(counts, errors, strict=True))}"
