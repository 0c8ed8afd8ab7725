"""Run a program given on standard input, and fail if a value that it makes holds a NaN or an infinity.

Its values are those of its global names and of its bare expressions, which a notebook would show.
"""

import ast
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


def not_finite(value) -> list[str]:
    """The paths to arrays and numbers in a PyTree that are not finite."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(value, eqx.is_inexact_array_like))
    return [jax.tree_util.keystr(path) for path, leaf in leaves if not np.all(np.isfinite(np.asarray(leaf)))]


def complaints(values: dict[str, object]) -> list[str]:
    """A line for each value that is not finite, with the paths to its arrays."""
    own = {name: value for name, value in values.items() if not name.startswith("_")}
    bad = {name: paths for name, value in own.items() if (paths := not_finite(value))}
    return [f"not finite: {name}: {', '.join(paths[:8])}" for name, paths in bad.items()]


def run(program: str) -> dict[str, object]:
    """Run a program, and return all the values that it makes, by name or by line and text."""
    names: dict[str, object] = {"__name__": "__main__"}
    shown = {}
    for statement in ast.parse(program).body:
        if isinstance(statement, ast.Expr):
            code = compile(ast.Expression(statement.value), "<block>", "eval")
            shown[f"line {statement.lineno}, {ast.unparse(statement)[:60]}"] = eval(code, names)
        else:
            exec(compile(ast.Module([statement], []), "<block>", "exec"), names)
    return shown | names


def main() -> None:
    """Run what standard input holds."""
    assert jnp.zeros(()).dtype == jnp.float32
    sys.exit("\n".join(complaints(run(sys.stdin.read()))) or 0)


if __name__ == "__main__":
    main()
