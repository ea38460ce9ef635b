"""Numbers of users: each is taken as it is and can be computed with, or refused in one line."""

import dataclasses
import importlib
import math
import pkgutil
from typing import Annotated, Literal, get_args, get_origin

import jax
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

import jaxtrace
from jaxtrace import ConfigError, Dslider, Entropix, Interventions, JaxtraceError, Model, Probes, Prompt, Sample
from jaxtrace.engine.samplers.quadrants import CLASSIC, Formula, Region
from jaxtrace.engine.settings import Settings
from jaxtrace.settings.numbers import END_OF_SEEDS, LARGEST_FLOAT32, LEAST_FLOAT32
from jaxtrace.settings.run import run_config
from jaxtrace.settings.validation import StrictModel, validated
from tests.cli.test_settings import CONFIG

INTEGERS = (-(10**30), -(2**31), -1, 0, 1, 2, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64, 10**30, 10**5000)
FLOATS = (-math.inf, -1.0, -0.0, 5e-324, 1e-50, 1e-40, 0.5, 1.0, 1e39, 1e300, math.inf, math.nan)
OTHERS = (True, None, "", "x", "1e400", "1e-400", "nan", "9" * 5000, [], {}, 1 + 2j, np.bool_(True), np.float32("nan"))


def numeric_fields():
    """Yield (model, field, type) of every number in the settings of every command, study, task and sampler."""
    for module in pkgutil.walk_packages(jaxtrace.__path__, "jaxtrace."):
        _, room, *_ = f"{module.name}.".split(".")
        if (room in ("cli", "lab", "engine") or "settings" in module.name) and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    models = list(StrictModel.__subclasses__())
    for model in models:
        models += [kind for kind in model.__subclasses__() if kind not in models]
        for name, field in model.model_fields.items():
            if model.__module__.startswith("jaxtrace.") and numbers_in(field.annotation):
                yield model, name, Annotated[(field.annotation, name, *field.metadata)]


def numbers_in(annotation):
    if get_origin(annotation) is Literal:
        return False
    return annotation in (int, float) or any(map(numbers_in, get_args(annotation)))


def leaves(value):
    return [leaf for each in value for leaf in leaves(each)] if isinstance(value, tuple) else [value]


def test_the_narrowest_bound_of_every_setting_holds():
    """Pydantic keeps the last of two bounds of one kind."""
    for model, name, annotation in numeric_fields():
        metadata = annotation.__metadata__
        for kind, narrowest in (("ge", max), ("gt", max), ("le", min), ("lt", min)):
            if bounds := [getattr(each, kind) for each in metadata if hasattr(each, kind)]:
                assert bounds[-1] == narrowest(bounds), f"{model.__name__}.{name}"


def test_every_number_of_every_setting_is_taken_as_it_is_or_refused():
    fields = list(numeric_fields())
    assert len(fields) > 80
    for model, name, kind in fields:
        adapter = TypeAdapter(kind, config=model.model_config)
        for value in (*INTEGERS, *FLOATS, *OTHERS):
            for given in (value, (value,), ((1, value),)):
                try:
                    taken = leaves(adapter.validate_python(given))
                except ValidationError:
                    continue
                for number in taken:
                    where = f"{model.__name__}.{name}={given!r:.40} → {number!r:.40}"
                    if isinstance(number, int):
                        assert 0 <= number < END_OF_SEEDS and type(value) is not bool, where
                    elif isinstance(number, float):
                        assert math.isfinite(number) or (name == "alphas" and number == math.inf), where
                        assert value in ("1e-400",) or number in (1, float(value)), where


def test_a_refused_number_is_one_short_line():
    for value in (*INTEGERS[-3:], *FLOATS, *OTHERS):
        try:
            settings = run_config(sampler="sample", min_p=value, stop_repeats=value)
            assert settings.min_p == value
        except ConfigError as error:
            line = str(error)
            assert line.startswith("settings: ") and "\n" not in line and len(line) < 300, line


class Numbers(StrictModel):
    plain: Annotated[int | Literal["each"], "a union"] = 1


def test_the_branch_of_a_union_stays_out_of_the_message():
    with pytest.raises(ConfigError, match=r"^place: plain is 2\.5; it must be a valid integer"):
        validated(Numbers, {"plain": 2.5}, "place")


@pytest.fixture(scope="module")
def model():
    return Model("tiny", CONFIG, jaxtrace.init_params(CONFIG, jax.random.key(0)))


def test_the_ends_of_all_ranges_run(model):
    coldest = Sample(temperature=1e-3, top_k=2**31 - 1, top_p=1e-6, min_p=LEAST_FLOAT32)
    hottest = Sample(temperature=LARGEST_FLOAT32)
    counts = {"batch_size": 2**31 - 1, "max_new_tokens": 2**31 - 1, "stop_repeats": 2**31 - 1, "seed": 2**32 - 1}
    for sampler in (coldest, hottest):
        (row,) = model.generate(
            [[1, 2]], sampler=sampler, probes=Probes.of("output", alphas=(0, 1, 1e6, math.inf)), **counts
        ).rows
        assert len(row.metrics["token"]) == CONFIG.context - 1 and row.stop == "length"
        assert np.isfinite(row.metrics["renyi"]).all()


