import numpy as np
import pytest

from wgf.analysis import linear_rate

TIMES = np.linspace(0, 3, 61)


def test_the_rate_of_an_exponential_is_its_own():
    fit = linear_rate(TIMES, 5 * np.exp(-7 * TIMES))
    assert fit.rate == pytest.approx(7)
    assert fit.r_squared == pytest.approx(1)
    assert fit.fallen == pytest.approx(21 / np.log(10))
    assert 3.5 <= fit.span <= 4.5
    # From the first decade to the fifth.
    np.testing.assert_allclose(TIMES[list(fit.window)], np.log(10) / 7 * np.array([1, 5]), atol=0.05)


def test_a_transient_is_left_out():
    losses = np.exp(-4 * TIMES) + 30 * np.exp(-60 * TIMES)
    assert linear_rate(TIMES, losses, transient=2.0).rate == pytest.approx(4, rel=0.02)
    assert linear_rate(TIMES, losses, transient=0.0).rate > 4.3


@pytest.mark.parametrize("losses", [1 + np.exp(-TIMES), 1 / (1 + TIMES) ** 0.5])
def test_a_stalled_loss_is_fitted_over_its_later_half(losses):
    fit = linear_rate(TIMES, losses)
    assert fit.window == (30, 60)
    assert fit.span < 0.3
    assert fit.fallen == pytest.approx(np.log10(losses[0] / losses[-1]))
    half = np.polyfit(TIMES[30:], np.log(losses[30:]), 1)[0]
    assert fit.rate == pytest.approx(-half)


def test_a_power_law_is_not_straight():
    assert linear_rate(TIMES, (1 + 100 * TIMES) ** -3.0, transient=0.0).r_squared < 0.95


@pytest.mark.parametrize("losses", [np.ones(2), np.array([1.0, 0.0, 1.0]), np.array([1.0, np.nan, 1.0])])
def test_losses_without_a_logarithm_are_refused(losses):
    with pytest.raises(ValueError, match="`losses` must be at least three positive finite numbers"):
        linear_rate(np.arange(len(losses)), losses)


@pytest.mark.parametrize("count", [3, 4, 5])
def test_the_fit_has_three_points_at_least(count):
    first, last = linear_rate(np.arange(count), 10.0 ** -np.arange(0, 6 * count, 6)).window
    assert last - first >= 2
