"""CSV files as users have them: what is read, and what is refused with its place."""

import gzip

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from wgf.prompts import from_table, read_csv


def write(folder, text):
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6))
def test_a_written_table_is_read_back(tmp_path_factory, rows, columns, seed):
    rng = np.random.default_rng(seed)
    table, place = rng.normal(size=(rows, columns + 1)), int(rng.integers(columns + 1))
    names = [f"c{i}" for i in range(columns + 1)]
    lines = [",".join(names), *(",".join(map(repr, map(float, row))) for row in table)]
    path = write(tmp_path_factory.mktemp("csv"), "\n".join(lines) + "\n")
    features, target = read_csv(path, names[place])
    np.testing.assert_array_equal(features, np.delete(table, place, axis=1))
    np.testing.assert_array_equal(target, table[:, place])


def test_blanks_empty_lines_and_a_byte_order_mark_are_passed_over(tmp_path):
    path = write(tmp_path, "\ufeffage , price\n1, 10\n\n 2 ,20\n")
    features, target = read_csv(str(path), "age")
    np.testing.assert_array_equal(features, [[10], [20]])
    np.testing.assert_array_equal(target, [1, 2])


def test_quoted_cells_are_read(tmp_path):
    features, _ = read_csv(write(tmp_path, '"a, b","y"\n"1.5","2"\n'), "y")
    np.testing.assert_array_equal(features, [[1.5]])


def test_an_unknown_column_is_refused(tmp_path):
    path = write(tmp_path, "a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"`target` must be a column of .*table.csv, one of \['a', 'b'\]; got 'c'"):
        read_csv(path, "c")


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_file_is_refused(tmp_path, text):
    with pytest.raises(
        ValueError, match=r"`path` must hold a header line and rows of numbers; got .*table.csv.* empty"
    ):
        read_csv(write(tmp_path, text), "y")


@pytest.mark.parametrize("text", ["a,y\n", "y\n1\n"])
def test_a_file_without_features_or_rows_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match="`path` must hold a feature column and a row of data"):
        read_csv(write(tmp_path, text), "y")


@pytest.mark.parametrize("row", ["1", "1,2,3"])
def test_a_row_of_another_length_is_refused_with_its_line(tmp_path, row):
    with pytest.raises(
        ValueError, match=rf"table.csv, line 3 must have 2 cells, as the header; got {row.count(',') + 1}"
    ):
        read_csv(write(tmp_path, f"a,y\n1,2\n{row}\n"), "y")


@pytest.mark.parametrize("cell", ["x", "", "nan", "inf", "1e400"])
def test_a_cell_that_is_no_finite_number_is_refused_with_its_place(tmp_path, cell):
    with pytest.raises(ValueError, match=f"table.csv, line 3, column 'y' must be a finite number; got '{cell}'"):
        read_csv(write(tmp_path, f"a,y\n1,2\n3,{cell}\n"), "y")


def test_an_error_names_the_line_of_the_file_though_lines_before_it_are_empty(tmp_path):
    with pytest.raises(ValueError, match="line 5, column 'y'"):
        read_csv(write(tmp_path, "a,y\n1,2\n\n\n3,x\n"), "y")


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`path` must be a file that can be read; got .*none.csv: No such file"):
        read_csv(tmp_path / "none.csv", "y")
    with pytest.raises(ValueError, match=r"`path` must be a file that can be read; got .*: Is a directory"):
        read_csv(tmp_path, "y")


@pytest.mark.parametrize("header", ["a,y,y", "y,a, y", 'y,"y",a'])
def test_a_target_of_several_columns_is_refused(tmp_path, header):
    """The second one would remain among the features, and give the answer away."""
    places = [i for i, name in enumerate(header.split(","), start=1) if "y" in name]
    with pytest.raises(ValueError, match=rf"`target` must be one column of .*table.csv; got 'y' as columns \{places}"):
        read_csv(write(tmp_path, f"{header}\n1,2,3\n"), "y")


def test_a_second_header_line_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"table.csv, line 3, column 'a' must be a finite number; got 'a'"):
        read_csv(write(tmp_path, "a,y\n1,2\na,y\n3,4\n"), "y")


