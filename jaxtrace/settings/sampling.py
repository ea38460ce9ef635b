"""Settings of drawn tokens: defaults and ranges that runs and the engine's samplers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue

from jaxtrace.plugins import Registry
from jaxtrace.settings.groups import DEVICES, ESCAPES, SAMPLING
from jaxtrace.settings.numbers import Count, Float32, Natural, Seed
from jaxtrace.settings.prompt import KEY_VALUES
from jaxtrace.settings.validation import ONE_OR_MORE, StrictModel

BUILT_IN_SAMPLERS = ("greedy", "sample", "entropix", "dslider")
# Functions from keywords to a sampler, such as a class of samplers.
SAMPLERS: Registry[Callable[..., Any]] = Registry("samplers", callable)
ThresholdsName = Literal["classic", "server"]
PrecisionName = Literal["auto", "default", "high", "highest"]  # of matrix products; "default" and so on as in JAX

# Below these float32 draws nonsense: scaled logits overflow, and no token's probability is a rounding error.
LEAST_TEMPERATURE = 1e-3
LEAST_TOP_P = 1e-6


def _check_sampler(name: str) -> str:
    known = [*BUILT_IN_SAMPLERS, *SAMPLERS.names]
    if name not in known:
        raise ValueError(f"it must be {', '.join(map(repr, known[:-1]))} or {known[-1]!r}")
    return name


class SamplerSettings(StrictModel):
    """Choice of a sampler."""

    sampler: Annotated[str, AfterValidator(_check_sampler)] = Field(
        default="greedy",
        description=f"How tokens are drawn: {', '.join(BUILT_IN_SAMPLERS)}, or a plug-in's name.",
        json_schema_extra=SAMPLING,
    )
    sampler_arg: Annotated[dict[str, JsonValue] | None, KEY_VALUES] = Field(
        default=None,
        description="Argument of a plug-in's sampler, such as threshold=0.5; repeat the option for several.",
        json_schema_extra=SAMPLING,
    )
    thresholds: ThresholdsName = Field(
        default="classic", description="Version of the rule of sampler 'entropix'.", json_schema_extra=SAMPLING
    )
    pause: str | None = Field(
        default=None,
        description="Pause token of the samplers 'entropix' and 'dslider', as text or id. Default: ' ...' if that is "
        "one token.",
        json_schema_extra=SAMPLING,
    )


class SamplingSettings(StrictModel):
    """Temperature and cuts of the sampler 'sample', applied in the order top-k, top-p, min-p."""

    temperature: Float32 = Field(
        default=1.0,
        ge=LEAST_TEMPERATURE,
        description="Divisor of the logits before a draw.",
        json_schema_extra=SAMPLING,
    )
    top_p: Float32 = Field(
        default=1.0,
        ge=LEAST_TOP_P,
        le=1,
        description="Keep the smallest set of most likely tokens whose probability reaches this.",
        json_schema_extra=SAMPLING,
    )
    top_k: Natural = Field(
        default=0,
        description="Keep this many of the most likely tokens; 0 keeps all.",
        json_schema_extra=SAMPLING,
    )
    min_p: Float32 = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Keep tokens at least this fraction as likely as the most likely one.",
        json_schema_extra=SAMPLING,
    )


class DecodingSettings(StrictModel):
    """Size of a batch, arithmetic, ends of an answer, and seed."""

    batch_size: Count = Field(default=16, description="Prompts run at once.", json_schema_extra=DEVICES)
    deterministic: bool = Field(
        default=False,
        description="Give a prompt the same bits in any batch: rows run in blocks of one size, whatever batch_size is.",
        json_schema_extra=DEVICES,
    )
    matmul_precision: PrecisionName = Field(
        default="auto",
        description="Precision of float32 matrix products on accelerators: default (one bfloat16 pass or TF32), high, "
        "highest (full float32), or auto: highest, unless JAX's own setting says otherwise.",
        json_schema_extra=DEVICES,
    )
    max_new_tokens: Count = Field(
        default=64, description="Largest number of tokens drawn for a prompt.", json_schema_extra=SAMPLING
    )
    stop_repeats: Natural = Field(
        default=0,
        description="Number of identical tokens in a row that end an answer; 0 never ends it.",
        json_schema_extra=SAMPLING,
    )
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], ONE_OR_MORE] = Field(
        default=(),
        description="Text that ends an answer, which is cut before it; repeat the option for several. \\n stands for a "
        "new line.",
        json_schema_extra=SAMPLING | ESCAPES,
    )
    seed: Seed = Field(
        default=0,
        description="Seed of the sampler, of random weights and prompts, and of --sample.",
        json_schema_extra=SAMPLING,
    )
