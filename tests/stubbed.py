"""The command line with an experiment that computes nothing: run in processes of their own by `test_cli`."""

import numpy as np
from matplotlib.figure import Figure

from wgf import cli
from wgf.experiments import EXPERIMENTS, Experiment, LimitConfig

TABLE = "tau τ\nslope 1.0 ± 0.1, R² 0.9"


class Stub:
    """A result that is there at once."""

    def __init__(self, config):
        self.config = config

    def table(self):
        return TABLE

    def arrays(self):
        return {"numbers": np.arange(3)}

    def figure(self):
        return Figure(figsize=(1, 1))


if __name__ == "__main__":
    EXPERIMENTS["limit"] = Experiment(LimitConfig, Stub)
    cli.main()
