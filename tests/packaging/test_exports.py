"""Every module says what is public, and says it truly."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ["rtcore", "rtcore_transports", "rtcore_adapters"]


def sources() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        folder = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder).with_suffix("").parts
            if inside[-1] != "__main__":
                yield ".".join([package, *inside]).removesuffix(".__init__"), path


SOURCES = dict(sources())


def is_public(name: str) -> bool:
    return not name.startswith("_")


def is_type_variable(value: ast.expr | None) -> bool:
    match value:
        case ast.Call(func=ast.Name(id=made) | ast.Attribute(attr=made)):
            return made in {"TypeVar", "ParamSpec", "TypeVarTuple"}
    return False


def defined_names(tree: ast.Module) -> set[str]:
    """Return the public names that a module defines itself."""
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets, value=value) if not is_type_variable(value):
                names.update(name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return {name for name in names if is_public(name)}


def own_imports(tree: ast.Module, package: str) -> set[str]:
    """Return the names that a module imports from its own package, and not just from elsewhere."""
    return {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.level > 0 or (node.module or "").partition(".")[0] == package)
        for alias in node.names
        if is_public(alias.asname or alias.name)
    }


@pytest.mark.parametrize("name", SOURCES)
def test_all_is_what_the_module_defines(name: str) -> None:
    path = SOURCES[name]
    tree = ast.parse(path.read_text())
    public = defined_names(tree)
    if path.name == "__init__.py":
        public |= own_imports(tree, name.partition(".")[0])

    module = importlib.import_module(name)

    exported = getattr(module, "__all__", None)
    assert exported is not None, f"{name} has no __all__"
    assert len(set(exported)) == len(exported)
    assert set(exported) == public
    assert [missing for missing in exported if not hasattr(module, missing)] == []


@pytest.mark.parametrize("name", [name for name, path in SOURCES.items() if path.name == "__init__.py"])
def test_what_a_package_exports_its_modules_export(name: str) -> None:
    package = importlib.import_module(name)
    homes = [
        importlib.import_module(other)
        for other, path in SOURCES.items()
        if other.startswith(f"{name}.") and path.name != "__init__.py"
    ]
    for public in package.__all__:
        value = getattr(package, public)
        elsewhere = [home for home in homes if public in home.__all__]
        assert public in defined_names(ast.parse(SOURCES[name].read_text())) or any(
            getattr(home, public) is value for home in elsewhere
        )


def test_the_check_itself() -> None:
    tree = ast.parse(
        "from .a import B, _c\nfrom os import path\nimport re\n"
        "T = TypeVar('T')\nX, (Y, _z) = 1, (2, 3)\nW: int = 1\n_v = 2\n"
        "def f(): inner = 1\nasync def g(): ...\nclass K: attribute = 1\n"
    )
    assert defined_names(tree) == {"X", "Y", "W", "f", "g", "K"}
    assert own_imports(tree, "rtcore") == {"B"}
    assert own_imports(ast.parse("from rtcore.x import Y\nfrom rtcore_x import Z"), "rtcore") == {"Y"}
