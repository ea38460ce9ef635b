"""Program that plans the demo model for eight CPU devices, in a process without any yet, and prints JSON."""

import json

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxtrace.planning.hlo import collectives
from jaxtrace.planning.plan import plan


def main():
    planned = plan("demo", "cpu-8", batch=8, context=64, mesh="data=4,model=2")
    mesh = jax.make_mesh((8,), ("m",), axis_types=(jax.sharding.AxisType.Auto,))

    def three(x):
        return jax.lax.scan(lambda c, y: (jax.lax.psum(c * y, "m"), None), x, jnp.arange(3.0))[0]

    mapped = jax.jit(jax.shard_map(three, mesh=mesh, in_specs=P("m"), out_specs=P("m"), check_vma=False))
    scanned = collectives(mapped.lower(jnp.zeros(8 * 16)).compile().as_text())["all-reduce"]
    print(json.dumps(planned.as_dict() | {"devices here": jax.device_count(), "scan": [scanned.count, scanned.bytes]}))


if __name__ == "__main__":
    main()
