"""What a parser says about a wrong command line, in one line. The command `wgf` itself is tested in `test_cli`."""

import dataclasses
import sys

import pytest

from wgf._usage import parsed


@dataclasses.dataclass(frozen=True)
class Travel:
    days: int = 1
    is_far: bool = False


COMMANDS = {"travel": Travel}


def refusing(report):
    def parse():
        print(report, file=sys.stderr)
        raise SystemExit(2)

    return parse


def refusal(capsys, parse, *args):
    with pytest.raises(SystemExit) as stop:
        parsed(parse, "book", COMMANDS, args)
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


def test_a_report_that_names_no_option_becomes_its_first_paragraph(capsys):
    report = "╭─ Conflict ───╮\n│ No ship     │\n│ goes there. │\n│ ─────────── │\n│ Run --help  │\n╰─────────────╯"
    assert (
        refusal(capsys, refusing(report), "travel") == "book travel: error: No ship goes there. See book travel --help."
    )
    plain = "+- Conflict --+\n| No ship     |\n| ----------- |\n| Run --help  |\n+-------------+"
    assert refusal(capsys, refusing(plain), "travel") == "book travel: error: No ship. See book travel --help."


def test_a_flag_takes_no_value(capsys):
    line = refusal(capsys, refusing("--is-far is wrong"), "travel", "--is_far=x")
    assert line == "book travel: error: --is-far takes no value; got 'x'. See book travel --help."


@pytest.mark.parametrize("word", ["--a\nb", "--" + "a" * 500])
def test_a_word_of_many_characters_or_lines_is_shortened(word, capsys):
    line = refusal(capsys, lambda: (Travel(), [word]), "travel", word)
    assert line.startswith("book travel: error: unrecognized option '--a")
    assert len(line) < 160


def test_warnings_of_the_parser_are_written_and_its_config_is_returned(capsys):
    def parse():
        print("a warning", file=sys.stderr)
        return Travel(3), []

    assert parsed(parse, "book", COMMANDS, ["travel"]) == Travel(3)
    assert capsys.readouterr() == ("", "a warning\n")


@pytest.mark.parametrize("args", [["--help"], ["travel", "--help"]])
def test_other_ends_are_left_as_they_are(args, capsys):
    def parse():
        print("the help")
        raise SystemExit(0)

    with pytest.raises(SystemExit) as stop:
        parsed(parse, "book", COMMANDS, args)
    assert stop.value.code == 0
    assert capsys.readouterr() == ("the help\n", "")
