"""Programs for chips are read right: loops, slices, layouts, groups of chips; and what the rates make of them."""

import dataclasses
import importlib
from pathlib import Path

import jax
import pytest
from _account import Kernel, Message, account, array_bytes, group, numbers_bytes
from _rates import Rates, kernels_seconds, message_seconds, messages_seconds

FOLDER = Path(__file__).parents[1] / "benchmarks"
PROGRAM = """
HloModule jit_f, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

%take (x: f32[8,4], i: s32[]) -> f32[1,4] {
  %x.1 = f32[8,4]{1,0} parameter(0)
  %i.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %cut = f32[1,4]{1,0} dynamic-slice(%x.1, %i.1, %zero), dynamic_slice_sizes={1,4}
}

%put (x: f32[8,4], row: f32[1,4], i: s32[]) -> f32[8,4] {
  %x.2 = f32[8,4]{1,0} parameter(0)
  %row.2 = f32[1,4]{1,0} parameter(1)
  %i.2 = s32[] parameter(2)
  %zero.2 = s32[] constant(0)
  ROOT %new = f32[8,4]{1,0} dynamic-update-slice(%x.2, %row.2, %i.2, %zero.2)
}

%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %p = (s32[], f32[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8,4]{1,0} get-tuple-element(%p), index=1
  %row = f32[1,4]{1,0} fusion(%x, %i), kind=kLoop, calls=%take, metadata={op_name="a(b), c=(d)"}
  %sum = f32[1,4]{1,0} all-reduce(%row), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%add
  %y = f32[8,4]{1,0} fusion(%x, %sum, %i), kind=kLoop, calls=%put
  ROOT %t = (s32[], f32[8,4]{1,0}) tuple(%i, %y)
}

%condition (p: (s32[], f32[8,4])) -> pred[] {
  %p.1 = (s32[], f32[8,4]{1,0}) parameter(0)
  %i.3 = s32[] get-tuple-element(%p.1), index=0
  %limit = s32[] constant(5)
  ROOT %less = pred[] compare(%i.3, %limit), direction=LT
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x.3 = f32[8,4]{1,0} parameter(0)
  %start = s32[] constant(0)
  %both = (s32[], f32[8,4]{1,0}) tuple(%start, %x.3)
  %loop = (s32[], f32[8,4]{1,0}) while(%both), condition=%condition, body=%body
  %out = f32[8,4]{1,0} get-tuple-element(%loop), index=1
  %doubled = f32[8,4]{1,0} add(%out, %out)
  %moved = ((f32[8,4]{1,0}), f32[8,4]{0,1}, u32[]) fusion-start(%doubled), kind=kLoop, calls=%flip
  ROOT %done = f32[8,4]{0,1} fusion-done(%moved)
}
"""
# The two fusions of a step: a row and a counter each, read and written.
KERNELS = [
    Kernel("fusion", 16 + 4 + 16, 5),
    Kernel("fusion", 16 + 4 + 16, 5),
    Kernel("add", 3 * 128, 1),
    Kernel("fusion-start", 128 + 128 + 4, 1),
]


def test_kernels_and_messages_of_a_program_with_a_loop():
    kernels, messages = account(PROGRAM)
    assert kernels == KERNELS
    assert messages == [Message("all-reduce", 16, (0, 1, 2, 3), 5)]


def test_xlas_own_note_of_a_loops_length_comes_first():
    noted = PROGRAM.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}')
    assert account(noted)[1][0].times == 7


def test_a_program_of_unknown_work_is_refused():
    with pytest.raises(ValueError, match="loops must have a known length, for what they do to be known; loop has none"):
        account(PROGRAM.replace("direction=LT", "direction=NE"))
    branch = "%doubled = f32[8,4]{1,0} conditional(%out), branch_computations={%take, %put}"
    with pytest.raises(ValueError, match="the program must not branch, for what it does to be known; doubled does"):
        account(PROGRAM.replace("%doubled = f32[8,4]{1,0} add(%out, %out)", branch))


def test_the_programs_of_this_jax_are_read():
    """The kernels of a loop of products, in the text that the installed compiler prints."""

    def function(x, w):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]

    text = jax.jit(function).lower(jax.numpy.ones((4, 4)), jax.numpy.ones((6, 4, 4))).compile().as_text()
    kernels, messages = account(text)
    assert sum(kernel.times for kernel in kernels) >= 6
    assert not messages
    size = jax.numpy.ones(()).dtype.itemsize
    # Each product reads two matrices and writes one, and no step touches all six.
    assert 6 * 3 * 16 * size <= sum(kernel.times * kernel.bytes for kernel in kernels) < 6 * 12 * 16 * size


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("f32[3,5]{1,0}", 60),
        ("(f32[3]{0}, s32[], bf16[2,2]{1,0})", 24),
        ("f32[3,5]{1,0:T(8,128)}", 4 * 8 * 128),
        ("f32[5,3,130]{1,2,0:T(8,128)}", 4 * 5 * 128 * 136),
        ("f32[3,5]{1,0:T(8,128)S(1)}", 0),
        ("f32[300]{0:T(128)}", 4 * 384),
    ],
)
def test_bytes_are_padded_to_the_layout(shape, expected):
    assert array_bytes(shape) == expected


