"""Step size controllers that wrap another."""

from typing import Any

import diffrax
import equinox as eqx


class AbstractWrappingController(diffrax.AbstractAdaptiveStepSizeController):
    """Base class of controllers that wrap an adaptive one: forwards its tolerances, norm and direction of time."""

    inner: eqx.AbstractVar[diffrax.AbstractAdaptiveStepSizeController]

    @property
    def rtol(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        """The inner controller's relative tolerance."""
        return self.inner.rtol

    @property
    def atol(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        """The inner controller's absolute tolerance."""
        return self.inner.atol

    @property
    def norm(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        """The inner controller's norm."""
        return self.inner.norm

    def wrap(self, direction: Any):
        """Tell the inner controller the direction of time."""
        return eqx.tree_at(lambda s: s.inner, self, self.inner.wrap(direction))
