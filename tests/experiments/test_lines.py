import io
import re

import pytest

from wgf.experiments._lines import Lines, lines_of_the_command, told_in_lines

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d "


def without_times(path):
    """The lines of a log file. Each begins with its time."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(re.match(TIME, line) for line in lines), lines
    return [re.sub(TIME, "", line) for line in lines]


def test_lines_are_in_the_file_at_once_and_after_what_it_held(tmp_path, capsys):
    path = tmp_path / "log.txt"
    for _ in range(2):
        with told_in_lines(path) as lines:
            lines.note("a note")
            lines.tell("a line\nof two")
            assert without_times(path)[-2:] == ["a note", "a line of two"]
    assert without_times(path) == ["a note", "a line of two"] * 2
    assert capsys.readouterr().err == "wgf: a line\nof two\n" * 2


def test_lines_are_those_of_the_command_that_runs():
    assert lines_of_the_command() is None
    with told_in_lines(None) as outer:
        with told_in_lines(None) as inner:
            assert lines_of_the_command() is inner
        assert lines_of_the_command() is outer
    assert lines_of_the_command() is None


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("no luck\nat all"), "ended by RuntimeError: no luck"),
        (KeyboardInterrupt(), "ended by KeyboardInterrupt:"),
        (SystemExit("wgf: 1 part failed"), "ended by SystemExit: wgf: 1 part failed"),
    ],
)
def test_the_log_says_what_ended_a_run(error, line, tmp_path):
    with pytest.raises(type(error)), told_in_lines(tmp_path / "log.txt"):
        raise error
    assert without_times(tmp_path / "log.txt") == [line]


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`log` must be a file that can be written; got .*none/log\.txt \("):
        told_in_lines(tmp_path / "none" / "log.txt").__enter__()


def test_a_run_goes_on_without_a_log_that_is_lost(capsys):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError("no space left")

    lines = Lines(Full())
    lines.note("first")
    lines.note("second")
    assert (
        capsys.readouterr().err == "wgf: the log file cannot be written (no space left). The run goes on without it.\n"
    )
