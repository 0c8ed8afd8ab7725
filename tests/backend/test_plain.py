"""The switch that turns the machine room off: the same numbers, without what JAX does not promise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import in_float64
from plain_numbers import numbers

import wgf
from wgf._backend.plain import PLAIN

SCRIPT = Path(__file__).parents[1] / "plain_numbers.py"


@pytest.mark.heavy
def test_without_the_machine_room_the_numbers_are_the_same():
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(wgf.__file__).parents[1]),
        "WGF_PLAIN": "1",
        "JAX_ENABLE_X64": str(int(in_float64())),
    }
    script = subprocess.Popen(
        [sys.executable, str(SCRIPT)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    expected = numbers()
    output, errors = script.communicate(timeout=300)
    assert script.returncode == 0, errors
    found = json.loads(output)
    assert found["is_plain"]
    assert not PLAIN
    assert found["numbers"].keys() == expected.keys()
    atol = 1e-10 if in_float64() else 1e-4
    for name, arrays in expected.items():
        for array, other in zip(arrays, found["numbers"][name], strict=True):
            scale = np.max(np.abs(array)) + 1e-300
            np.testing.assert_allclose(np.array(other) / scale, np.array(array) / scale, atol=atol, err_msg=name)
