import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import wgf
from wgf.experiments import EXPERIMENTS, LimitConfig
from wgf.experiments._settings import devices_of, settings, with_settings


def state():
    return jnp.result_type(float), jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_a_precision_and_a_device(name):
    for config in (EXPERIMENTS[name].config(), EXPERIMENTS[name].config.quick_default()):
        assert (config.x64, config.device) == (False, None)
    assert EXPERIMENTS[name].keeps_parts
    assert hasattr(EXPERIMENTS[name].run, "__wrapped__")


def test_settings_hold_inside_and_return_outside():
    with jax.enable_x64(False):
        before = state()
        with settings(LimitConfig(x64=True, device="cpu")):
            assert state() == (jnp.float64, jax.devices("cpu")[0])
        assert state() == before
        with settings(LimitConfig()):
            assert state() == before


def test_float64_of_the_caller_stays():
    with jax.enable_x64(True), settings(LimitConfig(x64=False)):
        assert jnp.result_type(float) == jnp.float64


def test_settings_return_after_an_error():
    before = state()
    with pytest.raises(KeyError), settings(LimitConfig(x64=True, device="cpu")):
        raise KeyError
    assert state() == before


def test_a_run_has_its_settings_and_keeps_its_name():
    @with_settings
    def run(config, *, scale=1.0):
        """Doc."""
        return jnp.asarray(scale)

    with jax.enable_x64(False):
        found = run(LimitConfig(x64=True, device="cpu"), scale=0.1)
    assert found.dtype == jnp.float64
    assert found.devices() == {jax.devices("cpu")[0]}
    assert (run.__name__, run.__doc__) == ("run", "Doc.")


def test_a_device_that_is_not_there_is_refused():
    kind = "tpu"
    if kind in {device.platform for device in jax.devices()}:
        kind = "gpu"
    with pytest.raises(ValueError, match=f"`device` must be available to JAX, here one of .*; got '{kind}'"):
        devices_of(kind)
    with pytest.raises(ValueError, match="`device` must be available to JAX"), settings(LimitConfig(device=kind)):
        pass


def test_a_device_goes_with_one_process():
    text = "`device` goes with a single process; got 'cpu' with `distributed`. Set JAX_PLATFORMS=cpu."
    config = LimitConfig(device="cpu", mesh="prompts=1", distributed="auto")
    with pytest.raises(ValueError, match=text), settings(config):
        pass


def test_a_config_without_these_options_changes_nothing():
    @dataclasses.dataclass
    class Bare:
        seed: int = 0

    before = state()
    with settings(Bare()):
        assert state() == before


def test_arrays_are_gathered_on_the_default_device():
    last = jax.devices()[-1]
    with jax.default_device(last):
        found = wgf.sharding.gather({"a": jnp.ones(2), "b": "text"})
    assert found["a"].devices() == {last}
    np.testing.assert_array_equal(found["a"], 1)


def test_a_mesh_is_made_of_the_devices_of_a_kind():
    devices = devices_of("cpu")[:1]
    assert list(wgf.sharding.parse_mesh("prompts=1", devices).devices.flat) == devices