def test_numbers_are_counted_without_their_layout():
    assert numbers_bytes("(f32[3,5]{1,0:T(8,128)S(1)}, pred[7]{0})") == 67


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("replica_groups=mesh['prompts'=2,'particles'=3] {'particles'}, x", (0, 1, 2)),
        ("replica_groups=mesh['prompts'=2,'particles'=3] {'prompts'}, x", (0, 3)),
        ("replica_groups=mesh['prompts'=2,'particles'=2] {'prompts','particles'}", (0, 1, 2, 3)),
        ("replica_groups=[3,2]<=[2,3]T(1,0), x", (0, 3)),
        ("replica_groups=[1,4]<=[4]", (0, 1, 2, 3)),
        ("replica_groups={{0,2},{1,3}}", (0, 2)),
        ("source_target_pairs={{0,1},{1,0}}", (0, 1)),
        ("channel_id=1", ()),
    ],
)
def test_groups_of_chips(text, expected):
    assert group(text) == expected


RATES = Rates(memory=100.0, arithmetic=1.0, launch=0.5, near=10.0, far=2.0, latency=(0.25, 0.75), host=2)


def test_seconds_of_kernels_are_launches_or_bytes():
    assert kernels_seconds([Kernel("small", 10, 3), Kernel("large", 200, 2)], RATES) == 3 * 0.5 + 2 * 2.0


def test_seconds_of_messages():
    within, across = (Message("all-reduce", 40, chips, 1) for chips in ((0, 1), (0, 2)))
    assert message_seconds(within, RATES) == pytest.approx(0.25 + 40 / 10)
    assert message_seconds(across, RATES) == pytest.approx(0.75 + 40 / 2)
    # Two hosts of two: half of the bytes goes to the other host from each chip.
    both = Message("all-reduce", 40, (0, 1, 2, 3), 3)
    assert message_seconds(both, RATES) == pytest.approx(0.75 + 40 / 10 + 20 / 2)
    assert message_seconds(Message("all-gather", 40, (0, 1), 1), RATES) == pytest.approx(0.25 + 20 / 10)
    assert messages_seconds([within, both], RATES) == pytest.approx(4.25 + 3 * 14.75)


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("_forecast_tables")


def found(tables, kernels, messages):
    return tables.Found(1.0, 2**20, 0, 10**6, kernels, messages)


def test_what_must_be_sent(tables):
    program = tables.Program("h100", "1x4", (2, 2), (3, 8, 4, 5, 9, 2))
    # Three layers of two halves, forward and backward, two prompts; four particles of 45 + 10 numbers per layer.
    assert program.sent() == (12 * 2 * 45 * 4, 3 * 4 * 55 * 4)
    alone = tables.Program("h100", "1x4", (4, 1), (3, 8, 4, 5, 9, 2))
    assert alone.sent() == (0, 3 * 8 * 55 * 4)


def test_claims_fail_where_particles_are_gathered_or_too_much_is_sent(tables):
    program = tables.Program("h100", "1x2", (1, 2), (3, 8, 4, 5, 9, 2))
    tokens = Message("all-reduce", program.sent()[0] // 12, (0, 1), 12)
    good, gathering, talking = (
        found(tables, [], [tokens, *more]) for more in ([], [Message("all-gather", 10**6, (0, 1), 1)], [tokens])
    )
    checks = [[check.holds for check in tables.message_checks(program, each)] for each in (good, gathering, talking)]
    assert checks == [[True, True], [False, False], [True, False]]


def test_the_table_of_clusters(tables):
    one, two = (tables.Program("h100", f"1x{n}", (1, n), (3, 8, 4, 5, 9, 2)) for n in (1, 2))
    kernels = [Kernel("fusion", 33_500_000_000, 1)]
    half = [Kernel("fusion", 16_750_000_000, 1)]
    message = Message("all-reduce", 45_000_000, (0, 1), 1)
    table = tables.of_clusters(
        "clusters", [one, two, two], [found(tables, kernels, []), found(tables, half, [message]), None]
    )
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert rows[0]["forecast ms"] == pytest.approx(10)
    assert rows[1]["messages ms"] == pytest.approx(0.11)
    assert rows[1]["efficiency"] == pytest.approx(10 / 2 / 5.11)
    assert rows[2]["forecast ms"] is None
    (check,) = tables.with_efficiency(dataclasses.replace(table, checks=[])).checks
    assert check.claim == "1x2, 1 x 2: efficiency"
    assert check.holds


def test_growth_is_once_for_tokens_and_twice_for_gradients(tables):
    half, whole = (tables.Program("h100", "1x4", (2, 2), (3, width, 4, 5, 9, 2)) for width in (8, 16))

    def sent(gradients):
        return found(tables, [], [Message("all-reduce", 90, (0, 1), 4), Message("all-reduce", gradients, (0, 2), 1)])

    good = tables.of_growth((half, sent(100)), (whole, sent(200)))
    assert [check.holds for check in good.checks] == [True, True]
    bad = tables.of_growth((half, sent(100)), (whole, sent(300)))
    assert [check.holds for check in bad.checks] == [True, False]
    assert not tables.of_growth((half, None), (whole, sent(200))).checks


def test_a_program_that_takes_too_long_is_left_out(tables, capsys):
    forecast = importlib.import_module("forecast")
    program = tables.Program("h100", "1x1", (1, 1), forecast.QUICK)
    assert forecast.compiled(program, patience=0.05) is None
    assert "is left out: its compiler takes more than 0.05 s" in capsys.readouterr().out


@pytest.mark.heavy
def test_a_program_that_does_not_compile_is_named(tables):
    forecast = importlib.import_module("forecast")
    program = tables.Program("no-such-chip", "1x1", (1, 1), forecast.QUICK)
    with pytest.raises(RuntimeError, match=r"(?s)no-such-chip 1x1, .* must compile; got .*Install the extra `aot`"):
        forecast.compiled(program, patience=100)
