"""What would fit, where a plan says that something does not: more chips, or fewer rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jaxtrace.parallel.mesh import written
from jaxtrace.planning.plan import Plan, Request, planned
from jaxtrace.planning.program import shard_bytes
from jaxtrace.planning.topology import larger

OnTry = Callable[[Request], None]  # told what is compiled next


def smallest_topology(found: Plan, on_try: OnTry = lambda _: None) -> Plan | None:
    """The same run on the smallest listed slice of more such chips on which it fits, its mesh chosen; None for none."""
    for topology in larger(found.request.topology):
        tried = _tried(dataclasses.replace(found.request, topology=topology, mesh=None), on_try)
        if tried is not None:
            return tried
    return None


def largest_batch(found: Plan, on_try: OnTry = lambda _: None) -> Plan | None:
    """The same run with the most rows that fit its slice, fewer than it has; None where none do.

    They are whole multiples of what its mesh splits rows into.
    """
    parts = found.mesh["data"]
    best, fitting, too_many = None, 0, -(-found.request.batch // parts)
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        tried = _tried(dataclasses.replace(found.request, batch=middle * parts, mesh=written(found.mesh)), on_try)
        if tried is None:
            too_many = middle
        else:
            best, fitting = tried, middle
    return best


def _tried(request: Request, on_try: OnTry) -> Plan | None:
    """The plan of a request if it fits; what its weights and state fill already is not compiled."""
    job = request.job()
    if shard_bytes((job.params, job.state(job.batch))) > request.topology.usable:
        return None
    on_try(request)
    found = planned(request)
    return found if found.fits else None
