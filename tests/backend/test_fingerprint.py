"""Fingerprints: another problem is told apart, the same text anywhere is the same problem."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import diffrax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

import wgf
from wgf._backend.fingerprint import fingerprint, release as _release

HEADER = """
import dataclasses, enum, functools
from typing import NamedTuple
import equinox as eqx, jax, jax.numpy as jnp, numpy as np
"""


def cell(text):
    """The objective of a notebook's cell that was run anew, in a namespace of its own."""
    namespace = {"__name__": "__main__"}
    exec(compile(HEADER + text, "<cell>", "exec"), namespace)
    return namespace["objective"]


def print_of(objective):
    return fingerprint({"objective": objective})


def differing(one, other):
    """The paths of the parts that differ."""
    one, other = one.parts, other.parts
    return {path for path in one | other if one.get(path) != other.get(path)}


# A cell, what is edited in it, and the part that the edit is found in.
EDITS = {
    "lambda": ("objective = lambda p: jnp.sum(p.x**2)", ("**2", "**4"), "objective"),
    "sign of zero": ("objective = lambda p: 0.0 + jnp.sum(p.x)", ("0.0", "-0.0"), "objective"),
    "operator": ("def objective(p):\n    return p.x @ p.x + 1", ("+ 1", "- 1"), "objective"),
    "method of an array": ("objective = lambda p: p.x.sum()", ("sum", "prod"), "objective"),
    "inner function": ("def objective(p):\n    f = lambda y: y + 1\n    return f(p.x)", ("+ 1", "+ 2"), "objective"),
    "handler": (
        "def objective(p):\n    try:\n        return p.x\n    except KeyError:\n        return p.y",
        ("KeyError", "IndexError"),
        "objective",
    ),
    "membership": ("objective = lambda p: p.x if p.s in {'a', 'b'} else 0", ("'b'", "'c'"), "objective"),
    "closure over a number": (
        "def make(scale):\n    return lambda p: scale * p.x\nobjective = make(2.0)",
        ("2.0", "3.0"),
        "objective.__closure__.scale",
    ),
    "type of a number": (
        "def make(scale):\n    return lambda p: scale * p.x\nobjective = make(2.0)",
        ("2.0", "2"),
        "objective.__closure__.scale",
    ),
    "closure over an array": (
        "def make(data):\n    return lambda p: jnp.sum(data * p.x)\nobjective = make(jnp.arange(3.0))",
        ("3.0)", "3.0) + 1"),
        "objective.__closure__.data",
    ),
    "closure over a NumPy array": (
        "def make(data):\n    return lambda p: jnp.sum(data * p.x)\nobjective = make(np.arange(3.0))",
        ("3.0)", "3.0).astype('f4')"),
        "objective.__closure__.data",
    ),
    "global": ("SCALE = 2.0\nobjective = lambda p: SCALE * p.x", ("2.0", "3.0"), "__main__.SCALE"),
    "data": ("data = jnp.ones(3)\nobjective = lambda p: jnp.sum(data * p.x)", ("ones", "zeros"), "__main__.data"),
    "global of an inner function": (
        "SCALE = 2.0\nobjective = lambda p: jax.vmap(lambda y: SCALE * y)(p.x)",
        ("2.0", "3.0"),
        "__main__.SCALE",
    ),
    "global that a global uses": (
        "SCALE = 2.0\ndef scaled(y):\n    return SCALE * y\nobjective = lambda p: scaled(p.x)",
        ("2.0", "3.0"),
        "__main__.SCALE",
    ),
    "helper": (
        "def scaled(y):\n    return 2 * y\nobjective = lambda p: scaled(p.x)",
        ("2 *", "3 *"),
        "__main__.scaled",
    ),
    "another library function": ("f = jnp.sin\nobjective = lambda p: f(p.x)", ("sin", "cos"), "__main__.f"),
    "another library module": ("import numpy as m\nobjective = lambda p: m.sum(p.x)", ("numpy", "jax"), "__main__.m"),
    "default": ("def objective(p, scale=2.0):\n    return scale * p.x", ("2.0", "3.0"), "objective.__defaults__.scale"),
    "keyword default": ("objective = lambda p, *, a=2.0: a * p.x", ("2.0", "3.0"), "objective.__defaults__.a"),
    "attribute of a function": (
        "def objective(p):\n    return objective.scale * p.x\nobjective.scale = 2.0",
        ("2.0", "3.0"),
        "objective.scale",
    ),
    "partial": (
        "def score(p, scale):\n    return scale * p.x\nobjective = functools.partial(score, scale=2.0)",
        ("2.0)", "3.0)"),
        "objective.keywords['scale']",
    ),
    "jitted": ("objective = jax.jit(lambda p: 2 * p.x)", ("2 *", "3 *"), "objective.__wrapped__"),
    "filter-jitted": (
        "def make(a):\n    return eqx.filter_jit(lambda p: a * p.x)\nobjective = make(2.0)",
        ("2.0", "3.0"),
        "objective",
    ),
    "gradient": (
        "objective = jax.grad(lambda p: p.x**2)",
        ("**2", "**3"),
        "objective.__closure__.fun.__closure__.value_and_grad_f.__closure__.fun.__closure__.fun",
    ),
    "custom gradient": (
        "@jax.custom_jvp\ndef objective(p):\n    return p\n"
        "@objective.defjvp\ndef rule(p, t):\n    return p[0], 2 * t[0]",
        ("2 *", "3 *"),
        "objective.jvp",
    ),
    "decorated": (
        "def twice(f):\n    @functools.wraps(f)\n    def g(p):\n        return 2 * f(p)\n    return g\n"
        "@twice\ndef objective(p):\n    return p.x",
        ("2 *", "3 *"),
        "objective",
    ),
    "field of a module": (
        "class Loss(eqx.Module):\n    scale: float\n    def __call__(self, p):\n        return self.scale * p.x\n"
        "objective = Loss(2.0)",
        ("(2.0)", "(3.0)"),
        "objective.scale",
    ),
    "static function of a module": (
        "class Loss(eqx.Module):\n    f: object = eqx.field(static=True)\n    def __call__(self, p):\n"
        "        return self.f(p.x)\nobjective = Loss(lambda x: x + 1)",
        ("x + 1", "x + 2"),
        "objective.f",
    ),
    "method": (
        "class Loss(eqx.Module):\n    def __call__(self, p):\n        return 2 * p.x\nobjective = Loss()",
        ("2 *", "3 *"),
        "__main__.Loss.__call__",
    ),
    "method of a base": (
        "class Base(eqx.Module):\n    def __call__(self, p):\n        return 2 * p.x\n"
        "class Loss(Base):\n    pass\nobjective = Loss()",
        ("2 *", "3 *"),
        "__main__.Base.__call__",
    ),
    "bound method": (
        "class Loss:\n    def score(self, p):\n        return self.scale * p.x\n"
        "loss = Loss()\nloss.scale = 2.0\nobjective = loss.score",
        ("2.0", "3.0"),
        "objective.__self__.scale",
    ),
    "static method": (
        "class Loss:\n    @staticmethod\n    def score(p):\n        return 2 * p.x\n"
        "def objective(p):\n    return Loss.score(p)",
        ("2 *", "3 *"),
        "__main__.Loss.score.__func__",
    ),
    "property": (
        "class Loss(eqx.Module):\n    @property\n    def scale(self):\n        return 2.0\n"
        "    def __call__(self, p):\n        return self.scale * p.x\nobjective = Loss()",
        ("2.0", "3.0"),
        "__main__.Loss.scale.fget",
    ),
    "class attribute": (
        "class Loss:\n    scale = 2.0\n    def __call__(self, p):\n        return self.scale * p.x\nobjective = Loss()",
        ("2.0", "3.0"),
        "__main__.Loss.scale",
    ),
    "slot": (
        "class Loss:\n    __slots__ = ('scale',)\n    def __call__(self, p):\n        return self.scale * p.x\n"
        "objective = Loss()\nobjective.scale = 2.0",
        ("2.0", "3.0"),
        "objective.scale",
    ),
    "what pickle is not given": (
        "class Loss:\n    def __getstate__(self):\n        return {}\n    def __call__(self, p):\n"
        "        return self.scale * p.x\nobjective = Loss()\nobjective.scale = 2.0",
        ("2.0", "3.0"),
        "objective.__dict__.scale",
    ),
    "dataclass": (
        "@dataclasses.dataclass\nclass Sizes:\n    width: int = 3\n"
        "sizes = Sizes(4)\nobjective = lambda p: sizes.width * p.x",
        ("(4)", "(5)"),
        "__main__.sizes.width",
    ),
    "enumeration": (
        "class Kind(enum.Enum):\n    A = 1\n    B = 2\nkind = Kind.A\nobjective = lambda p: kind.value * p.x",
        ("Kind.A", "Kind.B"),
        "__main__.kind",
    ),
    "named tuple": (
        "class Sizes(NamedTuple):\n    width: int\nsizes = Sizes(4)\nobjective = lambda p: sizes.width * p.x",
        ("(4)", "(5)"),
        "__main__.sizes.width",
    ),
    "entry of a list": ("a = [jnp.sin, 2.0]\nobjective = lambda p: a[1] * p.x", ("2.0", "3.0"), "__main__.a[1]"),
    "entry of a dictionary": (
        "a = {'b': jnp.sin}\nobjective = lambda p: a['b'](p.x)",
        ("sin", "cos"),
        "__main__.a['b']",
    ),
    "array of objects": (
        "a = np.array([1.0, 'x'], object)\nobjective = lambda p: a[0] * p.x",
        ("1.0", "2.0"),
        "__main__.a.flat",
    ),
    "weak reference": (
        "import weakref\nclass A:\n    scale = 2.0\na = weakref.ref(A)\nobjective = lambda p: a().scale * p.x",
        ("2.0", "3.0"),
        "__main__.A.scale",
    ),
    "checked types": (
        "import beartype, jaxtyping\n@jaxtyping.jaxtyped(typechecker=beartype.beartype)\n"
        "def objective(p: jaxtyping.Float[jax.Array, 'n']) -> jaxtyping.Float[jax.Array, 'n']:\n    return 2 * p",
        ("2 *", "3 *"),
        "objective",
    ),
    "random key": ("k = jax.random.key(1)\nobjective = lambda p: jax.random.normal(k)", ("(1)", "(2)"), "__main__.k"),
    "type of an array": ("d = jnp.dtype('float32')\nobjective = lambda p: p.x.astype(d)", ("32", "16"), "__main__.d"),
    "weak type": ("a = jnp.asarray(2.0, float)\nobjective = lambda p: a * p.x", (", float", ""), "__main__.a"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_another_problem(edit):
    text, (before, after), part = EDITS[edit]
    assert before in text
    ours, theirs = print_of(cell(text)), print_of(cell(text.replace(before, after)))
    assert any(path == part or path.startswith(part + ".") for path in differing(ours, theirs)), ours.parts


@pytest.mark.parametrize("edit", EDITS)
def test_the_same_cell_again_is_the_same_problem(edit):
    """Its objects are others, its text stands elsewhere, and is described in other words."""
    text, *_ = EDITS[edit]
    ours = print_of(cell(text))
    assert ours == print_of(cell(f"\n\n# A remark.\nanother = 'definition'\n{text}\nlater = 'definition'"))
    assert ours.versions


def test_what_a_function_is_called_and_how_it_is_documented_does_not_count():
    ours = print_of(cell("def objective(p: float) -> float:\n    '''One.'''\n    return None or p.x"))
    assert ours == print_of(cell("def f(p):\n    # None.\n\n    return None or p.x\nobjective = f"))


def test_a_class_within_a_function_on_another_line():
    text = "def objective(p):\n    class A:\n        def f(self):\n            self.a = self.b = 1\n    return A().f()"
    assert print_of(cell(text)) == print_of(cell("\n" * 300 + text))
    assert print_of(cell(text)) != print_of(cell(text.replace("= 1", "= 2")))


def test_functions_that_call_each_other():
    text = "def f(n):\n    return g(n)\ndef g(n):\n    return f(n - 1)\nobjective = f"
    ours = print_of(cell(text))
    assert ours.parts["__main__.f"] == "the same as objective"
    assert "__main__.g" in differing(ours, print_of(cell(text.replace("- 1", "- 2"))))


def test_an_object_within_itself():
    text = "a = [jnp.sin]\na.append(a)\nobjective = lambda p: a[0](p.x)"
    assert print_of(cell(text)).parts["__main__.a[1]"] == "the same as __main__.a"


def test_attributes_that_share_a_globals_name_do_not_count():
    """`p.x` does not load the global x, which may appear at any time."""
    text = "objective = lambda p: p.x"
    assert print_of(cell(text)) == print_of(cell(f"x = (i for i in 'ab')\n{text}"))


def test_two_classes_of_one_name():
    text = "def make(c):\n    class A:\n        def f(self):\n            return c\n    return A()\n"
    one, other = (print_of(cell(f"{text}objective = [make(1), make({c})]")) for c in (2, 3))
    assert {path for path in differing(one, other)} == {"__main__.make.<locals>.A#2.f.__closure__.c"}


def test_one_class_met_twice():
    text = "class A:\n    pass\nobjective = [A(), A()]"
    assert print_of(cell(text)).parts["objective[1].__class__"] == "the same as objective[0].__class__"


def test_equal_arrays_need_not_be_one():
    shared = "a = jnp.ones(3)\nobjective = [a, a]"
    assert print_of(cell(shared)) == print_of(cell("objective = [jnp.ones(3), jnp.ones(3)]"))


def test_a_cached_property_may_have_been_used():
    text = "class A:\n    @functools.cached_property\n    def b(self):\n        return 1\nobjective = A()\n"
    assert print_of(cell(text)) == print_of(cell(text + "objective.b"))
    assert print_of(cell(text)) != print_of(cell(text.replace("return 1", "return 2")))


@pytest.mark.parametrize(
    ("value", "name", "package"),
    [
        (jnp.sin, "jax.numpy.sin", "jax"),
        (jnp.add, "jax.numpy.add", "jax"),
        (np.add, "numpy.add", "numpy"),
        (scipy.special.expit, "scipy.special.expit", "scipy"),
        (optax.l2_loss, "optax.losses._regression.l2_loss", "optax"),
        (wgf.Objective, "wgf.objective._objective.Objective", "wgf"),
        (len, "builtins.len", None),
    ],
)
def test_functions_of_packages_by_name_and_release(value, name, package):
    ours = print_of(value)
    assert ours.parts == {"objective": name}
    assert set(ours.versions) == ({package} if package else set())


def test_a_library_object_has_its_state():
    ours = print_of(diffrax.PIDController(1e-3, 1e-6))
    assert ours.parts["objective.rtol"] == "0.001"
    assert ours.versions["diffrax"].split()[0] == diffrax.__version__


def test_this_library_by_its_sources(tmp_path):
    """Its version stays while a checkout changes."""
    for name, text in (("a.py", "x = 1"), ("b.py", "y = 1")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    one = _release.digest_of_files(tmp_path / "a.py", tmp_path / "b.py")
    (tmp_path / "b.py").write_text("y = 2", encoding="utf-8")
    assert one != _release.digest_of_files(tmp_path / "a.py", tmp_path / "b.py")
    assert len(_release.release("wgf.flows").version) == 16


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Write and import a module of the user's own."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = set()

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        sys.modules.pop(name, None)
        names.add(name)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield write
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "use",
    [
        "import own\nobjective = lambda p: own.scaled(p)",
        "from own import scaled\nobjective = lambda p: scaled(p)",
        "import own\nobjective = own.scaled",
        "def objective(p):\n    from own import scaled\n    return scaled(p)",
        "def objective(p):\n    import own\n    return own.scaled(p)",
        "import own\nobjective = lambda p: vars(own)['scaled'](p)",
    ],
)
def test_a_module_of_the_users_own_counts_by_its_code(own_module, use):
    text = "SCALE = 2.0\ndef scaled(x):\n    return SCALE * x\n"
    own_module("own", text)
    ours = print_of(cell(use))
    own_module("own", f"'''Documented.'''\n\n{text}")
    assert ours == print_of(cell(use))
    own_module("own", text.replace("2.0", "3.0"))
    assert differing(ours, print_of(cell(use))) == {"own.SCALE"}


def test_only_what_is_used_of_a_users_module(own_module):
    own_module("own", "def used(x):\n    return x\ndef other(x):\n    return x\nstream = (i for i in 'ab')")
    ours = print_of(cell("import own\nobjective = lambda p: own.used(p)"))
    own_module("own", "def used(x):\n    return x\ndef other(x):\n    return 2 * x")
    assert ours == print_of(cell("import own\nobjective = lambda p: own.used(p)"))


def test_a_module_that_cannot_be_imported():
    ours = print_of(cell("def objective(p):\n    import no_such_module\n    return p"))
    assert ours.parts["objective.no_such_module"] == "a module that cannot be imported"


OPAQUE = {
    "a generator": (
        "s = (i for i in 'ab')\nobjective = lambda p: next(s)",
        r"`__main__.s`, used by `objective`, is of type builtins.generator",
    ),
    "a lock": ("import threading\ns = threading.Lock()\nobjective = lambda p: s", r"`__main__.s`.*lock"),
    "a file": (
        "import io\ns = io.TextIOWrapper(io.BytesIO())\nobjective = lambda p: s.read()",
        r"`__main__.s`.*TextIOWrapper",
    ),
    "a field": (
        "import threading\nclass Loss(eqx.Module):\n    s: object\nobjective = Loss(threading.local())",
        r"`objective.s` is of type _thread._local",
    ),
    "a compiled program": (
        "s = jax.jit(lambda x: x).lower(1.0).compile()\nobjective = lambda p: s(p.x)",
        r"`__main__.s\.\S+`, used by `objective`, is of type jaxlib",
    ),
    "a function in a C function": (
        "s = np.frompyfunc(lambda x: x, 1, 1)\nobjective = lambda p: s(1)",
        r"`__main__.s`.*numpy.ufunc",
    ),
    "eval": ("objective = lambda p: eval('p.x')", "`objective`, used by `objective`, calls `eval`"),
    "globals": ("def f(p):\n    return globals()['a']\nobjective = lambda p: f(p)", r"`__main__.f`.*calls `globals`"),
}


@pytest.mark.parametrize("kind", OPAQUE)
def test_what_cannot_be_told_apart_is_refused(kind):
    text, match = OPAQUE[kind]
    with pytest.raises(ValueError, match=rf"`directory` needs a problem that .*{match}.*Make it an equinox.Module"):
        print_of(cell(text))


SCRIPT = """
import sys, json
import beartype, jaxtyping, equinox as eqx, jax, jax.numpy as jnp, numpy as np
from wgf._backend.fingerprint import fingerprint

KINDS = {"one", "two", "three"}

@jaxtyping.jaxtyped(typechecker=beartype.beartype)
class Loss(eqx.Module):
    data: jaxtyping.Float[np.ndarray, "n"]
    kinds: frozenset = eqx.field(static=True)

    @eqx.filter_jit
    def __call__(self, p):
        class Inner:
            def __init__(self):
                self.a, self.b, self.c = 1, 2, 3
        return jnp.sum(self.data * p.x) * len(KINDS & {"one", "four"})

loss = Loss(np.arange(3.0), frozenset(["u", "v"]))
print(json.dumps(fingerprint({"objective": loss, "mapped": jax.vmap(lambda x: x)})))
"""


def test_another_process_finds_the_same(tmp_path):
    """Sets and addresses are in another order there, and the file has another name."""

    def printed(seed):
        path = tmp_path / f"script{seed}.py"
        path.write_text("\n" * seed + SCRIPT, encoding="utf-8")
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(Path(wgf.__file__).parents[1])}
        done = subprocess.run([sys.executable, path], env=environment, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    assert printed(1) == printed(2)
