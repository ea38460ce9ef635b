"""Search for a run that fits when a plan does not: more chips, or fewer rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jaxtrace.parallel.mesh import mesh_text
from jaxtrace.planning.plan import Plan, Request, planned
from jaxtrace.planning.program import shard_bytes
from jaxtrace.planning.topology import larger

OnTry = Callable[[Request], None]  # called with each request before it is compiled


def smallest_topology(plan: Plan, on_try: OnTry = lambda _: None) -> Plan | None:
    """Return the same run on the smallest larger slice that fits it, with an automatic mesh; None if none fits."""
    for topology in larger(plan.request.topology):
        fitting = _plan_if_fits(dataclasses.replace(plan.request, topology=topology, mesh=None), on_try)
        if fitting is not None:
            return fitting
    return None


def largest_batch(plan: Plan, on_try: OnTry = lambda _: None) -> Plan | None:
    """Return the same run with the most rows that fit its slice, fewer than it has; None if not even one row fits.

    The number of rows is a multiple of the mesh's data axis.
    """
    parts = plan.mesh["data"]
    best, fits, too_many = None, 0, -(-plan.request.batch // parts)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        request = dataclasses.replace(plan.request, batch=middle * parts, mesh=mesh_text(plan.mesh))
        if (fitting := _plan_if_fits(request, on_try)) is None:
            too_many = middle
        else:
            best, fits = fitting, middle
    return best


def _plan_if_fits(request: Request, on_try: OnTry) -> Plan | None:
    """Return the plan of a request if it fits; nothing is compiled if weights and state alone are too large."""
    job = request.job()
    if shard_bytes((job.params, job.state(job.batch))) > request.topology.usable:
        return None
    on_try(request)
    plan = planned(request)
    return plan if plan.fits else None
