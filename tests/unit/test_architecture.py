"""The rules of the house: who may import whom, and how long a file may grow."""

from __future__ import annotations

import ast
import itertools
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "emoprobe"

FOUNDATION = {"records", "errors", "emotions", "stats", "runs"}
"""What every room may use."""

VERBS = {"track", "rollout", "judge", "capture", "probe", "report", "steer", "pairs", "tune"}
"""Modules one runs. They may use rooms; no room may use them."""

ENTRY = {"cli", "__main__", "__init__"}
"""How verbs are reached."""


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def imports(name: str) -> frozenset[tuple[str, bool]]:
    """(what, whether at the top of the module) of each import that runs: not those for annotations alone."""
    path = MODULES[name]
    found: set[tuple[str, bool]] = set()

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                found.update((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{name}: relative import"
                source = child.module or ""
                for alias in child.names:
                    deeper = f"{source}.{alias.name}"
                    found.add((deeper if deeper in MODULES else source, top))
            visit(child, top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    visit(ast.parse(path.read_text("utf-8")), True)
    return frozenset(found)


def reached(name: str, top_only: bool) -> set[str]:
    """Everything that importing a module (or, with `top_only=False`, also calling into it) may import."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        parts = current.split(".")
        if parts[0] == "emoprobe":
            parents = [".".join(parts[:i]) for i in range(1, len(parts))]
            waiting.extend(p for p in parents if p in MODULES)
            if current in MODULES:
                waiting.extend(what for what, top in imports(current) if top or not top_only)
    return seen


def packages(names):
    return {name.partition(".")[0] for name in names}


def room(name):
    """`emoprobe.model.hooked` -> `model`; a module at the top is its own room."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def inside(*prefixes):
    chosen = [n for n in MODULES if any(n == p or n.startswith(p + ".") for p in prefixes)]
    return chosen or [f"{prefixes[0]} (missing)"]


@pytest.mark.parametrize("name", MODULES)
def test_no_module_is_over_500_lines(name):
    assert len(MODULES[name].read_text("utf-8").splitlines()) <= 500


@pytest.mark.parametrize("name", MODULES)
def test_rooms_depend_downward_only(name):
    mine = room(name)
    used = {room(what) for what, _ in imports(name) if what.startswith("emoprobe.")} - {mine}
    if mine in ENTRY or mine in VERBS:
        return
    if mine in FOUNDATION:
        assert used <= FOUNDATION
    else:
        forbidden = used & (VERBS | (ENTRY - {"cli"} if name.endswith("__main__") else ENTRY))
        assert not forbidden, f"{name} uses {sorted(forbidden)} above it"


def test_rooms_form_no_circle():
    rooms = {room(n) for n in MODULES}
    uses = {
        r: {room(what) for n in MODULES if room(n) == r for what, _ in imports(n) if what in MODULES} - {r}
        for r in rooms
    }

    def below(start):
        seen, waiting = set(), [start]
        while waiting:
            for r in uses.get(waiting.pop(), ()):
                if r not in seen:
                    seen.add(r)
                    waiting.append(r)
        return seen

    circles = sorted(r for r in rooms - ENTRY if r in below(r))
    assert not circles, {r: sorted(uses[r] & set(circles)) for r in circles}


@pytest.mark.parametrize("name", inside("emoprobe.viewing"))
def test_viewing_imports_no_torch(name):
    assert not packages(reached(name, top_only=True)) & {"torch", "transformers", "trl", "peft"}


@pytest.mark.parametrize(
    "name", inside("emoprobe.probing.evaluate", "emoprobe.judging", "emoprobe.stats", "emoprobe.viewing")
)
def test_no_transformers_behind_evaluation_judging_statistics_and_viewing(name):
    assert not packages(reached(name, top_only=True)) & {"transformers", "trl"}


def test_the_corpus_cannot_see_the_judge():
    """Not even in a function: the judge was frozen before the organism was trained."""
    assert not {n for n in reached("emoprobe.organism.corpus", top_only=False) if "judg" in n}


@pytest.mark.parametrize("name", MODULES)
def test_nothing_executable_is_ever_loaded(name):
    tree = ast.parse(MODULES[name].read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert called not in ("pickle.load", "pickle.loads", "joblib.load", "eval", "exec")
            assert called != "torch.load" or given.get("weights_only") == "True"
            assert given.get("trust_remote_code", "False") == given.get("allow_pickle", "False") == "False"


def test_every_package_that_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    declared = {re.split(r"[>=<\[]", w)[0].lower() for w in wanted}
    used = packages({what for name in MODULES for what, _ in imports(name)}) - sys.stdlib_module_names
    distributions = packages_distributions()
    names = {p: [d.lower().replace("_", "-") for d in distributions.get(p, [p])] for p in used - {"emoprobe"}}
    assert not {p for p, provided_by in names.items() if not declared.intersection(provided_by)}
