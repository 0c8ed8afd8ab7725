"""Products run at full precision on every backend, unless the user asks for less: read in programs for other chips.

Lowering for a chip needs none. What XLA makes of these programs is read in tests/aot.
"""

import functools
import importlib
import pkgutil
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, averaged, encoders, regression

import wgf
from wgf._backend import precision as _precision

OBJECTIVE = wgf.Objective(regression(jax.random.key(0)), 1e-3)
ENCODERS = encoders(OBJECTIVE.prompts.token_dim)
# What computes nothing of its own: it draws, moves arrays, or calls the others.
NOTHING_COMPUTED = ("wgf.plot", "wgf.experiments", "wgf.sharding", "wgf.cli")


def transformer(encoder, width=8):
    return wgf.Transformer(encoder, wgf.measures.Gaussian(encoder).layered(2, width, jax.random.key(1)))


def precisions(platform, function, *trees):
    """The precisions that the products in a program for another platform are asked to have."""
    arrays, rest = eqx.partition(trees, eqx.is_array)
    traced = jax.jit(lambda arrays: eqx.filter(function(*eqx.combine(arrays, rest)), eqx.is_array)).trace(arrays)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    lines = re.findall(r"stablehlo\.(?:dot_general|convolution).*", text)
    assert lines, "a program without products shows nothing"
    found = (re.search(r"precision(?:_config)? = \[(?:#stablehlo<precision )?(\w+)", line) for line in lines)
    return {match.group(1) if match else "DEFAULT" for match in found}


@pytest.mark.parametrize("name", ENCODERS)
def test_velocities_have_full_precision(name):
    for width in (8, 80):
        assert precisions("cuda", wgf.velocity, OBJECTIVE, transformer(ENCODERS[name], width)) == {"HIGHEST"}


@pytest.mark.heavy
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_users_own_default_counts(platform):
    model = transformer(averaged(OBJECTIVE.prompts.token_dim))
    for default, asked in {"tensorfloat32": "HIGH", "bfloat16": "DEFAULT", "default": "DEFAULT"}.items():
        with jax.default_matmul_precision(default):
            assert precisions(platform, wgf.velocity, OBJECTIVE, model) == {asked}
    # Compiled functions that were traced under one default are traced anew under another.
    assert precisions(platform, wgf.velocity, OBJECTIVE, model) == {"HIGHEST"}


class Rounded(Matrix):
    def __call__(self, particle, tokens):
        return jnp.matmul(particle, tokens, precision="default")


def test_a_product_that_asks_for_less_gets_it():
    found = precisions("cuda", wgf.velocity, OBJECTIVE, transformer(Rounded(OBJECTIVE.prompts.token_dim)))
    assert found == {"DEFAULT", "HIGHEST"}


@pytest.mark.parametrize("encoder", [averaged, Matrix], ids=["averaged", "user's own"])
@pytest.mark.parametrize("default", [None, "tensorfloat32"])
def test_derivatives_taken_outside_have_the_precision_of_the_call(default, encoder):
    """JAX traces the rules of `custom_jvp` where the derivative is taken: here after the call has returned."""
    x = jnp.ones((4, 2))

    @jax.jit
    def compiled(model, x):
        with jax.default_matmul_precision(default):
            return OBJECTIVE(model) + wgf.transport.sinkhorn_divergence(x, 2 * x, epsilon=1.0).value

    def both(model, x):
        return jax.grad(compiled, argnums=(0, 1), allow_int=True)(model, x)

    # Squared distances cancel: they have full precision at any default.
    allowed = {"HIGHEST"} if default is None else {"HIGH", "HIGHEST"}
    assert precisions("cuda", both, transformer(encoder(OBJECTIVE.prompts.token_dim)), x) == allowed


def test_the_processor_computes_the_same_numbers_at_any_default():
    model = transformer(averaged(OBJECTIVE.prompts.token_dim), width=80)
    ours = wgf.velocity(OBJECTIVE, model)
    with jax.default_matmul_precision("default"):
        assert eqx.tree_equal(wgf.velocity(OBJECTIVE, model), ours)


