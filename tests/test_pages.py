"""The pages: links lead to files, names to definitions, versions agree, the recipes run, and the site builds."""

import ast
import importlib
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_readme import blocks, run_alone

import wgf

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
EQUATIONS = DOCS / "theory" / "equations.md"
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[tuple[str, str]]:
    """The text and the target of every link and image that leads to a file."""
    found = re.findall(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)", prose(page))
    return [(text, target) for text, target in found if not re.match(r"[a-z]+:|#", target)]


def definitions(source: str) -> set[str]:
    """The classes, functions and constants of a module, and the members of its classes as `Class.member`."""
    return set(_defined(ast.parse(source).body))


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield statement.name
        if isinstance(statement, ast.ClassDef):
            yield from (f"{statement.name}.{name}" for name in _defined(statement.body))
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def defined_in(file: Path) -> set[str]:
    return definitions(file.read_text(encoding="utf-8"))


def named_in_code(page: Path) -> list[tuple[str, Path]]:
    """What a page says is defined in a file: by a link whose text is code, or as `path::name`."""
    linked = [
        (text.strip("`"), (page.parent / target.partition("#")[0]).resolve())
        for text, target in links(page)
        if re.fullmatch(r"`[\w.]+`", text) and target.partition("#")[0].endswith(".py") and not text.endswith(".py`")
    ]
    pointed = re.findall(r"([\w./]+\.py)::([\w.]+)", prose(page))
    return linked + [(name, ROOT / path) for path, name in pointed]


def test_definitions_are_found():
    source = "X = 1\nclass A:\n    y: int\n    def f(self): ...\n    class B:\n        def g(self): ...\ndef h(): ..."
    assert definitions(source) == {"X", "A", "A.y", "A.f", "A.B", "A.B.g", "h"}


@each_page
def test_every_relative_link_leads_to_a_file(page):
    targets = {target.partition("#")[0] for _, target in links(page)}
    assert not {target for target in targets if not (page.parent / target).exists()}


@each_page
def test_what_a_page_names_in_a_file_is_defined_there(page):
    named = named_in_code(page)
    assert page != EQUATIONS or len(named) > 60
    # In prose a name may carry its package, `wgf.analysis.certificate`; the page of equations gives the name alone.
    missing = []
    for name, file in named:
        parts = name.split(".")
        names = {name} if page == EQUATIONS else {".".join(parts[first:]) for first in range(len(parts))}
        missing += [] if names & defined_in(file) else [(name, file.name)]
    assert not missing


def test_every_link_of_the_equations_names_a_definition():
    assert not [text for text, target in links(EQUATIONS) if not re.fullmatch(r"`[\w.]+`", text)]


def test_every_equation_that_a_docstring_cites_has_a_row():
    cited = set()
    for file in (ROOT / "wgf").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for numbers in re.findall(r"arXiv:2410\.23610,\s+equations? ((?:[\d.]+\d(?:,? and |, )?)+)", text):
            cited |= set(re.findall(r"\d\.\d", numbers))
    rows = set(re.findall(r"^\| (\d\.\d) \|", prose(EQUATIONS), re.MULTILINE))
    assert cited
    assert cited <= rows


@pytest.mark.slow
def test_the_recipes_run_as_printed(tmp_path):
    recipes = blocks(ROOT / "CONTRIBUTING.md")
    assert len(recipes) == 8
    program = run_alone("\n".join(recipes), tmp_path)
    assert program.returncode == 0, program.stderr[-3000:]


