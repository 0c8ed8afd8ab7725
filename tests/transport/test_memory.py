"""How much of a kernel is held: on a CPU for speed, on an accelerator what its memory has room for."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

from wgf.transport import _memory, sinkhorn_divergence
from wgf.transport._memory import Room, room_of, rows_at_once


def device(platform, **stats):
    return SimpleNamespace(platform=platform, memory_stats=lambda: stats or None)


def test_the_room_is_a_quarter_of_the_memory_of_the_smallest_accelerator():
    small, large = (device("gpu", bytes_limit=size) for size in (2**34, 2**36))
    assert room_of(4, [large]) == Room(2**32, 2**28)
    assert room_of(8, [large]) == Room(2**31, 2**27)
    assert room_of(4, [large, small, device("cpu")]) == room_of(4, [small])
    # Without an accelerator, programs for one are compiled for 16 GiB.
    assert room_of(4, [device("cpu")]) == room_of(4, [device("tpu")]) == Room(2**30, 2**26)


def test_what_has_no_room_is_held_in_blocks():
    room = Room(1000, 300)
    assert rows_at_once(10, 100, None, room) == 10
    assert rows_at_once(11, 100, None, room) == 3
    assert rows_at_once(11, 10**6, None, room) == 1
    assert rows_at_once(11, 100, 7, room) == 7


@pytest.mark.parametrize("derivative", [False, True])
def test_a_gpu_holds_a_kernel_that_is_too_large_for_a_cpu_s_cache(derivative):
    def value(x):
        return sinkhorn_divergence(x, x, epsilon=0.5).value

    traced = jax.jit(jax.grad(value) if derivative else value).trace(jax.ShapeDtypeStruct((9001, 2), jnp.float32))
    for platform, is_held in (("cpu", False), ("cuda", True)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("tensor<9001x9001xf32>" in text) == is_held, platform


@pytest.mark.heavy
def test_devices_with_other_rooms_have_the_same_numbers(monkeypatch):
    x, y = jax.random.normal(jax.random.key(0), (2, 3, 23, 2))

    def values(x, y):
        options = {"epsilon": 0.5, "threshold": bound(1e-8, 1e-5)}
        single = jax.value_and_grad(lambda x: sinkhorn_divergence(x, y[0], **options).value)(x[0])
        batch = jax.vmap(lambda x, y: sinkhorn_divergence(x, y, **options).value)(x, y)
        far = sinkhorn_divergence(x[1].at[0].add(40), y[1], **options).value
        return single, batch, far

    whole = jax.jit(values)(x, y)
    jax.clear_caches()
    monkeypatch.setattr(_memory, "CPU", Room(16, 90))
    blocks = jax.jit(values).trace(x, y)
    # Both ways are traced; the platform chooses.
    assert "platform_index" in str(blocks.jaxpr)
    found = blocks.lower().compile()(x, y)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(one, other, rtol=bound(1e-7, 1e-4), atol=bound(1e-9, 1e-4))


slow = pytest.mark.slow


def test_small_kernels_are_held_whole_and_large_ones_in_blocks():
    assert rows_at_once(8192, 8192, None) == 8192
    assert rows_at_once(8193, 8192, None) == 64
    assert rows_at_once(10, 2**24, None) == 1
    assert rows_at_once(100, 100, 7) == 7
    assert rows_at_once(5, 100, 7) == 5


@pytest.mark.parametrize("derivative", [True, pytest.param(False, marks=slow)])
def test_memory_of_blocks_is_linear_in_the_points(derivative):
    """From 1024 to 4096 points; a kernel held whole would take 16 times as much."""

    def value(x, y):
        return sinkhorn_divergence(x, y, epsilon=0.3, block=8).value

    def bytes_needed(n):
        cloud = jax.ShapeDtypeStruct((n, 5), jnp.float32)
        compiled = jax.jit(jax.grad(value) if derivative else value).lower(cloud, cloud).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = bytes_needed(1024), bytes_needed(4096)
    assert many < 4.5 * few, (few, many)
    assert many < 4096**2, many
