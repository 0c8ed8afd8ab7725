"""Analysis: what two solutions, or one, tell."""

from ._gap import Gap as Gap, gap as gap
