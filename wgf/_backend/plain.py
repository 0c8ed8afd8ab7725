"""The switch that turns the machine room off."""

import os

PLAIN = os.environ.get("WGF_PLAIN", "") not in ("", "0")
"""Whether the environment variable `WGF_PLAIN` is set when the library is imported.

Then means over particles are two nested `vmap`s, contractions are `jnp.einsum`, and nothing is outlined, cut into tiles
or shared between devices by hand. The numbers are the same up to rounding; memory grows with the number of particles
times that of prompts. For a release of JAX that breaks what `compat` imports, and for finding out whether a fault lies
in the machine room or in the mathematics.
"""
