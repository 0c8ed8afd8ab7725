"""The tests mirror the rooms of mathematics: the tests of `wgf/ROOM/_thing.py` are in `tests/ROOM/test_thing.py`."""

from pathlib import Path

import pytest

import wgf

SOURCE, TESTS = Path(wgf.__file__).parent, Path(__file__).parent
ROOMS = (
    "companions",
    "encoders",
    "flows",
    "measures",
    "models",
    "objective",
    "plot",
    "prompts",
    "solvers",
    "transport",
)
# Private modules whose tests are elsewhere, and where.
ELSEWHERE = {
    # The parts of a run are tested by runs: each needs a folder, a state and the loop over segments.
    **{
        f"flows/_run/{name}.py": "flows/test_run*.py"
        for name in ("cause", "directory", "folder", "interrupt", "problem_file", "resumable", "run", "segment")
    },
    "flows/_run/training.py": "flows/test_training.py",
    # Foreseen memory has one page of tests.
    "flows/_fits.py": "flows/test_memory.py",
    # A plain function as loss or readout is what both are for.
    "objective/_shapes.py": "objective/test_function.py",
}


def namesake(module: Path) -> Path:
    """The file of a module's tests: the same path without leading underscores."""
    *folders, _ = (part.lstrip("_") for part in module.relative_to(SOURCE).parts)
    return TESTS.joinpath(*folders, f"test_{module.stem.lstrip('_')}.py")


MODULES = sorted(path for room in ROOMS for path in (SOURCE / room).rglob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_private_module_has_tests_of_its_name(module):
    elsewhere = ELSEWHERE.get(module.relative_to(SOURCE).as_posix())
    if elsewhere is None:
        assert namesake(module).exists(), (
            f"write {namesake(module).relative_to(TESTS.parent)}, or say where its tests are"
        )
    else:
        assert list(TESTS.glob(elsewhere)), elsewhere
        assert not namesake(module).exists(), f"{namesake(module)} is there: take it off the list"


def test_the_list_names_modules_that_there_are():
    assert set(ELSEWHERE) <= {path.relative_to(SOURCE).as_posix() for path in MODULES}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_tests_holds_tests(room):
    """A module may be tested by several files. All of them hold tests, and helpers are in one file."""
    for path in (TESTS / room).rglob("*.py"):
        assert path.name == "conftest.py" or path.name.startswith("test_"), path
