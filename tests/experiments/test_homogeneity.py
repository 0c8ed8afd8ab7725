import dataclasses
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix
from kept import check_read_again, run_with_parts
from matplotlib.image import imread

import wgf
from wgf.experiments import HomogeneityConfig, homogeneity
from wgf.experiments._results import save
from wgf.experiments.homogeneity import CLASSES, Correlation
from wgf.experiments.homogeneity._encoders import BoundedNeuron, specimens
from wgf.experiments.homogeneity._trial import action, relative_excess

TINY = HomogeneityConfig(
    encoders=("neuron ReLU", "neuron tanh", "neuron bounded tanh"),
    batch=4,
    examples=2,
    depth=1,
    width=16,
    horizon=20.0,
    windows=80,
    saves=4,
    seeds=2,
    samples=32,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The results folder of the tiny job."""
    return tmp_path_factory.mktemp("homogeneity")


@pytest.fixture(scope="module")
def result(place):
    """One run of the tiny job."""
    return run_with_parts(homogeneity, TINY, place)


@pytest.mark.slow
def test_a_run_is_read_again_from_its_parts(result, place):
    check_read_again(homogeneity, result, place)


@pytest.mark.slow
def test_encoders_are_classed_by_what_was_measured(result):
    assert tuple(trial.homogeneity for trial in result.trials) == CLASSES
    relu, tanh, bounded = (trial.assumptions for trial in result.trials)
    assert relu.homogeneity == {"w_in": 1.0, "w_out": 1.0}
    assert tanh.partial == ("w_out",)
    assert set(bounded.homogeneity.values()) == {None}


@pytest.mark.slow
def test_the_flows_learn_and_keep_their_energy(result):
    for trial in result.trials:
        assert trial.finished.all()
        assert np.all(trial.final < trial.risk[:, 0])
        assert trial.violation.max() < 0.02
    # With smooth gradients, the dissipation also equals the fall of Q. With ReLU, steps jump across the kinks.
    relu, *smooth = result.trials
    assert all(np.abs(trial.excess).max() < 0.02 for trial in smooth)
    assert relu.excess.max() > 2 * relu.violation.max()


@pytest.mark.heavy
def test_a_flow_along_a_kink_falls_as_it_moves_not_as_its_velocities_say():
    """For Q = |x| + y, steps jump across x = 0 at speed 1, and y falls at speed 1. Q falls as y; ∫|v|² counts both."""
    model = wgf.Transformer(Matrix(2), wgf.measures.Layered(jnp.array([[[[0.02, 0.0], [0.0, 0.0]]]])))

    def valley(model):
        (x, y), _ = model.measure.particles[0, 0]
        return jnp.abs(x) + y

    options = {"solver": diffrax.Heun(), "controller": diffrax.ConstantStepSize(), "dt0": 0.03}
    solution = wgf.flow(valley, model, jnp.linspace(0, 6, 13), **options)
    assert abs(relative_excess(solution, action(solution))) < 0.01
    assert relative_excess(solution, float(solution.dissipated[-1])) > 0.9


@pytest.mark.slow
def test_the_table_has_a_line_for_each_encoder_and_fits_a_terminal(result):
    lines = result.table().splitlines()
    assert max(map(len, lines)) <= 120
    for trial in result.trials:
        assert sum(line.startswith(f"{trial.specimen.name} ") for line in lines) == 1


@pytest.mark.slow
def test_the_folder_holds_the_picture_and_every_curve(result, tmp_path):
    folder = save("homogeneity", dataclasses.replace(result, config=dataclasses.replace(TINY, out=tmp_path)))
    image = imread(folder / "homogeneity.png")
    assert image.shape[0] > 700
    assert image[..., :3].std() > 0.05
    with np.load(folder / "result.npz") as arrays:
        assert arrays["risk"].shape == (3, 2, 4)
        assert list(arrays["classes"]) == list(CLASSES)


@pytest.mark.slow
def test_a_failed_flow_has_no_risk_and_counts_as_infinite(result):
    trial = result.trials[0]
    failed = dataclasses.replace(trial, risk=np.full_like(trial.risk, np.nan))
    assert not failed.finished.any()
    assert failed.median == np.inf
    lost = dataclasses.replace(result, trials=(failed, *result.trials[1:]))
    (line,) = (line for line in lost.table().splitlines() if line.startswith("ReLU "))
    assert line.endswith("x2")


def test_the_encoders_match_their_names():
    """Every encoder acts on a prompt; names are distinct; masks and kernels match their names."""
    known: dict[str, Any] = {f"{s.group} {s.name}": s.encoder for s in specimens(5, 2)}
    assert len(known) == len(specimens(5, 2)) == 21
    for name, encoder in known.items():
        draw = lambda key, encoder=encoder: encoder(encoder.sample(key, ()), jnp.ones((5, 4)))  # noqa: E731
        assert jax.eval_shape(draw, jax.random.key(1)).shape == (5, 4), name
    assert known["block local"].f.mask == wgf.encoders.Banded(1)
    assert known["head Gaussian"].kernel is wgf.encoders.gaussian_kernel


def test_the_bounded_neuron_is_its_formula_and_odd():
    encoder = BoundedNeuron(3)
    neuron = encoder.sample(jax.random.key(2), ())
    tokens = jax.random.normal(jax.random.key(3), (3, 4))
    expected = np.outer(np.tanh(neuron.w_out), np.tanh(np.asarray(neuron.w_in) @ np.asarray(tokens)))
    np.testing.assert_allclose(encoder(neuron, tokens), expected, rtol=1e-12)
    np.testing.assert_allclose(encoder(encoder.reflect(neuron), tokens), -expected, rtol=1e-12)


def test_a_rank_correlation_sees_order_alone():
    rising = Correlation.of("x", [1.0, 2.0, 5.0, 9.0, 11.0, 12.0], [0.1, 0.3, 0.4, 2.0, 50.0, np.inf])
    assert rising.value == pytest.approx(1)
    assert rising.p_value < 0.02
    assert "6 encoders" in str(rising)
    mixed = Correlation.of("x", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [3.0, 1.0, 4.0, 1.0, 5.0, 2.0])
    assert mixed.p_value > 0.2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"seeds": 0}, "`seeds` must be a whole number of at least 1; got 0"),
        ({"saves": 1}, "`saves` must be a whole number of at least 2; got 1"),
        ({"windows": 0}, "`windows` must be a whole number of at least 1; got 0"),
        (
            {"encoders": ("neuron Relu",)},
            r"`encoders` must be of \['block LayerNorm'.*got the unknown \['neuron Relu'\]",
        ),
        ({"data": "none.csv"}, "`data` must be 'synthetic', 'diabetes' or a CSV file that exists"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_before_anything_runs(options, text):
    with pytest.raises(ValueError, match=text):
        homogeneity.run(dataclasses.replace(TINY, **options))
