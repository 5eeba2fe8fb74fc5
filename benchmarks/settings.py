"""How long to measure, and on what: the knobs of a whole run, none of a single entry."""

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Profile:
    """How much time one measurement may take.

    Args:
        name: ``"quick"`` or ``"full"``.
        seconds: time to spend on the alternating samples of one measurement, both sides together.
        min_pairs, max_pairs: bounds on the number of pairs; ``min_pairs`` wins over ``seconds``.
        warm_up_seconds: untimed calls before the first sample, per side; at least one call.
        sample_seconds: a sample repeats its call until it lasts about this long, which hides the clock's own cost.
    """

    name: str
    seconds: float
    min_pairs: int
    max_pairs: int
    warm_up_seconds: float = 0.1
    sample_seconds: float = 2e-3


PROFILES = {
    "quick": Profile("quick", seconds=1.5, min_pairs=3, max_pairs=100),
    "full": Profile("full", seconds=10.0, min_pairs=7, max_pairs=400, warm_up_seconds=0.5),
}


@dataclass(frozen=True)
class Setting:
    """What holds for every entry of a run; studies receive it as their second argument."""

    profile: Profile = PROFILES["quick"]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0

    @property
    def is_quick(self) -> bool:
        """Whether this is the profile of ``make bench``."""
        return self.profile.name == "quick"

    def generator(self) -> torch.Generator:
        """A fresh CPU generator: inputs are drawn there and moved, so that every device sees the same numbers."""
        return torch.Generator().manual_seed(self.seed)
