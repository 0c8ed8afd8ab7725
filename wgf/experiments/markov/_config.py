"""The options of `wgf markov`."""

from dataclasses import dataclass
from pathlib import Path

from ..._checks import shown
from ...companions import CanonicalRisk
from .._options import check_options, of_option
from .._settings import Device

MOST_STEPS = 10**6
"""The most steps of one training at a constant rate."""


@dataclass(frozen=True)
class MarkovConfig:
    """Flow the canonical model of binary Markov data from a grid of starts. Train one-layer and mean-field Transformers
    from many seeds, and count the seeds that find the bigram solution.
    """

    chains: tuple[tuple[float, float], ...] = ((0.1, 0.1), (0.2, 0.5), (0.7, 0.9), (0.9, 0.9))
    """The chains, as pairs of switching probabilities P(1|0) and P(0|1)."""
    grid: int = 25
    """Starts of the canonical model along each axis of [-3, 3]^2."""
    tau: float = 2000.0
    """The longest training time of the canonical model's flow."""
    scales: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.5)
    """Standard deviations of the standard initialisation."""
    seeds: int = 12
    """The number of seeds of every initialisation."""
    steps: int = 1000
    """AdamW steps of the one-layer Transformer."""
    batch: int = 32
    """The number of new sequences in each step."""
    length: int = 32
    """Next-token predictions in a sequence."""
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3, 8e-3)
    """AdamW's learning rates in the runs that vary the rate; it is 2e-3 in all other runs."""
    reach: float = 4.0
    """Rate times steps in the runs at constant rates, in which the steps to escape the unigram solution are counted."""
    widths: tuple[int, ...] = (4, 16, 64, 256)
    """Numbers of neurons of the feed-forward layer in the runs that vary its width."""
    particles: tuple[int, ...] = (1, 4, 16)
    """Heads and neurons M of the mean-field Transformer."""
    hard: tuple[float, float] = (0.9, 0.9)
    """The chain of the runs that vary learning rate and width."""
    seed: int = 0
    """The seed of every random draw."""
    quick: bool = False
    """A small run: fewer starts, chains, scales, widths, seeds and steps, unless these are given."""
    x64: bool = False
    """Compute in float64; by default in JAX's own precision, mostly float32."""
    device: Device | None = None
    """The kind of device to compute on; by default the one that JAX chooses."""
    out: Path | None = None
    """The results folder; by default a new one under results/."""

    @classmethod
    def quick_default(cls) -> "MarkovConfig":
        """The defaults of `--quick`."""
        return cls(
            chains=((0.1, 0.1), (0.9, 0.9)),
            grid=13,
            scales=(0.02, 0.2),
            seeds=4,
            steps=400,
            length=16,
            rates=(4e-3,),
            reach=1.6,
            widths=(256,),
            particles=(4,),
            quick=True,
        )


def check(config: MarkovConfig) -> None:
    """Raise `ValueError` that names the first option that cannot be used."""
    if not config.chains or any(p + q == 1 for p, q in (*config.chains, config.hard)):
        raise ValueError(
            "`chains` must be pairs (p, q), at least one, with p + q other than 1 (independent symbols have no bigram "
            f"structure); got {shown(config.chains)} and `hard` {config.hard}."
        )
    for p, q in (*config.chains, config.hard):
        with of_option("hard" if (p, q) == config.hard else "chains"):
            CanonicalRisk(p, q)
    for name in ("scales", "rates", "widths", "particles"):
        if not getattr(config, name):
            raise ValueError(f"`{name}` must hold at least one number; got none.")
    check_options(config, least={"grid": 2}, distinct=("chains", "scales", "rates", "widths", "particles"))
    if config.reach / min(config.rates) > MOST_STEPS:
        raise ValueError(
            f"`reach` over the least of `rates` must be at most {MOST_STEPS:,}, a number of steps; got "
            f"{config.reach:g} over {min(config.rates):g}."
        )
