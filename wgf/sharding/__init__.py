"""Sharding of a flow over devices: prompts along one axis of a mesh, particles along the other."""

from ._sharding import (
    gather as gather,
    mesh as mesh,
    parse_mesh as parse_mesh,
    shard as shard,
    start_processes as start_processes,
)
