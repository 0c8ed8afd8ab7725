"""The releases that a result was computed with."""

import platform
import sys
from importlib.metadata import version

_PACKAGES = ("jax", "jaxlib", "equinox", "diffrax", "ott-jax", "optax", "numpy", "scipy")


def versions() -> dict[str, str]:
    """The releases of this library, of Python, and of the packages that compute."""
    own = {"wgf": sys.modules[__name__.partition(".")[0]].__version__, "python": platform.python_version()}
    return own | {package: version(package) for package in _PACKAGES}