def test_features_of_one_name_are_read(tmp_path):
    np.testing.assert_array_equal(read_csv(write(tmp_path, "a,,,y\n1,2,3,4\n"), "y")[0], [[1, 2, 3]])


TEXT = "größe,y\n1.5,2\n3,4\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_files_that_have_one_right_reading_are_read(tmp_path, encoding, ends, compress):
    path = tmp_path / "table.csv"
    path.write_bytes(compress(TEXT.replace("\n", ends).encode(encoding)))
    features, target = read_csv(path, "y")
    np.testing.assert_array_equal(features, [[1.5], [3]])
    np.testing.assert_array_equal(target, [2, 4])
    np.testing.assert_array_equal(read_csv(path, "größe")[0], [[2], [4]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            TEXT.encode("latin-1"),
            r"table.csv, line 1, column 1 must be in UTF-8; got 'gr\\\\xf6\\\\xdfe'. Save the file",
        ),
        (b"a,y\n1,2\n3,\xa34\n", r"table.csv, line 3, column 'y' must be a finite number; got '\\\\xa34'"),
        (TEXT.encode("utf-16-le"), r"must be a text file; got .*table.csv, which holds zero bytes"),
        (bytes(range(256)), r"must be a text file; got .*table.csv, which holds zero bytes"),
        (b"PK\x03\x04\xff\xfe", "table.csv, line 1, column 1 must be in UTF-8"),
        (TEXT.encode("utf-16") + b"1", "must be in utf-16, as its byte order mark says; got .*table.csv: .*truncated"),
        (
            gzip.compress(TEXT.encode())[:-9],
            "must be a complete gzip file; got .*table.csv: ",
        ),
        (b"\x1f\x8bno", "must be a complete gzip file; got .*table.csv: "),
        (
            gzip.compress(TEXT.encode())[:12] + bytes(40),
            "must be a complete gzip file; got .*table.csv: ",
        ),
        (b"a;y\n1;2\n", r"`target` must be a column of .*table.csv, one of \['a;y'\]; got 'y'"),
        (
            b"a,y\n1,2\n" + b"7" * 200_000 + b",4\n",
            "table.csv, line 3, column 'a' must hold at most 131072 characters; got 200000",
        ),
        (
            b"a,y\n1,2\n3," + b"x" * 200_000 + b"\n",
            "table.csv, line 3, column 'y' must hold at most 131072 characters; got 200000",
        ),
        (
            b"a," + b"y" * 200_000 + b"\n1,2\n",
            "table.csv, line 1, column 2 must hold at most 131072 characters; got 200000",
        ),
        (
            b"a,y\n1,2\n3," + b"x" * 100_000 + b"\n",
            r"line 3, column 'y' must be a finite number; got 'x{20,30}\.\.\.x{20,30}'",
        ),
        (b'a,y\n1,"2\n3,4\n', r"line 3, column 'y' must be a finite number; got '2\\n3,4'"),
        (
            b'a,y\n1,"2\n' + 20_000 * b"3,4,5,6\n",
            r"table.csv, line \d+: a quote must be closed within 131072 characters; got an ear",
        ),
        (",".join(f"c{i}" for i in range(1000)).encode(), r"`target` must be a column of .*, 'c49', \.\.\.\]; got 'y'"),
    ],
    ids=[
        "latin-1 header",
        "latin-1 cell",
        "utf-16 without a mark",
        "binary",
        "archive",
        "half a character",
        "gzip cut off",
        "gzip's first bytes",
        "gzip damaged",
        "semicolons",
        "200,000 digits",
        "200,000 letters",
        "200,000 letters of a name",
        "100,000 letters",
        "a quote left open",
        "a quote left open before long lines",
        "1,000 columns",
    ],
)
def test_other_files_are_refused_with_file_and_place(tmp_path, data, message):
    path = tmp_path / "table.csv"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        read_csv(path, "y")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_read_table_makes_prompts(key, tmp_path):
    rows = "\n".join(f"{i},{i * i},{7 - i}" for i in range(6))
    prompts = from_table(key, *read_csv(write(tmp_path, f"a,b,y\n{rows}\n"), "b"), batch=20, examples=5)
    assert prompts.tokens.shape == (20, 5, 6)
    assert jnp.all(jnp.isfinite(prompts.tokens))
