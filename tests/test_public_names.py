"""Public names load when they are first used, and type checkers see the same names."""

import ast
from pathlib import Path

import pytest

import jaxtrace as jt


def test_type_checkers_see_the_names_that_load():
    tree = ast.parse(Path(jt.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    checked = {
        alias.asname: node.module.removeprefix("jaxtrace").removeprefix(".")
        + f":{alias.name}" * (alias.name != alias.asname)
        for node in block.body
        for alias in node.names
    }
    assert checked == jt._MODULES
    assert set(jt.__all__) == set(checked) <= set(dir(jt))


@pytest.mark.parametrize("name", jt.__all__)
def test_every_public_name_loads(name):
    assert getattr(jt, name) is getattr(jt, name)


def test_a_renamed_name_warns_and_an_unknown_name_fails():
    assert jt._RENAMED.keys().isdisjoint(jt.__all__) and set(jt._RENAMED.values()) <= set(jt.__all__)
    for old, new in jt._RENAMED.items():
        with pytest.warns(DeprecationWarning, match=f"jaxtrace.{old} is renamed to jaxtrace.{new}"):
            assert getattr(jt, old) is getattr(jt, new)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = jt.nothing
