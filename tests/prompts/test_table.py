import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.datasets import load_diabetes

from wgf.prompts import diabetes, from_table

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


@pytest.mark.parametrize("factor", [2.0**600, 2.0**-600])
def test_units_do_not_matter(key, table, factor):
    prompts, scaled = (from_table(key, *(f * a for a in table), batch=20, examples=5) for f in (1.0, factor))
    np.testing.assert_array_equal(scaled.tokens, prompts.tokens)


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
