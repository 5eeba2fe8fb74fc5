"""FunctionAttention against torch's bare attention with the same matrices: what quadrature weights cost."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import AgainstFloat64, Comparison, FieldCase, Forward, ForwardBackward
from neuralop_kit import Domain
from neuralop_kit.layers import FunctionAttention

NUM_HEADS = 4


@dataclass(frozen=True)
class AttentionCase(FieldCase):
    """White noise on a grid of the unit square."""

    boundary: str = "periodic"

    @property
    def domain(self) -> Domain:
        """The square."""
        return Domain.box((1.0, 1.0), boundary=self.boundary)


class Bare(nn.Module):
    """The same projections around torch's attention, all points alike."""

    def __init__(self, case: AttentionCase) -> None:
        super().__init__()
        self.query = nn.Linear(case.channels, case.channels)
        self.key_value = nn.Linear(case.channels, 2 * case.channels)
        self.read_out = nn.Linear(case.channels, case.channels)

    def forward(self, u: Tensor) -> Tensor:
        """Attention between all points."""
        rows = u.flatten(2).mT
        parts = (self.query(rows), *self.key_value(rows).chunk(2, dim=-1))
        heads = [part.unflatten(2, (NUM_HEADS, -1)).transpose(1, 2) for part in parts]
        mixed = scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return self.read_out(mixed).mT.unflatten(2, u.shape[2:])


def ours(case: AttentionCase) -> nn.Module:
    """Ours."""
    return FunctionAttention(case.channels, case.channels, NUM_HEADS, domain=case.domain)


def share_weights(layer: nn.Module, peer: nn.Module) -> None:
    """Both have the same names."""
    peer.load_state_dict(layer.state_dict())


def comparison(n: int, boundary: str, *, quick: bool = True) -> Comparison:
    """One grid; between walls the peer computes something else, without weights."""
    return Comparison(
        name=f"layers/function_attention/{n}x{n}-{boundary}",
        ours=ours,
        peer=Bare,
        peer_name="torch SDPA",
        match=share_weights if boundary == "periodic" else None,
        case=AttentionCase(batch=2, channels=64, shape=(n, n), boundary=boundary),
        measure=(Forward(), ForwardBackward()),
        accuracy=AgainstFloat64(tolerance=1e-5),
        target=0.9,
        quick=quick,
    )


ATTENTION = [
    comparison(32, "periodic"),
    comparison(32, "neumann"),
    comparison(64, "periodic", quick=False),
    comparison(64, "neumann", quick=False),
]
