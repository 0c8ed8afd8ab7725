"""Analysis: what two solutions, or one, tell."""

from ._certificate import Certificate as Certificate, certificate as certificate
from ._gap import Gap as Gap, gap as gap
