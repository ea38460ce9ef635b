"""Rotary positions in configs: every kind of scaling, in the current and in the old form, by transformers' rules."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtrace.models.config import LayerKind
from jaxtrace.models.families.reader import MAX_NUMBER, ConfigReader
from jaxtrace.models.rope_config import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    ProportionalScaling,
    Rope,
    RopeScaling,
    YarnScaling,
)

ORIGINAL, FRACTION = "original_max_position_embeddings", "partial_rotary_factor"
UNUSED = {ORIGINAL, "finetuned"}  # settings that change nothing in a kind that does not read them
ZERO_IS_ABSENT = ("beta_fast", "beta_slow", "mscale", "mscale_all_dim")  # in transformers' YaRN; Devstral 2 has a 0


def rope(reader: ConfigReader, base: str = "rope_theta", fraction: str = FRACTION) -> Rope:
    """Read the rotary positions that all layers share; `base` and `fraction` name attributes of the config."""
    return rope_of(reader, rope_settings(reader, base, fraction))


def rope_settings(reader: ConfigReader, base: str = "rope_theta", fraction: str = FRACTION) -> dict[str, Any]:
    """Return the settings of the rotary positions that all layers share: `rope_scaling`, or else `rope_parameters`.

    The base and the rotated fraction are completed from the top of the config and from the family's defaults. An
    original context at the top of the config wins over the one beside the factors, as in transformers.
    """
    current, old = reader.mapping("rope_parameters"), reader.mapping("rope_scaling")
    original = reader.optional(ORIGINAL)
    return _completed(reader, base, fraction, old or current) | ({} if original is None else {ORIGINAL: original})


def ropes_by_type(reader: ConfigReader, bases: Mapping[str, str | float]) -> dict[str, Rope]:
    """Read the rotary positions of each layer type.

    The current form has an entry per type in `rope_parameters`; in the old one, `rope_scaling` scales full attention.

    Args:
      reader: reader of the config.
      bases: default base of each layer type, or the name of the attribute that has it.
    """
    current, old = reader.mapping("rope_parameters"), reader.mapping("rope_scaling")
    if unknown := sorted(current.keys() - bases.keys()):
        reader.fail(f"has rope_parameters of {', '.join(unknown)}; jaxtrace supports one entry per layer type")
    if "rope_type" not in old and old.get("type", "default") != "default":
        reader.fail(f"has a rope_scaling of type={old['type']!r}, which transformers ignores here; name it rope_type")
    ropes = {}
    for name, base in bases.items():
        settings = reader.as_mapping(name, current.get(name)) | (old if name == "full_attention" else {})
        if settings.get("truncate") is False:
            reader.fail(f"has truncate=False in {name}, which transformers ignores there; drop it")
        ropes[name] = rope_of(reader, _completed(reader, base, FRACTION, settings))
    reader.ignore(ORIGINAL)
    return ropes


def rope_of(reader: ConfigReader, settings: dict[str, Any], head_dim: int | None = None) -> Rope:
    """Read rotary positions from one object of settings, which has a `rope_theta`.

    Args:
      reader: reader of the config. A family whose defaults have `partial_rotary_factor` can rotate a part of a head.
      settings: settings of the rotary positions; null ones are absent.
      head_dim: width of a head; None for the one of `head_dim_of`.
    """
    values = {name: value for name, value in settings.items() if value is not None}
    old_name = values.pop("type", "default")
    name = values.pop("rope_type", old_name)
    theta = reader.positive_number("rope_theta", values.pop("rope_theta"))
    fraction = reader.positive_number(FRACTION, values.pop(FRACTION, 1.0))
    if name not in list(KINDS):  # a list, as the name may be unhashable
        reader.fail(f"has rope scaling {name!r} with {sorted(values)}; jaxtrace supports {', '.join(map(repr, KINDS))}")
    kind = KINDS[name]
    if kind.required - values.keys() or values.keys() - kind.required - kind.optional - UNUSED:
        optional = f" and optionally {sorted(kind.optional)}" if kind.optional else ""
        supported = f"{name!r} with {sorted(kind.required)}{optional}"
        reader.fail(f"has rope scaling {name!r} with {sorted(values)}; jaxtrace supports {supported}")
    if fraction > 1 or (fraction < 1 and name != "proportional" and FRACTION not in reader.defaults):
        reader.fail(f"has {FRACTION}={fraction!r}; jaxtrace supports 1.0 here")
    if ORIGINAL not in kind.required | kind.optional:
        reader.ignore(ORIGINAL)
    checked = _Settings(reader, values, theta, fraction, head_dim)
    if fraction < 1 and not checked.rotated:
        reader.fail(f"has {FRACTION}={fraction!r}, which rotates no dimension of a head")
    return Rope(theta, kind.scaling(checked), 1.0 if name == "proportional" else fraction)


def original_context(reader: ConfigReader, value: Any) -> int:
    """Check an original context, and return it."""
    number = reader.positive_number(ORIGINAL, value)
    if number % 1 or number > MAX_NUMBER:
        reader.fail(f"has {ORIGINAL}={value!r}, which must be a positive whole number of at most {MAX_NUMBER}")
    return int(number)


def head_dim_of(reader: ConfigReader) -> int:
    """Read the width of a head, hidden_size / num_attention_heads by default; it is even."""
    width, heads = reader.positive("hidden_size"), reader.positive("num_attention_heads")
    head_dim = reader.positive_or_none("head_dim") if "head_dim" in reader.config else None
    if head_dim is None and width % heads:
        reader.fail(f"has hidden_size={width}, which is not a multiple of {heads} attention heads")
    head_dim = head_dim or width // heads
    if head_dim % 2:
        reader.fail(f"has head_dim={head_dim}, which is odd; rotary positions need pairs")
    return head_dim


def context_of(reader: ConfigReader, pattern: tuple[LayerKind, ...]) -> int:
    """Return the longest sequence: `max_position_embeddings`, or what YaRN or dynamic NTK extends it to."""
    scalings = [kind.rope.scaling for kind in pattern if kind.rope is not None]
    extending = [scaling for scaling in scalings if isinstance(scaling, YarnScaling | DynamicScaling)]
    extended = [math.floor(scaling.factor * scaling.original_context) for scaling in extending]
    return min(max([reader.positive("max_position_embeddings"), *extended]), MAX_NUMBER)


def _completed(reader: ConfigReader, base: str | float, fraction: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings with the base and the rotated fraction of the top of the config where they have none."""
    theta = reader.number_or_none(base) or reader.defaults[base] if isinstance(base, str) else base
    top = {"rope_theta": theta, FRACTION: reader.optional(fraction)}
    return top | {name: value for name, value in settings.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class _Settings:
    """Checked access to the settings of one kind of scaling.

    Attributes:
      reader: reader of the config.
      values: settings that the kind reads, and unused ones.
      theta: base of the wavelengths.
      fraction: fraction of a head's dimensions that are rotated.
      head_dim: width of a head; None for the one of `head_dim_of`.
    """

    reader: ConfigReader
    values: dict[str, Any]
    theta: float
    fraction: float
    head_dim: int | None

    def number(self, name: str, default: float) -> float:
        """Return a positive number."""
        return self.reader.positive_number(name, self.values.get(name, default))

    def factor(self, default: float = 1.0) -> float:
        """Return the factor by which the context grows."""
        factor = self.number("factor", default)
        if factor < 1:
            self.reader.fail(f"has rope scaling with factor={factor:g}, which must be at least 1")
        return factor

    @property
    def context(self) -> int:
        """Context in the config: the original one of dynamic NTK, and the default original one of the other kinds."""
        return self.reader.positive("max_position_embeddings")

    @property
    def original(self) -> int:
        """Original context."""
        return original_context(self.reader, self.values.get(ORIGINAL, self.context))

    @property
    def rotated(self) -> int:
        """Number of rotated dimensions of a head."""
        return int(self.fraction * (self.head_dim or head_dim_of(self.reader)))

    def factors(self, name: str) -> tuple[float, ...]:
        """Return a factor of each rotated pair."""
        values, pairs = self.values[name], self.rotated // 2
        if self.rotated % 2 or not isinstance(values, list) or len(values) != pairs:
            count = len(values) if isinstance(values, list) else repr(values)
            self.reader.fail(f"has a {name} of {count}, which must be a list of {pairs} numbers, one per rotated pair")
        return tuple(self.reader.positive_number(name, value) for value in values)


def _dynamic(settings: _Settings) -> DynamicScaling:
    if settings.rotated < 4:
        settings.reader.fail(f"rotates {settings.rotated} dimensions of a head, and dynamic rope scaling needs 4")
    return DynamicScaling(settings.factor(), settings.context)


def _proportional(settings: _Settings) -> ProportionalScaling:
    return ProportionalScaling(settings.fraction, settings.factor())


def _llama3(settings: _Settings) -> Llama3Scaling:
    low, high = settings.number("low_freq_factor", 0), settings.number("high_freq_factor", 0)
    if low > high:
        settings.reader.fail(f"has low_freq_factor={low:g}, which must not be above high_freq_factor={high:g}")
    return Llama3Scaling(settings.factor(), low, high, settings.original)


def _yarn(settings: _Settings) -> YarnScaling:
    values = {name: x for name, x in settings.values.items() if name not in ZERO_IS_ABSENT or x != 0}
    settings = dataclasses.replace(settings, values=values)
    fast, slow = settings.number("beta_fast", 32), settings.number("beta_slow", 1)
    truncate = settings.values.get("truncate", True)
    if fast < slow:
        settings.reader.fail(f"has beta_fast={fast:g}, which must be at least beta_slow={slow:g}")
    if not isinstance(truncate, bool):
        settings.reader.fail(f"has truncate={truncate!r}, which must be true or false")
    if settings.theta <= 1:
        settings.reader.fail(f"has rope_theta={settings.theta:g}, which yarn needs above 1")
    if settings.rotated % 2:
        settings.reader.fail(f"rotates {settings.rotated} dimensions of a head, and yarn needs an even number")
    if not settings.values.keys() & {"factor", ORIGINAL}:
        settings.reader.fail(f"has rope scaling 'yarn' without factor or {ORIGINAL}; jaxtrace needs one of the two")
    factor = settings.factor(settings.context / settings.original)

    def by_scale(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1

    default = by_scale(1)
    if {"mscale", "mscale_all_dim"} <= settings.values.keys():
        default = by_scale(settings.number("mscale", 1)) / by_scale(settings.number("mscale_all_dim", 1))
    return YarnScaling(factor, settings.original, settings.number("attention_factor", default), fast, slow, truncate)


def _longrope(settings: _Settings) -> LongRopeScaling:
    factor = settings.factor() if "factor" in settings.values else settings.context / settings.original
    default = 1.0
    if factor > 1:
        if settings.original < 2:
            settings.reader.fail(f"has {ORIGINAL}={settings.original}, which must be at least 2")
        default = math.sqrt(1 + math.log(factor) / math.log(settings.original))
    short, long = settings.factors("short_factor"), settings.factors("long_factor")
    return LongRopeScaling(short, long, settings.original, settings.number("attention_factor", default))


class _Kind(NamedTuple):
    """A kind of scaling: names of its settings, and what builds it from them."""

    required: set[str]
    optional: set[str]
    scaling: Callable[[_Settings], RopeScaling | None]


_YARN = {"factor", ORIGINAL, "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"}
KINDS = {
    "default": _Kind(set(), set(), lambda settings: None),
    "linear": _Kind({"factor"}, set(), lambda settings: LinearScaling(settings.factor())),
    "proportional": _Kind(set(), {"factor"}, _proportional),
    "llama3": _Kind({"factor", "low_freq_factor", "high_freq_factor"}, {ORIGINAL}, _llama3),
    "yarn": _Kind(set(), _YARN, _yarn),
    "longrope": _Kind({"short_factor", "long_factor"}, {"factor", ORIGINAL, "attention_factor"}, _longrope),
    "dynamic": _Kind({"factor"}, set(), _dynamic),
}
