"""Plots on given axes: of one's own solutions, and of plain results. No global style is set."""

from ._curves import (
    bundles as bundles,
    courses as courses,
    families as families,
    learning_curves as learning_curves,
    ranges as ranges,
)
from ._kinds import kind_curves as kind_curves, kind_points as kind_points, strips as strips
from ._laws import fitted as fitted, power_laws as power_laws, prediction as prediction, swept as swept
from ._limit import (
    clouds as clouds,
    distance_laws as distance_laws,
    gap_curves as gap_curves,
    risk_curves as risk_curves,
    signed_gap_curves as signed_gap_curves,
)
from ._markov import (
    escape_steps as escape_steps,
    excess_curves as excess_curves,
    phase_portrait as phase_portrait,
    success_bars as success_bars,
    success_curves as success_curves,
)
from ._solutions import (
    depth_map as depth_map,
    flow_curves as flow_curves,
    gap_parts as gap_parts,
    moving_law as moving_law,
    token_paths as token_paths,
)
