from wgf.experiments._table import Table


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
