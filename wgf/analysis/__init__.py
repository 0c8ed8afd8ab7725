"""Analysis: gaps between two solutions, and rates, certificates and diagnoses."""

from .._backend import precision as _precision
from ._assumptions import Assumptions as Assumptions, Lipschitz as Lipschitz, check_assumptions as check_assumptions
from ._certificate import Certificate as Certificate, certificate as certificate
from ._conditional_gradient import (
    ConditionalGradient as ConditionalGradient,
    conditional_gradient as conditional_gradient,
)
from ._cubature import cubature as cubature
from ._diagnose import Finding as Finding, diagnose as diagnose
from ._estimate import Estimate as Estimate, student_quantile as student_quantile
from ._gap import Gap as Gap, gap as gap
from ._linear_rate import LinearRate as LinearRate, linear_rate as linear_rate
from ._noise import Noise as Noise, Resolved as Resolved, noise as noise
from ._pairs import Distances as Distances
from ._rates import FORMS as FORMS, RateFit as RateFit, Verdict as Verdict, fit_rates as fit_rates
from ._replicates import (
    Replicates as Replicates,
    flow_each as flow_each,
    flow_replicates as flow_replicates,
    pool as pool,
)
from ._tangent_kernel import TangentKernel as TangentKernel, tangent_kernel as tangent_kernel

_precision.export(globals())
