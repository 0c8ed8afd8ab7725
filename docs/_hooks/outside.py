"""Pages for files outside of docs/: source code, notebooks, and the guides of the root folder.

A page links to such a file by its path in the checkout, so the link also works where the checkout is browsed. On the
site it leads to a page that is made here.
"""

import ast
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
GUIDES = {"CONTRIBUTING.md": "developers/contributing.md", "CHANGELOG.md": "developers/changelog.md"}
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml"}

_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([\w./-]+)(#[\w.-]+)?\)")
_CODE = re.compile(r"^( *)(```+).*?^\1\2", re.DOTALL | re.MULTILINE)


def on_files(files, config, **_):
    """Add the guides, the notebooks, and a page for each other file outside of docs/ that a page links to."""
    uris = [file.src_uri for file in files.documentation_pages()] + list(GUIDES.values())
    paths = {*GUIDES, *(f"notebooks/{notebook.name}" for notebook in ROOT.glob("notebooks/*.ipynb"))}
    paths |= {path for uri in uris for path in linked(uri)}
    for path in sorted(paths):
        if files.get_file_from_path(page_of(path)) is None:
            files.append(File.generated(config, page_of(path), content=content_of(path)))
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    """Lead links to files outside of docs/ to their pages: for a definition, to its line."""
    uri, parts, end = page.file.src_uri, [], 0
    for code in _CODE.finditer(markdown):
        parts += [_led(markdown[end : code.start()], uri), code[0]]
        end = code.end()
    return "".join([*parts, _led(markdown[end:], uri)])


def on_page_content(content: str, page, **_) -> str:
    """Tell MkDocs the anchors of lines of code, which it does not look for."""
    page.present_anchor_ids |= set(re.findall(r'id="(__codelineno-[\d-]+)"', content))
    return content


def _led(prose: str, uri: str) -> str:
    def lead(link: re.Match) -> str:
        text, target, anchor = link.groups(default="")
        if (path := path_of(uri, target)) is None:
            return link[0]
        line = line_of(path, text.strip("`")) if path.endswith(".py") else None
        anchor = f"#__codelineno-0-{line}" if line else anchor
        return f"[{text}]({posixpath.relpath(page_of(path), posixpath.dirname(uri) or '.')}{anchor})"

    return _LINK.sub(lead, prose)


def linked(uri: str) -> set[str]:
    """The files outside of docs/ that a page links to."""
    prose = _CODE.sub("", (ROOT / origin(uri)).read_text(encoding="utf-8"))
    paths = {path_of(uri, link[2]) for link in _LINK.finditer(prose)}
    return {path for path in paths if path is not None and not _is_page(path)}


def _is_page(path: str) -> bool:
    return path.startswith("docs/") and not path.startswith("docs/_")


def origin(uri: str) -> str:
    """The file in the checkout whose text a page shows."""
    if uri.startswith("notebooks/"):
        return uri.replace(".md", ".ipynb")
    return next((guide for guide, page in GUIDES.items() if page == uri), f"docs/{uri}")


def path_of(uri: str, target: str) -> str | None:
    """The path in the checkout of the file that a link of a page leads to; None if there is none."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin(uri)), target))
    return path if (ROOT / path).is_file() else None


def page_of(path: str) -> str:
    """The page, or the file of the site, that shows a file of the checkout."""
    if path in GUIDES:
        return GUIDES[path]
    if path == "README.md":
        return "index.md"
    if _is_page(path):
        return path.removeprefix("docs/")
    return path.replace(".ipynb", ".md") if path.endswith(".ipynb") else f"source/{path.lstrip('.')}.md"


def content_of(path: str) -> str:
    """The Markdown of the page of a file outside of docs/."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path in GUIDES:
        return text
    if path.endswith(".ipynb"):
        cells = [part for cell in json.loads(text)["cells"] for part in shown(cell)]
        return "\n\n".join([*cells, f"*The file: `{path}`.*"])
    kind = LANGUAGES.get(Path(path).suffix, "text")
    head = "---\nsearch: {exclude: true}\nhide: [navigation, toc]\n---\n"
    code = _fenced(text, f'{kind} linenums="1"')
    return f"{head}# `{path}`\n\n{code}"


def shown(cell: dict) -> Iterator[str]:
    """A cell of a notebook as Markdown, with what it printed and drew."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield _fenced(source, "python")
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            yield f"![Figure](data:image/png;base64,{data['image/png'].strip()})"
        elif text := "".join(output.get("text", data.get("text/plain", ""))):
            yield _fenced(text, "text")


def _fenced(text: str, kind: str) -> str:
    return f"````{kind}\n{text.rstrip()}\n````"


def line_of(path: str, name: str) -> int | None:
    """The line on which a module defines `name`, or `Class.name`; packages may stand before it."""
    lines = dict(_definitions(ast.parse((ROOT / path).read_text(encoding="utf-8")).body))
    parts = name.split(".")
    return next((lines[tail] for first in range(len(parts)) if (tail := ".".join(parts[first:])) in lines), None)


def _definitions(body: list[ast.stmt]) -> Iterator[tuple[str, int]]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield statement.name, statement.lineno
        if isinstance(statement, ast.ClassDef):
            yield from ((f"{statement.name}.{name}", line) for name, line in _definitions(statement.body))
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            yield from ((target.id, statement.lineno) for target in targets if isinstance(target, ast.Name))
