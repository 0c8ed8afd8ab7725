import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from kept import check_read_again, run_with_parts
from matplotlib.image import imread

import wgf
from wgf.experiments import DecayConfig, decay
from wgf.experiments._results import save
from wgf.experiments.decay._result import DecayResult, Rest

TINY = DecayConfig(
    data=("teacher",),
    weight_decays=(1e-1, 1e-2, 3e-3, 1e-3),
    batch=4,
    examples=2,
    depth=2,
    width=16,
    small=2e-2,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The results folder of the tiny job."""
    return tmp_path_factory.mktemp("decay")


@pytest.fixture(scope="module")
def result(place):
    """One run of the tiny job."""
    return run_with_parts(decay, TINY, place)


def drawn_end(weight_decay, planted, gap):
    """The end of a flow that nothing has computed."""
    taus = np.linspace(0, 1, 3)
    return Rest("teacher", planted, weight_decay, taus, np.full(3, weight_decay), weight_decay, np.nan, 1e-4, gap, 10)


def test_a_certificate_that_is_too_small_for_its_axis_is_drawn_at_the_end_and_said_so():
    gaps = {1e-1: -1e-9, 1e-2: 1e-3, 1e-3: -0.2}
    ends = tuple(drawn_end(decay, planted, gap) for planted in (False, True) for decay, gap in gaps.items())
    axes = DecayResult(dataclasses.replace(TINY, weight_decays=tuple(gaps)), ends).figure().axes[2]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[1e-1, 1e-6], [1e-2, 1e-6], [1e-3, 0.2]])
    assert axes.get_ylabel() == "−gap / Q (smaller ones drawn at 1e-6)"


@pytest.mark.slow
def test_a_run_is_read_again_from_its_parts(result, place):
    check_read_again(decay, result, place)


@pytest.mark.slow
def test_flows_come_to_rest_below_the_teachers_bound(result):
    ends = result.find("teacher")
    assert [end.weight_decay for end in ends] == list(TINY.weight_decays)
    for end in ends:
        assert result.is_at_rest(end), end
        # The teacher fits all labels, so its Q is an upper bound of the minimum.
        assert 0 < end.objective < end.bound
        assert end.risks[-1] < end.risks[0]


@pytest.mark.slow
def test_the_risk_falls_at_least_in_proportion_to_the_weight_decay(result):
    risk, objective = result.laws("teacher")
    assert risk.slope > 1.2
    assert objective.slope == pytest.approx(1, abs=0.2)


@pytest.mark.slow
def test_labels_are_fitted_below_a_threshold(result):
    risks = {end.weight_decay: end.risks[-1] for end in result.find("teacher")}
    assert result.threshold("teacher") == max(decay for decay, risk in risks.items() if risk <= result.config.fit)
    assert dataclasses.replace(result, config=dataclasses.replace(TINY, fit=0.0)).threshold("teacher") == 0
    assert dataclasses.replace(result, config=dataclasses.replace(TINY, fit=2.0)).threshold("teacher") == 1e-1


@pytest.mark.slow
def test_a_stationary_objective_obeys_its_envelope(result):
    """Along stationary points dQ/dλ = ½ E‖θ‖², so Q rises with λ by less than Q/λ times its step."""
    ends = sorted(result.find("teacher"), key=lambda end: end.weight_decay)
    for low, high in pairwise(ends):
        slope = (high.objective - low.objective) / (high.weight_decay - low.weight_decay)
        assert 0 < slope < low.objective / low.weight_decay


def mean_tokens(prompts):
    return np.asarray(prompts.tokens, float).mean(-1)


def least_linear_risk(prompts):
    """The least risk of a model that is linear in the mean token, as a share of the null model's."""
    features, labels = mean_tokens(prompts), np.asarray(prompts.labels, float)
    fitted = features @ np.linalg.lstsq(features, labels)[0]
    return np.mean((labels - fitted) ** 2) / np.mean(labels**2)


@pytest.mark.slow
def test_the_planted_point_is_at_rest_and_exposed(result):
    """The best linear model holds it up: no weight decay leads below its risk, and the smallest one close to it."""
    least = least_linear_risk(decay.load(TINY, "teacher")[0])
    for end in result.find("teacher", planted=True)[1:]:
        assert result.is_at_rest(end)
        assert end.risks[-1] > least
        assert end.gap < -1
    free, planted = (result.find("teacher", planted=planted)[-1].risks[-1] for planted in (False, True))
    assert planted < 1.5 * least
    assert planted > 20 * free
    assert least > 20 * free


def test_the_planted_model_is_linear_in_the_mean_token():
    """Where attention is uniform and no neuron acts, every layer adds one linear map of the mean token."""
    prompts, _ = decay.load(dataclasses.replace(TINY, batch=8), "synthetic")
    planted, free = (wgf.Objective(prompts).outputs(decay.start(TINY, prompts, planted=p)) for p in (True, False))
    features = mean_tokens(prompts)
    np.testing.assert_allclose(features @ np.linalg.lstsq(features, planted)[0], planted, atol=1e-12)
    assert np.max(np.abs(features @ np.linalg.lstsq(features, free)[0] - free)) > 1e-2


def test_the_flow_does_not_leave_the_planted_subspace():
    prompts, _ = decay.load(TINY, "synthetic")
    model = decay.start(TINY, prompts, planted=True)
    speed = wgf.velocity(wgf.Objective(prompts, 1e-3), model)
    assert all(not np.any(leaf) for leaf in (speed.f.key, speed.f.query, *speed.h))
    assert np.all(speed.f.value != 0)


def test_the_teacher_fits_its_labels_and_shuffling_keeps_them():
    prompts, teacher = decay.load(TINY, "teacher")
    assert teacher is not None
    assert wgf.Objective(prompts).risk(teacher) == 0
    plain, shuffled = (decay.load(TINY, name)[0] for name in ("synthetic", "shuffled"))
    np.testing.assert_array_equal(plain.tokens, shuffled.tokens)
    np.testing.assert_array_equal(np.sort(plain.labels), np.sort(shuffled.labels))
    assert np.any(plain.labels != shuffled.labels)
    assert decay.load(TINY, "diabetes")[0].tokens.shape == plain.tokens.shape


@pytest.mark.slow
def test_the_table_fits_a_terminal_and_says_what_was_stopped(result):
    lines = result.table().splitlines()
    assert max(map(len, lines)) <= 120
    assert sum(line.startswith("teacher ") and "at rest" in line for line in lines) == sum(
        map(result.is_at_rest, result.ends)
    )
    moving = dataclasses.replace(result.ends[0], motion=1.0)
    assert "stopped" in dataclasses.replace(result, ends=(moving, *result.ends[1:])).table().splitlines()[2]


@pytest.mark.slow
def test_the_folder_holds_the_picture_and_every_flow(result, tmp_path):
    folder = save("decay", dataclasses.replace(result, config=dataclasses.replace(TINY, out=tmp_path)))
    image = imread(folder / "decay.png")
    assert image.shape[0] > 500
    assert image[..., :3].std() > 0.05
    with np.load(folder / "result.npz") as arrays:
        assert arrays["risks"].shape == (8, TINY.saves)
        assert list(arrays["planted"]) == 4 * [False] + 4 * [True]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"data": ()}, "`data` must be at least one of .*; got"),
        ({"data": ("images",)}, r"`data` must be at least one of \('synthetic'.*got \('images',\)"),
        ({"weight_decays": ()}, "`weight_decays` must be at least one positive number; got"),
        ({"weight_decays": (0.0,)}, r"`weight_decays` must be at least one positive number; got \(0\.0,\)"),
        ({"depth": 0}, "`depth` must be a whole number of at least 1; got 0"),
        ({"saves": 3}, "`saves` must be a whole number of at least 4; got 3"),
        ({"horizon": 1.0}, "`horizon` must be above 1, in units of 1 / lambda; got 1.0"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_before_anything_runs(options, text):
    with pytest.raises(ValueError, match=text):
        decay.run(dataclasses.replace(TINY, **options))