def test_the_package_page_stands_alone():
    """It is shown where no other file is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = ROOT / project["readme"]
    assert not links(page)
    assert "![" not in page.read_text(encoding="utf-8")
    assert f"pip install {project['name']} " in page.read_text(encoding="utf-8")


def test_versions_agree():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [wgf.__version__]
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    pins = set(re.findall(r'"([\w-]+==[^"]+)"', hooks))
    assert {pin.partition("==")[0] for pin in pins} == {"ruff", "pyright"}
    assert pins <= set(constraints)


def test_the_hosted_gate_runs_on_every_python_that_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [kind.rpartition(" ")[2] for kind in project["classifiers"] if "Python :: 3." in kind]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert declared
    assert f"python: {declared}".replace("'", '"') in workflow


def test_the_changelog_begins_with_what_is_not_released():
    headings = re.findall(r"^## (.*)$", prose(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", heading) for heading in headings[1:])


def test_type_checkers_find_the_types():
    assert (Path(wgf.__file__).parent / "py.typed").exists()


def hook(name: str):
    """One of the hooks that make pages of the site."""
    spec = importlib.util.spec_from_file_location(f"_hook_{name}", DOCS / "_hooks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PUBLIC = ("encoders", "measures", "models", "objective", "prompts", "flows", "solvers", "transport", "analysis")
PUBLIC += ("companions", "sharding", "plot", "experiments")


def public_objects() -> list[set[str]]:
    """For each public object of the packages the names that it has."""
    names: dict[int, set[str]] = {}
    for package in ("wgf", *(f"wgf.{name}" for name in PUBLIC)):
        module = importlib.import_module(package)
        # A module that is no package holds what it imports, too.
        home = "wgf" if hasattr(module, "__path__") else package
        for name, value in vars(module).items():
            own = getattr(value, "__module__", package).startswith(home) and not isinstance(value, str)
            if own and not name.startswith("_") and not inspect.ismodule(value):
                names.setdefault(id(value), set()).add(f"{package}.{name}")
    return list(names.values())


def test_the_api_shows_every_public_name_once():
    pages = [prose(page) for page in (DOCS / "api").glob("*.md")]
    shown = re.findall(r"^::: (\S+)$", "\n".join(pages), re.MULTILINE)
    # `wgf.run` is shown by the path of its file: a package has a module of the same name.
    shown = ["wgf.run" if name == "wgf.flows._run.run.run" else name for name in shown]
    assert not {name for name in shown if shown.count(name) > 1}
    missing = [sorted(names) for names in public_objects() if len(names & set(shown)) != 1]
    assert not missing


def test_benchmark_pages_take_their_tables_from_the_results():
    measured = hook("measured")
    marks = {mark for page in PAGES for mark in re.findall(r"<!-- results: (\w+) -->", prose(page))}
    assert marks == {path.stem for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    tables = {name: measured.tables_of(name) for name in marks}
    report = json.loads((ROOT / "benchmarks" / "results" / "growth.json").read_text(encoding="utf-8"))
    found = [row for row in tables["growth"].splitlines() if row.startswith("| ")]
    assert len(found) == sum(len(table["rows"]) + 2 for table in report["tables"])
    assert all(report["date"][:10] in tables["growth"] for table in report["tables"])


def test_pages_take_single_tables_from_the_results():
    """Of exact truths each table stands by its derivation."""
    measured, text = hook("measured"), prose(DOCS / "theory" / "truths.md")
    titles = re.findall(r"^<!-- results: verification, (.+) -->$", text, re.MULTILINE)
    assert len(titles) >= 6
    shown = measured.on_page_markdown(text)
    assert "<!--" not in shown
    assert all(measured.table_of("verification", title) in shown for title in titles)


def test_costs_are_read_off_between_the_points_of_a_ladder():
    ladder = [(100, 0.1), (400, 0.05), (1600, 0.025)]
    at = hook("measured").cost_at
    assert at(ladder, 0.2) == 100
    assert at(ladder, 0.05) == pytest.approx(400)
    assert at(ladder, 0.1 / 2**0.5) == pytest.approx(200)
    assert at(ladder, 0.0125) is None


def test_links_of_a_notebook_lead_to_pages_of_the_site():
    pytest.importorskip("mkdocs", reason="the site needs the extra `docs`")
    outside = hook("outside")
    path = outside.path_of("notebooks/solve.md", "../docs/how-to/error-bars.md")
    assert path == "docs/how-to/error-bars.md"
    assert outside.page_of(path) == "how-to/error-bars.md"


class References(HTMLParser):
    """What a page loads: scripts, styles, images, fonts. Links that a reader follows do not count."""

    def __init__(self):
        super().__init__()
        self.loaded = []
        self.formulas = self.unset = 0

    def handle_starttag(self, tag, attrs):
        self.formulas += tag == "math"
        self.unset += ("class", "arithmatex") in attrs
        self.loaded += [text for name, text in attrs if name == "src" or (name == "href" and tag == "link")]


def test_a_formula_that_would_show_its_commands_is_refused():
    pytest.importorskip("latex2mathml", reason="the site needs the extra `docs`")
    mathml = hook("formulas").mathml
    assert "\\" not in mathml(r"\left\langle x, y \right\rangle", "inline")
    with pytest.raises(ValueError, match="a formula must hold only commands that MathML has; got "):
        mathml(r"\Big\langle x, y \Big\rangle", "inline")


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    for needed in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(needed, reason="the site needs the extra `docs`")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {
        page.relative_to(tmp_path).as_posix(): page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html")
    }
    assert len(found) > 100
    formulas = {}
    for name, text in found.items():
        references = References()
        references.feed(text)
        assert not [address for address in references.loaded if re.match(r"(https?:)?//", address)], name
        assert not references.unset, name
        formulas[name] = references.formulas
    assert formulas["theory/notation.html"] >= 10
    assert formulas["api/flows.html"] > 10
    styles = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.css")]
    assert styles
    assert not [style for style in styles if re.search(r"(@import|url\()\s*['\"]?(https?:)?//", style)]
