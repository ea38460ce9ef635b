"""Options that join several processes into one run."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from jaxtrace.cli.output import console
from jaxtrace.settings.groups import DEVICES
from jaxtrace.settings.numbers import Count, Natural
from jaxtrace.settings.validation import StrictModel


class ProcessOptions(StrictModel):
    """The processes that make one run together."""

    distributed: bool = Field(
        False,
        description="Join the other processes; TPU pods, SLURM, Kubernetes and MPI are recognised.",
        json_schema_extra=DEVICES,
    )
    coordinator: str | None = Field(
        None, description="HOST:PORT of process 0, if no cluster is recognised.", json_schema_extra=DEVICES
    )
    processes: Count | None = Field(
        None, description="Number of processes, with --coordinator.", json_schema_extra=DEVICES
    )
    process: Natural | None = Field(
        None, description="Number of this process, from 0, with --coordinator.", json_schema_extra=DEVICES
    )

    @model_validator(mode="after")
    def _check_coordinator(self) -> Self:
        alone = not self.distributed and self.coordinator is None
        if alone and (self.processes is not None or self.process is not None):
            raise ValueError("--processes and --process need a coordinator; name process 0's --coordinator HOST:PORT")
        if self.processes is not None and (self.process or 0) >= self.processes:
            raise ValueError(f"--process is {self.process} of {self.processes}; number the processes from 0")
        return self

    def join(self) -> None:
        """Join the other processes, if any; all processes but the first then print only errors."""
        if self.distributed or self.coordinator is not None:
            from jaxtrace.parallel import processes

            processes.join(self.coordinator, self.processes, self.process)
            console.quiet = not processes.is_leader()
