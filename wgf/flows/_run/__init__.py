"""A flow driven from the host in segments: what a person starts, watches, stops and resumes."""

from .run import run as run
