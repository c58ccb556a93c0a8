"""The wheel, installed away from the checkout, finds what it carries."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (built,) = folder.glob("emoprobe-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that holds nothing but the installed wheel."""
    target = tmp_path_factory.mktemp("installed")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", str(target), str(wheel)], check=True)
    return target


def outside(installed, code, tmp_path):
    """Run code with the wheel's package, in a folder that is no checkout."""
    environment = os.environ | {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_wheel_carries_models_probes_and_data_but_no_runs(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for part in ("models/organism", "models/organism-base", "adapters/organism/dpo"):
        assert any(n.startswith(f"emoprobe/_shipped/{part}/") and n.endswith(".safetensors") for n in names)
    assert any(n.startswith("emoprobe/_shipped/probes/organism/") and n.endswith("card.json") for n in names)
    assert {"emoprobe/emotions.json", "emoprobe/model/models.json", "emoprobe/py.typed"} <= set(names)
    assert not [n for n in names if "/runs/" in n or "/training/" in n or n.startswith("tests/")]


def test_shipped_data_is_found_in_the_wheel(installed, tmp_path):
    code = "from emoprobe.model import shipped; print(shipped.find('models', 'organism'))"
    found = Path(outside(installed, code, tmp_path))
    assert found.is_relative_to(installed)
    assert (found / "config.json").is_file()


def test_the_organism_and_its_adapter_load_from_the_wheel(installed, tmp_path):
    code = (
        "import emoprobe\n"
        "model = emoprobe.HookedModel.load('organism', adapters=('dpo',))\n"
        "with model.adapter('dpo'): print(emoprobe.__file__, model.n_layers, model.active, sep='|')"
    )
    file, layers, active = outside(installed, code, tmp_path).split("|")
    assert Path(file).is_relative_to(installed)
    assert (int(layers) > 1, active) == (True, "dpo")


def test_the_command_line_runs_from_the_wheel(installed, tmp_path):
    code = "import sys; from emoprobe.__main__ import main; sys.exit(main(['track', '--help']))"
    assert "usage: emoprobe track" in outside(installed, code, tmp_path)
