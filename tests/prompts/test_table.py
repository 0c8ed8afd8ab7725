import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.datasets import load_diabetes

from wgf.prompts import diabetes, from_table, read_csv

ROWS, COLUMNS = 12, 4


@pytest.fixture
def table():
    """A table whose entries are all distinct, so that a standardised value names its row."""
    rng = np.random.default_rng(3)
    return rng.normal(5, 3, size=(ROWS, COLUMNS)), rng.normal(-40, 10, size=ROWS)


@pytest.fixture
def prompts(key, table):
    """Prompts from that table."""
    return from_table(key, *table, batch=20, examples=5)


def standardised(array):
    return (array - array.mean(axis=0)) / array.std(axis=0)


def row_numbers(prompts, features):
    """For each prompt the row of each token, and the columns it shows."""
    columns = standardised(features)
    found = []
    for prompt in np.asarray(prompts.tokens)[:, : prompts.label_row]:
        # All tokens of a prompt show the same columns: the ones that hold every one of its values.
        shown = [
            next(c for c in range(COLUMNS) if all(np.isclose(columns[:, c], v, atol=1e-9).any() for v in values))
            for values in prompt
        ]
        rows = [int(np.flatnonzero(np.isclose(columns[:, shown[0]], v, atol=1e-9))[0]) for v in prompt[0]]
        found.append((rows, shown))
    return found


def test_shapes_follow_the_arguments(key, table):
    prompts = from_table(key, *table, batch=7, examples=5, dim=3, positions=4)
    assert prompts.tokens.shape == (7, 8, 6)
    assert prompts.labels.shape == (7,)
    assert prompts.label_row == 3


def test_the_label_of_the_query_is_hidden(prompts):
    np.testing.assert_array_equal(prompts.tokens[:, 2, -1], 0)
    assert np.all(np.abs(prompts.tokens[:, 2, :-1]) > 0)


def test_entries_are_standardised_over_the_whole_table(prompts, table):
    features, target = table
    expected_x, expected_y = standardised(features), standardised(target)
    for (rows, columns), tokens, label in zip(
        row_numbers(prompts, features), np.asarray(prompts.tokens), prompts.labels, strict=True
    ):
        np.testing.assert_allclose(tokens[:2], expected_x[np.ix_(rows, columns)].T, atol=1e-12)
        np.testing.assert_allclose(tokens[2, :-1], expected_y[rows[:-1]], atol=1e-12)
        np.testing.assert_allclose(label, expected_y[rows[-1]], atol=1e-12)


@settings(deadline=None, max_examples=4)
@given(st.integers(0, 10**6))
def test_rows_and_columns_of_a_prompt_are_drawn_without_replacement(seed):
    features = np.random.default_rng(0).normal(size=(ROWS, COLUMNS))
    prompts = from_table(jax.random.key(seed), features, features[:, 0], batch=20, examples=ROWS - 1, dim=COLUMNS)
    for rows, columns in row_numbers(prompts, features):
        assert sorted(rows) == list(range(ROWS))
        assert sorted(columns) == list(range(COLUMNS))


def test_prompts_differ_in_their_rows_and_columns(prompts, table):
    found = row_numbers(prompts, table[0])
    assert len({tuple(rows) for rows, _ in found}) == 20
    assert len({tuple(columns) for _, columns in found}) > 5


def test_a_constant_column_becomes_zero(key, table):
    features, target = table
    features = np.full_like(features, 3.0)
    np.testing.assert_array_equal(from_table(key, features, target, batch=20, examples=5).tokens[:, :2], 0)


def test_the_units_of_the_table_do_not_matter(key, table):
    features, target = table
    first = from_table(key, features, target, batch=20, examples=5)
    second = from_table(key, 1000 * features - 7, target / 50 + 2, batch=20, examples=5)
    np.testing.assert_allclose(first.tokens, second.tokens, atol=1e-10)


def test_the_same_key_gives_the_same_prompts(key, table):
    first, second = (from_table(key, *table, batch=20, examples=5) for _ in range(2))
    np.testing.assert_array_equal(first.tokens, second.tokens)


def test_diabetes_has_the_shapes_asked_for(key):
    prompts = diabetes(key, batch=1000, examples=1)
    assert prompts.tokens.shape == (1000, 5, 2)
    assert prompts.label_row == 2


