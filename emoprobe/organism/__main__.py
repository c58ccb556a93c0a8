"""`python -m emoprobe.organism`: the model organism from its seeds."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import Field

from emoprobe.cli import Config, command


class OrganismConfig(Config):
    """Train the model organism, its base checkpoint and its dpo adapter from seeds, and measure them."""

    seeds: tuple[int, ...] = Field((0,), min_length=1, description="training seeds; the first one ships")
    n: int = Field(32, ge=8, description="conversations per condition of the card")
    out: Path = Field(Path("artifacts"), description="the folder that gets models/ and adapters/")


def run(config: OrganismConfig) -> Path:
    """All that `make.make` does; returns the organism's folder."""
    from emoprobe.organism.make import make

    return make(config.seeds, config.n, config.out)


main = command(OrganismConfig, run)

if __name__ == "__main__":
    sys.exit(main())