def attempts():
    huge, nan = 2**31, math.nan
    model_call = lambda **options: lambda model: model.generate([[1]], **options)  # noqa: E731
    settings = lambda **options: lambda _: Settings(Probes.none(), **options)  # noqa: E731
    for name in ("batch_size", "max_new_tokens", "stop_repeats"):
        for value in (huge, 10**30, -1, 1.5, nan, "x", True):
            yield model_call(**{name: value})
    for value in (-1, 2**32, 2**64, 1.5, True, nan):
        yield model_call(seed=value)
        yield lambda _, value=value: jaxtrace.load("demo", random=True, seed=value)
    for value in (huge, -1, 1.5, True, "x", 10**30):
        yield model_call(stop_tokens=(value,))
        yield lambda model, value=value: model.generate([Prompt(tokens=(1, value))])
        yield lambda model, value=value: model.score([[value, 1]])
        yield lambda _, value=value: jaxtrace.stop_rules((value,))
        yield lambda _, value=value: Entropix(pause=value)
        yield lambda _, value=value: Dslider(pause=value)
        yield lambda _, value=value: Dslider(support=(0, value)).init(1, 8)
        yield lambda _, value=value: Interventions.of(CONFIG, layers=[value])
        yield lambda _, value=value: Interventions.of(CONFIG, heads=[(1, value)])
    yield lambda _: jaxtrace.stop_rules((1,), huge)
    for steps in (0, -1, 10**6, 1.5):
        yield settings(steps=steps)
    for value in (nan, math.inf, -1, 0, 1e-38, 1e-50, 1e39, 10**400, "x", True):
        yield lambda _, value=value: Sample(temperature=value)
    for field in ("top_p", "min_p"):
        for value in (nan, math.inf, -1, 1.5, 1e-40, 5e-324):
            yield lambda _, field=field, value=value: Sample(**{field: value})
    for value in (huge, -1, 1.5, True):
        yield lambda _, value=value: Sample(top_k=value)
        yield lambda _, value=value: Probes(top_tokens=value)
        yield lambda _, value=value: Probes(top_k_mass=value)
        yield lambda _, value=value: Probes(layer_stride=value)
        yield lambda _, value=value: Probes(residuals=(value,))
        yield lambda _, value=value: Probes(attention_rows=((1, value),))
    for value in (nan, -1, 1e-3, 1.001, 1e7, 1e300, "1e400"):
        yield lambda _, value=value: Probes(alphas=(value,))
    for value in (nan, math.inf, 1e39, 1e-40):
        yield lambda _, value=value: Dslider(outlier_bias=value)
        yield lambda _, value=value: Region(above=(("entropy", value),))
        yield lambda _, value=value: Formula(1.0, (("entropy", value),))
        yield lambda _, value=value: dataclasses.replace(CLASSIC, base=value)
    for value in (0, -1, 10**9, 1.5):
        yield lambda _, value=value: dataclasses.replace(CLASSIC, candidates=value)
    for value in (0, -1, 1.5, "2", True):
        yield lambda _, value=value: jaxtrace.mesh(data=value)
    for text in ("data=0", "data=-1", "data=" + "9" * 30, "data=" + "9" * 5000, "data=1e3", "data=٣"):
        yield lambda _, text=text: jaxtrace.load("demo", mesh=text)
        yield lambda _, text=text: run_config(mesh=text)
    for value in (0, 2**40, 1.5, nan):
        yield lambda _, value=value: jaxtrace.plan("demo", "cpu-1", batch=value)
        yield lambda _, value=value: jaxtrace.plan("demo", "cpu-1", context=value)
    for topology in ("cpu-99999", "cpu-0", "cpu-" + "9" * 5000):
        yield lambda _, topology=topology: jaxtrace.plan("demo", topology)


def test_python_refuses_what_the_command_line_refuses(model):
    for attempt in attempts():
        with pytest.raises(JaxtraceError) as error:
            attempt(model)
        assert "\n" not in str(error.value) and len(str(error.value)) < 400, error.value


def test_lists_and_texts_become_what_the_engine_needs():
    assert Probes(alphas=[2, "inf"], residuals=[0, 1]) == Probes(alphas=(2.0, math.inf), residuals=(0, 1))
    assert Sample(temperature=np.float32(0.5), top_k=np.int64(3)) == Sample(temperature=0.5, top_k=3)
    assert Settings(Probes.none(), stop="end", stop_tokens=np.array([3])).stop_tokens == (3,)
    assert hash(Probes(alphas=[2]))
