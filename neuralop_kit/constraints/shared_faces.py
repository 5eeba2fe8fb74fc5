"""Cells on several processes: the flux through a face between two of them is one number, and both know it."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from neuralop_kit.constraints.expert_parallel import gather_slices


def with_next_face(flux: Tensor, mesh: DeviceMesh, *, dim: int, is_periodic: bool, dimension: str | int = 0) -> Tensor:
    """Append the first face of the next process behind the last own one, for :class:`FluxForm` on a slab of cells.

    Every process holds a slab of cells, in order of rank, and evaluates the fluxes through the *left* faces of its own
    cells. What leaves its last cell is what the next process says: one layer of faces travels, nothing else, and totals
    over all processes are conserved to rounding, whatever the number of processes.

    Args:
        flux: through the left faces, ``(batch, channel, *faces)``; on the last process between walls with the face at
            the wall included, which is then returned as it is.
        mesh, dimension: the processes.
        dim: dimension of ``flux`` along which space is cut, >= 2.
        is_periodic: whether the first process follows the last one.

    Returns:
        Fluxes with one face more than cells: the slab is a box between walls.

    Derivatives are those of the *sum* of the losses of all processes: sum the gradients of shared parameters.
    """
    group = mesh.get_group(dimension)
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    first = gather_slices(flux.narrow(dim, 0, 1).movedim(dim, 1), (1,) * size, rank, group)
    following = first[:, (rank + 1) % size].unsqueeze(1).movedim(1, dim)
    if rank + 1 == size and not is_periodic:
        # The others wait for this process in the backward pass too: it must take part with a gradient of zero.
        return flux + 0 * following.sum()
    return torch.cat([flux, following], dim=dim)