def packages():
    """All modules of the library, loaded."""
    return [wgf, *(importlib.import_module(f"wgf.{info.name}") for info in pkgutil.iter_modules(wgf.__path__))]


def test_every_public_function_runs_at_full_precision():
    public = [package for package in packages() if not package.__name__.rpartition(".")[2].startswith("_")]
    public = [package for package in public if not package.__name__.startswith(NOTHING_COMPUTED)]
    assert wgf.flows in public
    for package in public:
        functions = [value for name, value in vars(package).items() if not name.startswith("_") and callable(value)]
        plain = [f for f in functions if not isinstance(f, type) and _precision.full_precision(f) is not f]
        assert not plain, f"`_precision.export(globals())` is missing at the end of {package.__name__}: {plain}"


def descendants(cls):
    return {cls}.union(*map(descendants, cls.__subclasses__()))


def test_every_module_runs_at_full_precision():
    packages()
    own = {cls for cls in descendants(eqx.Module) if cls.__module__.startswith("wgf.")}
    # Solvers, controllers and terms run within a flow alone, which sets the precision.
    bare = {cls for cls in own - descendants(_precision.Module) if not is_of_diffrax(cls)}
    assert len(own) > 50
    assert not bare, f"derive from wgf._backend.precision.Module: {bare}"


def is_of_diffrax(cls):
    return any(base.__module__.partition(".")[0] == "diffrax" for base in cls.__mro__)


class Members(_precision.Module):
    function: object = len

    def __call__(self):
        return _precision.default_precision()

    @property
    def precision(self):
        return _precision.default_precision()

    @classmethod
    def of_class(cls):
        return _precision.default_precision()

    @staticmethod
    def static():
        return _precision.default_precision()

    @eqx.filter_jit
    def compiled(self):
        return _precision.default_precision()


def test_members_of_modules_run_at_full_precision():
    members = Members()
    assert _precision.default_precision() is None
    assert members() == members.precision == Members.of_class() == Members.static() == members.compiled() == "highest"
    assert members.function is len
    assert _precision.default_precision() is None
    with jax.default_matmul_precision("bfloat16"):
        assert members() == members.precision == members.compiled() == "bfloat16"


def scaled(method):
    @functools.wraps(method)
    def call(self, *args):
        return 2 * method(self, *args)

    return call


class Scaled(Matrix):
    """A user's encoder whose method wraps one of the library, with all of its attributes."""

    mean = scaled(Matrix.mean)  # pyright: ignore[reportAssignmentType]


def test_within_a_program_methods_are_plain_and_wrappers_of_users_stay(key):
    encoder, other = Matrix(3), Scaled(3)
    args = encoder.sample(key, (4,)), jnp.full(4, 0.25), jnp.ones((2, 3, 5))

    @eqx.filter_jit
    def within():
        with _precision.one_program():
            # The functions at hand, and what they compute.
            return [each.mean.__func__ for each in (encoder, other)], encoder.mean(*args), other.mean(*args)

    (plain, wrapped), one, two = within()
    assert plain is _precision._plain(encoder.mean.__func__)
    assert wrapped is _precision._plain(other.mean.__func__) is not plain
    assert not _precision._in_one_program.get()
    for mean, factor in ((one, 1), (two, 2), (other.mean(*args), 2)):
        np.testing.assert_allclose(mean, factor * encoder.mean(*args), rtol=1e-6)


def test_custom_rules_take_static_arguments():
    @_precision.full_precision
    def call(x):
        return power(x, 3)

    def power(x, n):
        return rule(x, n)

    @_precision.custom_jvp
    def rule(x, n):
        return x**n

    @rule.defjvp
    def _(primals, tangents):
        (x, n), (dx, _) = primals, tangents
        assert _precision.default_precision() == "highest"
        return x**n, n * x ** (n - 1) * dx

    assert jax.grad(jax.jit(call))(2.0) == 12
