"""One flow or seed that fails: the others are kept, and the table says what failed."""

import dataclasses

import equinox as eqx
import numpy as np
import pytest
from helpers import check_texts

from wgf.analysis import Assumptions, Lipschitz
from wgf.experiments import (
    DecayConfig,
    DecayResult,
    HomogeneityConfig,
    HomogeneityResult,
    ImagesConfig,
    ImagesResult,
    Parts,
    RatesConfig,
    ResidualConfig,
    ResidualResult,
    decay,
    save,
)
from wgf.experiments._failures import brief, failed, first_line, in_one_line, mark, of_seeds
from wgf.experiments.decay import Rest, _run as decay_run
from wgf.experiments.homogeneity import Trial
from wgf.experiments.homogeneity._encoders import specimens
from wgf.experiments.images._result import Curves, Run
from wgf.experiments.markov import Trained
from wgf.experiments.optimisers._order import Order
from wgf.experiments.rates import RatesResult
from wgf.experiments.rates._gaps import ReferenceNoise, SeedGaps
from wgf.experiments.residual import Runs
from wgf.experiments.residual._condition import conditions_of

DRAW = np.random.default_rng(0)


def broken(array, seed=0):
    """An array `[seeds, ...]` with NaN from the middle of one seed on."""
    array = np.array(array, float)
    rows = array.reshape(len(array), -1)
    rows[seed, rows.shape[1] // 2 :] = np.nan
    return rows.reshape(array.shape)


def test_a_seed_failed_if_any_of_its_numbers_is_not_finite():
    values = np.array([[1.0, 2.0], [1.0, np.inf], [np.nan, 1.0]])
    np.testing.assert_array_equal(failed(values), [False, True, True])
    assert of_seeds("a", values) == ["a: 2 of 3 seeds failed, their numbers are not finite"]
    assert of_seeds("a", values[:1]) == []
    assert [mark(values), mark(values[:2]), mark(values[:1])] == ["failed: 2 seeds", "failed: 1 seed", ""]


def test_failures_are_one_line():
    assert in_one_line(["a: why"]) == "1 part of the run failed. a: why"
    assert in_one_line(list("abc")) == "3 parts of the run failed, the table marks them. The first one: a"
    assert [brief(text) for text in ("It broke: NaN. Do", "It broke. Do: this", "It broke.")] == 3 * ["It broke"]
    assert first_line(RuntimeError("\nwhy\nand where")) == "why"


def made_up(config, name, planted, weight_decay, taus):
    risks = weight_decay**2 * np.ones(len(taus))
    return Rest(name, planted, weight_decay, taus, risks, weight_decay, np.nan, 1e-4, -1e-2, steps=9)


@pytest.fixture
def decays(monkeypatch, tmp_path):
    """A run of eight flows, of which one fails, and how many were begun."""
    begun = []

    def solve(config, name, planted, weight_decay, taus):
        begun.append(weight_decay)
        if weight_decay == 1e-2 and not planted:
            raise eqx.EquinoxRuntimeError("The flow stopped being finite: particles are NaN.\nLong story")
        return made_up(config, name, planted, weight_decay, taus)

    monkeypatch.setattr(decay_run, "_solve", solve)
    config = dataclasses.replace(DecayConfig.quick_default(), fit=2e-2, out=tmp_path)
    return decay.run(config, parts=Parts(tmp_path, config)), begun


def test_a_flow_that_fails_has_a_row_and_the_others_go_on(decays):
    result, begun = decays
    assert len(begun) == len(result.ends) == 8
    rows = result.table().splitlines()[2:10]
    assert rows[1] == "teacher  rho_0  1.00e-02  failed: The flow stopped being finite"
    assert sum("at rest" in row for row in rows) == 7
    assert result.failures == ("teacher, rho_0, lambda = 0.01: The flow stopped being finite: particles are NaN.",)


def test_a_flow_that_failed_is_no_success_and_is_in_no_law(decays):
    result, _ = decays
    (end,) = (end for end in result.ends if end.failure)
    assert not result.is_at_rest(end)
    # The labels are fitted at 0.003 and 0.001; whether at 0.01 is unknown.
    assert result.threshold("teacher") == 3e-3
    assert "Q, slope" not in result.table()
    save("decay", result)
    with np.load(result.config.out / "result.npz") as arrays:
        assert list(arrays["failure"] != "") == [False, True] + 6 * [False]
        assert np.isnan(arrays["risks"][1]).all()


def test_a_flow_that_failed_is_kept_as_such(decays, tmp_path):
    result, begun = decays
    again = decay.run(result.config, parts=Parts(tmp_path, result.config))
    assert len(begun) == 8
    assert again.table() == result.table()
    assert again.failures == result.failures


def test_all_flows_may_fail():
    config = DecayConfig.quick_default()
    taus = np.arange(float(config.saves))
    ends = tuple(Rest.failed("teacher", p, x, taus, "why") for p in (False, True) for x in config.weight_decays)
    result = DecayResult(config, ends)
    assert len(result.failures) == 8
    assert result.threshold("teacher") == 0
    assert result.table().count("failed: why") == 8
    result.figure().canvas.draw()


@pytest.mark.slow
def test_large_weights_fail_alone():
    config = dataclasses.replace(DecayConfig.quick_default(), weight_decays=(1e-1,), scale=1e3)
    free, planted = decay.run(config).ends
    assert free.failure.startswith("The flow ran out of steps")
    assert not planted.failure
    assert planted.motion < 1e-6


def test_encoders_with_failed_flows_are_named():
    config = HomogeneityConfig.quick_default()
    found = Assumptions({"w": 1.0}, None, ("w",), 1.0, 1.0, Lipschitz(1.0, 0.0), Lipschitz(1.0, 0.0), 0.1)
    risks = [DRAW.uniform(0.1, 1, size=(2, 3)) for _ in range(2)]
    trials = tuple(
        Trial(specimen, found, risk, *DRAW.uniform(size=(2, 2)))
        for specimen, risk in zip(specimens(5, 2), (risks[0], broken(risks[1])), strict=False)
    )
    result = HomogeneityResult(config, np.arange(3.0), trials)
    assert result.failures == (f"{trials[1].label}: 1 of 2 seeds failed, their numbers are not finite",)
    check_texts(result.figure())


def test_sizes_of_images_with_failed_seeds_are_marked():
    config = dataclasses.replace(ImagesConfig.quick_default(), seeds=3)

    def curves(is_broken):
        loss = DRAW.uniform(0.1, 1, size=(3, 5))
        return Curves(broken(loss) if is_broken else loss, DRAW.uniform(size=(3, 5)))

    runs = tuple(Run(*size, curves(size == (6, 10)), curves(False)) for size in config.sizes)
    result = ImagesResult(config, (10, 5), runs)
    assert result.failures == ("6 layers of 10 heads: 1 of 3 seeds failed, their numbers are not finite",)
    marked = [line for line in result.table().splitlines() if "failed: 1 seed" in line]
    assert len(marked) == 1
    assert marked[0].split()[:2] == ["6", "10"]
    check_texts(result.figure())


def test_initialisations_of_markov_with_failed_seeds_are_marked():
    excess = DRAW.uniform(0.1, 1, size=(2, 2, 4))
    excess[1, 0, 2] = np.nan
    trained = Trained(("small", "large"), ((0.2, 0.5), (0.9, 0.9)), excess)
    assert trained.failures() == ["large, p = 0.2, q = 0.5: 1 of 4 seeds failed, their numbers are not finite"]
    cells = [[cell.endswith("failed: 1 seed") for cell in row] for row in trained.cells()]
    assert cells == [[False, False, False], [False, True, False]]
    assert trained.success[1, 0] <= 0.75


def test_the_exponent_of_an_order_is_that_of_the_seeds_that_did_not_fail():
    x = np.array([1.0, 2.0, 4.0])
    y = x[:, None] ** np.array([1.0, 1.1, 1.2])
    assert Order(x, broken(y.T).T).exponent == pytest.approx(1.15)
    assert np.isnan(Order(x, np.full((3, 3), np.nan)).exponent)
    assert np.isnan(Order(x, np.full((3, 3), np.nan)).interval)


def test_sizes_of_rates_with_failed_seeds_are_marked_and_not_fitted():
    config = dataclasses.replace(RatesConfig.quick_default(), optimisers=())
    noise = ReferenceNoise(1e-4, 1e-4, 1e-4, 1e-4)

    def gaps(size):
        values = (DRAW.uniform(0.9, 1.1, size=4) / np.sqrt(np.prod(size)) for _ in SeedGaps._fields)
        found = SeedGaps(*values)
        return SeedGaps(*map(broken, found)) if size == (16, 64) else found

    result = RatesResult(config, 0.5, {"flow": {size: gaps(size) for size in config.sizes()}}, {"flow": noise})
    (failure,) = result.failures
    assert failure == "flow, 16 x 64: 1 of 4 seeds failed, their numbers are not finite"
    marked = [line for line in result.table().splitlines() if line.endswith("failed: 1 seed")]
    assert [line.split()[:3] for line in marked] == [["flow", "16", "64"]]
    assert all(np.isfinite(fit.values).all() for fit in result.fits.values())
    assert max(map(len, result.table().splitlines())) <= 120
    check_texts(result.figure())


def test_rates_of_few_sizes_are_not_fitted():
    config = dataclasses.replace(RatesConfig.quick_default(), optimisers=())
    nothing = {size: SeedGaps(*np.full((5, 4), np.nan)) for size in config.sizes()}
    result = RatesResult(config, 0.5, {"flow": nothing}, {"flow": ReferenceNoise(1e-4, 1e-4, 1e-4, 1e-4)})
    count = len(config.grid())
    text = rf"{count} of {count} sizes have failed seeds \(flow\), and a fit needs 6 sizes without. Lower `scale`"
    with pytest.raises(eqx.EquinoxRuntimeError, match=text):
        result.table()


def test_conditions_of_residual_with_failed_seeds_are_marked():
    config = ResidualConfig(dim=4, hidden=8, lengths=(3,), temperatures=(16.0,), depths=(), seeds=4, saves=16)
    times = np.broadcast_to(np.linspace(0, 2, 16), (4, 16))

    def runs(number, condition):
        least = DRAW.uniform(0.5, 1, size=(4, 1, 1)) * np.ones((1, 16, 1))
        loss = np.exp(-20 * least[..., 0] ** 2 * times)
        loss = broken(loss) if number == 1 else loss
        return Runs(condition, times, loss, 6 * loss, np.full((4, 16), 0.5), least, 2 * least)

    result = ResidualResult(config, tuple(runs(*each) for each in enumerate(conditions_of(config))))
    name = result.runs[1].condition.name.replace("_", " ")
    assert result.failures == (f"{name}: 1 of 4 seeds failed, their numbers are not finite",)
    marked = [line.endswith("failed: 1 seed") for line in result.table().splitlines()[2:7]]
    assert marked == [False, True, False, False, False]
    assert list(result.runs[1].is_linear) == [False, True, True, True]
    check_texts(result.figure())
