"""Bars of all kinds of solves: where they are drawn by default, and of which class they are."""

import sys
import warnings
from types import SimpleNamespace

import pytest
import tqdm.auto  # Kept in `sys.modules`, so that the tests below find it again.
import tqdm.std

from wgf._bars import bar, bar_class, is_watched

KERNEL, TERMINAL = SimpleNamespace(kernel=object()), SimpleNamespace()


@pytest.fixture
def shell(monkeypatch):
    """Sets the shell of IPython that this process seems to run in."""
    return lambda found: monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: found))


@pytest.mark.parametrize(("found", "watched"), [(KERNEL, True), (TERMINAL, False), (None, False)])
def test_a_bar_is_drawn_by_default_in_a_kernel_but_not_in_every_ipython(found, watched, shell, capsys):
    shell(found)
    assert is_watched() == watched
    for show, drawn in ((None, watched), (True, True), (False, False)):
        with bar(show, total=2) as shown:
            shown.update(2)
        assert ("100%" in capsys.readouterr().err) == drawn


def test_a_terminal_is_watched_and_a_closed_stream_is_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    assert not is_watched()
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
    assert is_watched()
    for stream in (None, SimpleNamespace()):
        monkeypatch.setattr(sys, "stderr", stream)
        assert not is_watched()


@pytest.fixture
def notebook(monkeypatch, shell):
    """As in the kernel of a notebook that has not imported tqdm yet."""
    shell(KERNEL)
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", SimpleNamespace())
    for name in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_bar_is_a_widget_where_there_are_widgets(notebook, monkeypatch):
    class Widget(tqdm.std.tqdm):
        """What `tqdm.autonotebook` offers in a notebook."""

    monkeypatch.setitem(sys.modules, "tqdm.autonotebook", SimpleNamespace(tqdm=Widget))
    assert issubclass(bar_class(), Widget)


def test_a_bar_is_text_without_a_warning_where_there_are_no_widgets(notebook, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    # Not errors, which tqdm would catch.
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with bar(None, total=2) as shown:
            shown.update(2)
    assert found == []
    assert "100%" in capsys.readouterr().err
