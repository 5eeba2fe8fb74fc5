"""Normal numbers that are a function of their name: a hash in place of a stream, vectorized over all names."""

import math

import torch
from torch import Tensor

_GOLDEN = -0x61C8864680B583EB  # 2^64 / golden ratio, odd, as a signed number
_FACTORS = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)  # of the finalizer of SplitMix64, as signed numbers
_SHIFTS = (30, 27, 31)
_LOW = 0xFFFFFFFF


def mix(keys: Tensor) -> Tensor:
    """Scramble 64-bit keys: a bijection whose output passes statistical tests for consecutive inputs.

    Args:
        keys: int64, any shape.

    Source: Steele, Lea and Flood (2014), Fast splittable pseudorandom number generators, figure 16 with the constants
    of Stafford's variant 13.

    >>> import torch
    >>> mix(torch.tensor([0, 1])).tolist()
    [0, 6238072747940578789]
    """
    x = keys.clone()
    for shift, factor in zip(_SHIFTS, (*_FACTORS, 1), strict=True):
        # The shift of a signed number copies its sign; the mask takes the copies away.
        x ^= (x >> shift).bitwise_and_((1 << (64 - shift)) - 1)
        if factor != 1:
            x *= factor
    return x


def name_keys(names: Tensor, seed: int) -> Tensor:
    """One 64-bit key per name and seed, to be added to other keys and mixed again.

    Args:
        names: int64, any shape.
        seed: any 64-bit signed number.
    """
    return mix(mix(names * _GOLDEN + seed))


def normal_pairs(keys: Tensor) -> Tensor:
    """Two independent standard normal numbers per key, float64, by the transform of Box and Muller.

    Each half of the mixed key makes a uniform number of 32 bits: the largest value is 6.8.

    Args:
        keys: int64, any shape.

    Returns:
        Both, along a new first axis.

    >>> import torch
    >>> x, y = normal_pairs(torch.arange(100_000))
    >>> round(x.std().item(), 2), round(y.std().item(), 2), abs((x * y).mean().item()) < 0.01
    (1.0, 1.0, True)
    """
    bits = mix(keys)
    radius = (((bits >> 32) & _LOW).double().add_(0.5).mul_(2.0**-32)).log_().mul_(-2.0).sqrt_()
    angle = (bits & _LOW).double().mul_(2 * math.pi * 2.0**-32)
    return torch.stack([angle.cos(), angle.sin_()]).mul_(radius)
