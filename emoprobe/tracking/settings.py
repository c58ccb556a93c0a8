"""One exact configuration of a tracked run, as run.json holds it, and the plan that follows. No torch."""

from __future__ import annotations

from emoprobe.records import Record, Sampling, Scenario
from emoprobe.scenarios import library
from emoprobe.tracking.plan import Plan, make_plan


class Settings(Record):
    """Every field changes what is in the folder; a folder holds one value of each.

    `model` and `adapters` are as the user named them, `model_name` and `adapter_names` as tables do.
    """

    model: str
    model_name: str
    adapters: tuple[str, ...]
    adapter_names: tuple[str, ...]
    turns: int
    n: int
    layers: tuple[int, ...]
    emotions: tuple[str, ...]
    judge: str
    seed: int
    device: str
    dtype: str
    batch_size: int
    category: str
    tone: str
    claim: str
    max_new_tokens: int
    temperature: float

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        return Sampling(temperature=self.temperature, max_new_tokens=self.max_new_tokens)

    def scenarios(self) -> tuple[list[Scenario], list[Scenario]]:
        """The rejected arm and its calm twins, in the same order; UserError for an unknown kind."""
        rejected = library.by_category(
            self.category, self.n, self.turns, tone=self.tone, claim=self.claim, seed=self.seed
        )
        return rejected, [library.okay_twin(scenario) for scenario in rejected]

    def plan(self) -> Plan:
        """Every batch, from this configuration alone."""
        return make_plan(*self.scenarios(), self.adapter_names, self.batch_size)
