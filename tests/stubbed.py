"""The command line with an experiment that computes nothing: run in processes of their own by `test_cli`."""

import signal
import threading

import jax
import numpy as np
from matplotlib.figure import Figure

from wgf import cli
from wgf.experiments import EXPERIMENTS, AbstractResult, Experiment, LimitConfig
from wgf.experiments._table import Table

_TABLE = Table(("tau τ",), [["slope 1.0 ± 0.1, R² 0.9"]], left=(0,))
TABLE = str(_TABLE)


class Stub(AbstractResult):
    """A result that is there at once."""

    def __init__(self, config):
        self.config = config

    def tables(self):
        return (_TABLE,)

    def arrays(self):
        return {"numbers": np.arange(3)}

    def figure(self):
        return Figure(figsize=(1, 1))


ENDLESS = 13
"""The seed of a run that never ends."""


def run(config):
    """A result at once, or compiled code that runs for ever, in the main thread and in a second one."""
    if config.seed == ENDLESS:
        endless = jax.jit(lambda x: jax.lax.while_loop(lambda y: y < 1, lambda y: y * 0.5, x))
        threading.Thread(target=endless, args=(0.5,)).start()
        (config.out / "busy").touch()
        jax.block_until_ready(endless(0.25))
    return Stub(config)


if __name__ == "__main__":
    # The tests themselves may run where Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    EXPERIMENTS["limit"] = Experiment(LimitConfig, run)
    cli.main()
