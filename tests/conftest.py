import jax
import matplotlib as mpl
import pytest

jax.config.update("jax_enable_x64", True)
mpl.use("Agg")


@pytest.fixture
def key():
    return jax.random.key(2024)
