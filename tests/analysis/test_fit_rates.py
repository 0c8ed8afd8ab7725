import numpy as np
import pytest

import wgf
from wgf.analysis import FORMS, fit_rates

DEPTHS, WIDTHS = (x.ravel().astype(float) for x in np.meshgrid([2, 8, 32, 128], [8, 32, 128, 512]))


def samples(gap, seeds=8, scatter=0.1, seed=0):
    """Gaps with lognormal scatter over seeds, whose root mean square is as given on average."""
    noise = np.random.default_rng(seed).normal(size=(len(gap), seeds))
    return gap[:, None] * np.exp(scatter * noise - scatter**2)


def test_exponents_are_found():
    truth = np.array([0.3, 1.0, 0.8, 0.4, 0.6])
    fit = fit_rates(DEPTHS, WIDTHS, samples(wgf.analysis._rates._curve(truth, DEPTHS, WIDTHS), scatter=1e-6))
    np.testing.assert_allclose(fit.values, truth, rtol=1e-3)
    assert fit.deviation < 1e-4
    np.testing.assert_allclose(fit(DEPTHS, WIDTHS), wgf.analysis._rates._curve(truth, DEPTHS, WIDTHS), rtol=1e-4)


@pytest.mark.slow
def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Of 5 × 40 intervals of 95 %, from 8 seeds: the bootstrap of few seeds is somewhat short."""
    truth = np.array([0.3, 1.0, 0.8, 0.4, 0.6])
    gap = wgf.analysis._rates._curve(truth, DEPTHS, WIDTHS)
    fits = [fit_rates(DEPTHS, WIDTHS, samples(gap, seed=seed), resamples=60) for seed in range(40)]
    covered = np.mean([(fit.low <= truth) & (truth <= fit.high) for fit in fits])
    assert 0.8 <= covered <= 0.99, covered


@pytest.mark.parametrize("form", FORMS)
def test_each_form_recognises_its_own_and_no_other(form):
    gap = 0.5 / DEPTHS + 0.7 * FORMS[form](DEPTHS, WIDTHS)
    verdicts = {verdict.form: verdict for verdict in fit_rates(DEPTHS, WIDTHS, samples(gap, scatter=0.03)).verdicts}
    assert {name for name, verdict in verdicts.items() if verdict.fits} == {form}, list(map(str, verdicts.values()))
    np.testing.assert_allclose([verdicts[form].a, verdicts[form].b], [0.5, 0.7], rtol=0.05)
    assert "fits" in str(verdicts[form])


def test_a_slower_form_is_told_from_a_faster_gap():
    gap = 1.0 / DEPTHS + FORMS["1/L + (L M)^(-1/2)"](DEPTHS, WIDTHS)
    first = fit_rates(DEPTHS, WIDTHS, samples(gap, scatter=0.01)).verdicts[0]
    assert first.trend < 0
    assert "falls faster" in str(first)


def test_errors_name_the_rule():
    good = np.ones((16, 3))
    with pytest.raises(ValueError, match=r"must be \[sizes\], \[sizes\] and \[sizes, seeds\]"):
        fit_rates(DEPTHS[:3], WIDTHS, good)
    with pytest.raises(ValueError, match="at least 6 sizes and 3 seeds; got"):
        fit_rates(DEPTHS, WIDTHS, good[:, :2])
    with pytest.raises(ValueError, match="`gaps` must be positive and finite"):
        fit_rates(DEPTHS, WIDTHS, 0 * good)
    with pytest.raises(ValueError, match="`resamples`"):
        fit_rates(DEPTHS, WIDTHS, good, resamples=1)
