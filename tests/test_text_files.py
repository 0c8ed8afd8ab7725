import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def without_encoding(text):
    """The calls that open a text file and leave its encoding to the operating system."""
    calls = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    return [ast.unparse(call) for call in calls if opens_text(call)]


def opens_text(call):
    name, arguments = ast.unparse(call.func), {word.arg: word.value for word in call.keywords}
    method = name.split(".")[-1]
    binary = name in ("os.open", "Image.open")
    if "encoding" in arguments or binary or method not in ("open", "read_text", "write_text"):
        return False
    # The mode comes after the path in `open(path, mode)`, first in `path.open(mode)`.
    modes = [*call.args[name == "open" :][:1], arguments.get("mode")] if method == "open" else []
    return not any(isinstance(mode, ast.Constant) and "b" in str(mode.value) for mode in modes)


def test_every_text_file_is_opened_with_an_encoding():
    sources = [path for folder in ("wgf", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")]
    found = {str(path.relative_to(ROOT)): without_encoding(path.read_text(encoding="utf-8")) for path in sources}
    assert len(found) > 100
    assert not {path: calls for path, calls in found.items() if calls}


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ("open('a')", True),
        ("open('a', 'w')", True),
        ("path.open('w')", True),
        ("path.open()", True),
        ("(folder / 'a').read_text()", True),
        ("path.write_text('b')", True),
        ("open('a', 'rb')", False),
        ("open('a', mode='rb')", False),
        ("path.open('wb')", False),
        ("open('a', encoding='utf-8')", False),
        ("path.read_text(encoding='utf-8')", False),
        ("path.read_bytes()", False),
        ("os.open('a', os.O_WRONLY)", False),
    ],
)
def test_calls_without_an_encoding_are_found(call, found):
    assert without_encoding(call) == [call] * found
