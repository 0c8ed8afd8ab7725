"""One file imports what JAX, Equinox and Diffrax do not promise to keep."""

import ast
from pathlib import Path

import wgf

INTERNAL = ("jax.core", "jax.extend", "jax.interpreters", "jax.experimental", "jax._src", "equinox.internal")
ROOT = Path(wgf.__file__).parent


def internals(path):
    """The modules without a promise that a file imports, or looks up as attributes of `jax` or `eqx`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node).replace("eqx.", "equinox.")]
        private = [name for name in names if "._" in name and name.split(".")[0] in ("jax", "diffrax", "equinox")]
        found += private + [name for name in names if name.startswith(INTERNAL)]
    return found


def test_only_compat_imports_what_is_not_promised():
    found = {path.relative_to(ROOT).as_posix(): internals(path) for path in ROOT.rglob("*.py")}
    assert [name for name, names in found.items() if names] == ["_backend/compat.py"]


def test_no_file_asks_for_the_default_backend():
    """Code chooses by the platform that a program is lowered for, which may be another one."""
    assert not [path for path in ROOT.rglob("*.py") if "default_backend" in path.read_text(encoding="utf-8")]