def test_diabetes_comes_from_its_table(key):
    features, target = load_diabetes(return_X_y=True)
    expected = from_table(key, features, target, batch=1000, examples=1)
    np.testing.assert_array_equal(diabetes(key, batch=1000, examples=1).tokens, expected.tokens)


def test_diabetes_labels_are_standardised_up_to_sampling(key):
    rms = float(diabetes(key, batch=1000, examples=1).label_rms())
    labels = standardised(load_diabetes(return_X_y=True)[1])
    spread = np.std(labels**2) / np.sqrt(1000)
    assert abs(rms**2 - 1) < 4 * spread, (rms, spread)


@pytest.mark.parametrize("shape", [(12,), (12, 4, 1), (12, 0), (0, 4)])
def test_features_of_another_shape_are_refused(key, shape):
    with pytest.raises(ValueError, match=r"`features` must have shape \[rows, columns\]"):
        from_table(key, np.zeros(shape), np.zeros(12), batch=1, examples=1)


@pytest.mark.parametrize("shape", [(11,), (12, 1)])
def test_a_target_of_another_shape_is_refused(key, table, shape):
    with pytest.raises(ValueError, match=r"`target` must have shape \[rows\] = \[12\]"):
        from_table(key, table[0], np.zeros(shape), batch=1, examples=1)


@pytest.mark.parametrize(("place", "name"), [(0, "features"), (1, "target")])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_entries_that_are_not_finite_are_refused(key, table, place, name, bad):
    table[place].flat[3] = bad
    with pytest.raises(ValueError, match=f"`{name}` must be finite; got 1 entries"):
        from_table(key, *table, batch=1, examples=1)


@pytest.mark.parametrize("argument", ["batch", "examples", "dim"])
def test_a_count_below_one_is_refused(key, table, argument):
    with pytest.raises(ValueError, match=f"`{argument}` must be a whole number of at least 1; got 0"):
        from_table(key, *table, **{"batch": 2, "examples": 2, "dim": 2, argument: 0})


def test_too_few_rows_are_refused(key, table):
    with pytest.raises(ValueError, match="`examples` must be below the table's number of rows, 12; got 12"):
        from_table(key, *table, batch=1, examples=12)


def test_too_few_columns_are_refused(key, table):
    with pytest.raises(ValueError, match="`dim` must be at most the table's number of feature columns, 4; got 5"):
        from_table(key, *table, batch=1, examples=1, dim=5)


def test_odd_positions_are_refused(key, table):
    with pytest.raises(ValueError, match="`positions` must be even"):
        from_table(key, *table, batch=1, examples=1, positions=3)


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


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`target` must be a column of .*, one of \[\]; got 'y'"):
        read_csv(write(tmp_path, ""), "y")


@pytest.mark.parametrize("text", ["a,y\n", "y\n1\n"])
def test_a_file_without_features_or_rows_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match="`path` must hold a feature column and a row of data"):
        read_csv(write(tmp_path, text), "y")


@pytest.mark.parametrize("row", ["1", "1,2,3"])
def test_a_row_of_another_length_is_refused_with_its_line(tmp_path, row):
    with pytest.raises(ValueError, match=rf"line 3 must have 2 cells as the header has; got {row.count(',') + 1}"):
        read_csv(write(tmp_path, f"a,y\n1,2\n{row}\n"), "y")


@pytest.mark.parametrize("cell", ["x", "", "nan", "inf"])
def test_a_cell_that_is_no_finite_number_is_refused_with_its_place(tmp_path, cell):
    with pytest.raises(ValueError, match=f"line 3, column 'y' must be a finite number; got '{cell}'"):
        read_csv(write(tmp_path, f"a,y\n1,2\n3,{cell}\n"), "y")


def test_an_error_names_the_line_of_the_file_though_lines_before_it_are_empty(tmp_path):
    with pytest.raises(ValueError, match="line 5, column 'y'"):
        read_csv(write(tmp_path, "a,y\n1,2\n\n\n3,x\n"), "y")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_csv(tmp_path / "none.csv", "y")


def test_a_read_table_makes_prompts(key, tmp_path):
    rows = "\n".join(f"{i},{i * i},{7 - i}" for i in range(6))
    prompts = from_table(key, *read_csv(write(tmp_path, f"a,b,y\n{rows}\n"), "b"), batch=20, examples=5)
    assert prompts.tokens.shape == (20, 5, 6)
    assert jnp.all(jnp.isfinite(prompts.tokens))
