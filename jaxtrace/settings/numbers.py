"""Ranges of numbers, each written once; settings, samplers and files of users share these types.

A field with a narrower range is an `Annotated[Count, Field(ge=2)]`: of two bounds of one kind, pydantic keeps the last.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

END_OF_INT32 = 2**31  # counts and token ids are int32 on devices
END_OF_SEEDS = 2**32  # the seeds of NumPy's and JAX's generators
LEAST_FLOAT32 = 2.0**-126  # smaller numbers are subnormal in float32, and XLA replaces them by 0
LARGEST_FLOAT32 = (2 - 2.0**-23) * 2.0**127


def is_float32(value: float) -> bool:
    """Return True for 0 and for a number whose magnitude a normal float32 has; False for NaN and infinity."""
    return value == 0 or LEAST_FLOAT32 <= abs(value) <= LARGEST_FLOAT32


def _refuse_truth_value(value: Any) -> Any:
    if type(value).__name__ in ("bool", "bool_"):  # Python's and NumPy's, which is not imported here
        raise ValueError("it must be a number, not true or false")
    return value


def _refuse_overflow(value: Any) -> Any:
    """Refuse digits that become infinity; infinity must be written as such."""
    if isinstance(value, str) and re.search("[0-9]", value) and math.isinf(float(value)):
        raise ValueError("it must be a smaller number, or inf")
    return value


def _float32(value: float) -> float:
    if not is_float32(value):
        raise ValueError(f"it must be 0 or from {LEAST_FLOAT32:.2g} to {LARGEST_FLOAT32:.2g}, as float32 holds")
    return value


_NUMBER = BeforeValidator(_refuse_truth_value)
Count = Annotated[int, Field(ge=1, lt=END_OF_INT32), _NUMBER]
Natural = Annotated[int, Field(ge=0, lt=END_OF_INT32), _NUMBER]
Rows = Annotated[int, Field(ge=1, le=2**20), _NUMBER]  # of a batch that is planned, run or not
Seed = Annotated[int, Field(ge=0, lt=END_OF_SEEDS), _NUMBER]
Float = Annotated[float, _NUMBER]
FloatOrInfinity = Annotated[float, Field(allow_inf_nan=True), _NUMBER, BeforeValidator(_refuse_overflow)]
Float32 = Annotated[float, _NUMBER, AfterValidator(_float32)]  # a number that devices compute with
