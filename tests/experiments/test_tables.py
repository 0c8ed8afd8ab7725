import pytest

from wgf.experiments._table import Table, in_text


def test_a_column_is_as_wide_as_its_widest_cell():
    table = Table(
        ("name", "x", ""),
        ["first part", ("a", "10"), ("long name", "2", "!")],
        left=(0, 2),
        title="Title",
        notes=("x: a number",),
    )
    assert str(table).splitlines() == [
        "Title",
        "name        x",
        "----------------",
        "first part",
        "a          10",
        "long name   2  !",
        "----------------",
        "x: a number",
    ]


def test_a_table_without_notes_has_one_rule():
    assert str(Table(("a", "bc"), [("1", "2"), ("30", "4")], gap=1)) == " a bc\n-----\n 1  2\n30  4"


WIDE = Table(
    ("L", "M", "risk gap ", "seeds", "error", "output gap ", "seeds", "error", ""),
    ["a heading", ["4", "16", "1.0e-2 ", "2e-3", "3e-3", "4.0e-2~", "5e-3", "6e-3", "(1 failed)"]],
    left=(8,),
    title="Gaps",
    notes=("seeds: standard error of the number to its left", "a second note"),
    keys=2,
)


def test_a_table_is_cut_into_parts_that_fit_a_page():
    assert in_text([WIDE], 40) == "\n".join(
        [
            "Gaps",
            "L   M  risk gap   seeds  error",
            "------------------------------",
            "a heading",
            "4  16    1.0e-2    2e-3   3e-3",
            "",
            "L   M  output gap   seeds  error",
            "--------------------------------------------",
            "a heading",
            "4  16      4.0e-2~   5e-3   6e-3  (1 failed)",
            "--------------------------------------------",
            "seeds: standard error of the number to",
            "its left",
            "a second note",
        ]
    )


def test_a_table_that_fits_is_whole():
    assert in_text([WIDE], 200) == in_text([WIDE]) == str(WIDE)


@pytest.mark.parametrize("width", range(1, 90, 7))
def test_the_parts_of_a_table_hold_each_cell_once(width):
    parts = WIDE.parts(width)
    assert [cell for part in parts for cell in part.rows[1][2:]] == WIDE.rows[1][2:]
    assert all(part.rows[0] == "a heading" and part.rows[1][:2] == ["4", "16"] for part in parts)
    assert [part.title for part in parts] == ["Gaps", *[None] * (len(parts) - 1)]
    assert all(not part.notes for part in parts[:-1])


def test_columns_between_bars_stay_together_and_titles_and_notes_flow():
    table = Table(
        ("L", "|", "loss", "accuracy", "|", "loss", "accuracy"),
        [["1", "|", "0.1", "95", "|", "0.2", "90"]],
        title="A title that is too long",
        notes=("loss: of the images to train on;", "then of others", "    indented, and long enough to break"),
    )
    assert in_text([table], 26) == "\n".join(
        [
            "A title that is too long",
            "L  |  loss  accuracy",
            "--------------------",
            "1  |   0.1        95",
            "",
            "L  |  loss  accuracy",
            "--------------------",
            "1  |   0.2        90",
            "--------------------",
            "loss: of the images to",
            "train on; then of others",
            "    indented, and long",
            "    enough to break",
        ]
    )
    assert in_text([table], 20).startswith("A title that is too\nlong\nL  |")
