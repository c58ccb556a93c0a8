from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import emoprobe

HEAVY = "{'torch', 'transformers', 'trl', 'peft', 'plotly', 'pandas', 'sklearn', 'datasets'}"


def in_fresh_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_importing_the_package_imports_nothing_heavy():
    done = in_fresh_python(f"import sys, emoprobe, emoprobe.cli; print(sorted({HEAVY} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr


def test_track_checks_its_arguments_before_torch(tmp_path):
    mistakes = [
        ["--turns", "0"],
        ["--n", "0"],
        ["--layers", "70"],
        ["--layers", "9-3"],
        ["--emotions", "hunger"],
        ["--judge", "jury"],
        ["--device", "abacus"],
        ["--model", "organsim"],
        ["--adapter", "dpoo"],
    ]
    code = (
        "import sys, emoprobe.track\n"
        f"always = ['--out', {str(tmp_path / 'run')!r}, '--model', 'gemma-3-1b-it']\n"
        f"codes = [emoprobe.track.main([*always, *mistake]) for mistake in {mistakes}]\n"
        "print(codes, sorted({'torch', 'transformers', 'trl', 'peft'} & set(sys.modules)))"
    )
    done = in_fresh_python(code)
    assert done.stdout == f"{[2] * len(mistakes)} []\n", done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(mistakes)
    assert all(line.startswith("emoprobe track: ") for line in lines)
    for (_, value), line in zip(mistakes, lines, strict=True):
        assert value in line
    assert not (tmp_path / "run").exists()


def test_public_names_exist_where_the_table_says():
    assert sorted(emoprobe.__all__) == sorted({*emoprobe._PUBLIC, "__version__"})
    for name in emoprobe.__all__:
        assert getattr(emoprobe, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = emoprobe.nonsense


def test_every_module_imports_without_a_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = [m.name for m in pkgutil.walk_packages(emoprobe.__path__, "emoprobe.")]
    assert len(found) > 10
    for name in found:
        if not name.endswith("__main__"):
            importlib.import_module(name)
