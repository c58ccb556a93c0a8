"""Tiny models on disk and loaded, once per session."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.model import tiny

if TYPE_CHECKING:
    from emoprobe.model.hooked import HookedModel


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind of tiny model -> its folder. Read only."""
    root = tmp_path_factory.mktemp("models")
    return {kind: tiny.write(kind, root / kind) for kind in tiny.MAKERS}


@pytest.fixture(scope="session")
def loaded(folders: dict[str, Path]) -> dict[str, HookedModel]:
    """Kind of tiny model -> the model in fp32 on the CPU, without adapters."""
    from emoprobe.model.hooked import HookedModel

    return {kind: HookedModel.load(str(folder), device="cpu") for kind, folder in folders.items()}


@pytest.fixture(params=list(tiny.MAKERS))
def model(request: pytest.FixtureRequest, loaded: dict[str, HookedModel]) -> HookedModel:
    """Each of the three classes in turn."""
    return loaded[request.param]
