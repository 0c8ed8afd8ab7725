"""The machine room: all that makes the mathematics fast, and nothing that changes a number.

Contractions, attention heads, tiles and chunks that fit a processor's cache; means over the devices of a mesh;
outlining and reuse of compiled programs; full precision of products. `compat` alone imports what JAX, Equinox and
Diffrax do not promise to keep. The environment variable `WGF_PLAIN=1` turns the room off (`plain`).
"""
