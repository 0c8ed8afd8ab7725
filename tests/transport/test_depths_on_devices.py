"""Depths spread over simulated devices: a program of its own, for JAX reads the number of devices once."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import re, jax, numpy as np
import wgf
mesh = wgf.sharding.mesh(particles=2)
x, y = jax.random.normal(jax.random.key(0), (2, 3, 16, 2))
depths, options = np.full(3, 1 / 3, "float32"), {"epsilon": 0.5, "threshold": 1e-5}
function = lambda mesh: jax.jit(lambda x, y: wgf.transport.conditional_divergence(x, y, depths, mesh=mesh, **options))
spread, alone = function(mesh)(x, y), function(None)(x, y)
np.testing.assert_allclose(spread.value, alone.value, rtol=1e-6)
np.testing.assert_allclose(spread.potentials.x, alone.potentials.x, rtol=1e-4, atol=1e-5)
assert bool(spread.converged) and int(spread.iterations) == int(alone.iterations)
# As many depths as devices, cut by particles: they move to their depths before any loop, and nothing in one.
cut = jax.NamedSharding(mesh, jax.P(None, "particles"))
x, y, depths = (jax.device_put(x[:2], cut), jax.device_put(y[:2], cut), depths[:2])
text = function(mesh).lower(x, y).compile().as_text()
moves = re.compile("(all-gather|all-to-all|all-reduce|collective-permute)(?:-start)?[(]")
inside, outside = [], []
for part in text.split("\\n\\n"):
    (outside if part.lstrip().startswith("ENTRY") else inside).extend(moves.findall(part))
assert "while(" in text and outside, outside
print("inside", len([m for m in inside]))
"""


@pytest.mark.heavy
def test_two_devices_give_the_divergence_of_one_and_send_nothing_while_iterating():
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    environment = os.environ | {"XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["inside", "0"], done.stdout
