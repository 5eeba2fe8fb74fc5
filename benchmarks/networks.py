"""Small networks of the kinds that people bring, written as they would write them."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """Two convolutions of 3 x 3 with batch norms, and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, mode: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False, padding_mode=mode)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False, padding_mode=mode)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Two convolutions and what goes round them."""
        out = functional.gelu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return functional.gelu(out + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """ResNet-18 in small: stem, four stages of two blocks, global mean, one matrix."""

    def __init__(self, mode: str = "circular") -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False, padding_mode=mode), nn.BatchNorm2d(4))
        widths = [4, 4, 6, 8, 8]
        stages = []
        for i in range(4):
            stages.append(ResidualBlock(widths[i], widths[i + 1], 1 if i == 0 else 2, mode))
            stages.append(ResidualBlock(widths[i + 1], widths[i + 1], 1, mode))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """A field to three numbers."""
        x = self.stages(torch.tanh(self.stem(x)))
        x = functional.adaptive_avg_pool2d(x, 1)
        return self.head(torch.flatten(x, 1))


def double_conv(in_channels: int, out_channels: int, mode: str) -> nn.Sequential:
    """Two convolutions of 3 x 3."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode=mode),
        nn.GELU(),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, padding_mode=mode),
        nn.GELU(),
    )


class PoolingUNet(nn.Module):
    """Pooling down, interpolation up, concatenation between."""

    def __init__(self, mode: str = "circular", pool: str = "avg") -> None:
        super().__init__()
        self.down1, self.down2 = double_conv(1, 4, mode), double_conv(4, 6, mode)
        self.bottom = double_conv(6, 6, mode)
        self.up2, self.up1 = double_conv(12, 4, mode), double_conv(8, 4, mode)
        self.pool = nn.MaxPool2d(2) if pool == "max" else nn.AvgPool2d(2)
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """A field in, a field on the same grid out."""
        a = self.down1(x)
        b = self.down2(self.pool(a))
        c = self.bottom(self.pool(b))
        up = functional.interpolate(c, scale_factor=2, mode="bilinear", align_corners=False)
        b = self.up2(torch.cat([up, b], dim=1))
        up = functional.interpolate(b, size=a.shape[2:], mode="bilinear", align_corners=False)
        return self.head(self.up1(torch.cat([up, a], dim=1)))


class StridedUNet(nn.Module):
    """Strided convolutions down, transposed ones up, sums between, group norms."""

    def __init__(self, mode: str = "circular") -> None:
        super().__init__()
        self.start = nn.Conv2d(1, 4, 3, padding=1, padding_mode=mode)
        self.down1 = nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode=mode)
        self.norm1 = nn.GroupNorm(2, 6)
        self.down2 = nn.Conv2d(6, 8, 4, stride=2, padding=1, padding_mode=mode)
        self.up2 = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.up1 = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.end = nn.Conv2d(4, 1, 3, padding="same", padding_mode=mode)

    def forward(self, x: Tensor) -> Tensor:
        """A field in, a field on the same grid out."""
        a = torch.tanh(self.start(x))
        b = functional.silu(self.norm1(self.down1(a)))
        c = functional.silu(self.down2(b))
        b = functional.silu(self.up2(c) + b)
        return self.end(functional.silu(self.up1(b) + a))


class Attention(nn.Module):
    """Self-attention written out by hand, through scaled_dot_product_attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``(batch, number, width)`` to the same."""
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(b, n, c))


class TransformerBlock(nn.Module):
    """Attention, then a perceptron, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, *, by_hand: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, 2) if by_hand else nn.MultiheadAttention(width, 2, batch_first=True)
        self.by_hand = by_hand
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``(batch, number, width)`` to the same."""
        y = self.norm1(x)
        x = x + (self.attention(y) if self.by_hand else self.attention(y, y, y, need_weights=False)[0])
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches of four, learned positions, two blocks, pixels back by a matrix or by a transposed convolution."""

    def __init__(self, *, size: int = 16, unpatch: str = "matrix", by_hand: bool = False) -> None:
        super().__init__()
        self.patch, self.grid, self.unpatch = 4, size // 4, unpatch
        self.embed = nn.Conv2d(1, 8, 4, stride=4)
        self.positions = nn.Parameter(0.5 * torch.randn(1, self.grid**2, 8))
        self.blocks = nn.ModuleList(TransformerBlock(8, by_hand=by_hand) for _ in range(2))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 16) if unpatch == "matrix" else nn.ConvTranspose2d(8, 1, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        """A field in, a field on the same grid out."""
        x = self.embed(x)
        b, c, h, w = x.shape
        x = x.flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        if self.unpatch == "matrix":
            x = self.head(x).reshape(b, h, w, 1, self.patch, self.patch)
            return x.permute(0, 3, 1, 4, 2, 5).reshape(b, 1, h * self.patch, w * self.patch)
        return self.head(x.transpose(1, 2).reshape(b, c, h, w))


class MixerBlock(nn.Module):
    """A perceptron over tokens, then one over channels."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.over_tokens = nn.Sequential(nn.Linear(tokens, 2 * tokens), nn.GELU(), nn.Linear(2 * tokens, tokens))
        self.over_channels = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``(batch, number, width)`` to the same."""
        x = x + self.over_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.over_channels(self.norm2(x))


class Mixer(nn.Module):
    """MLP-Mixer: patches, two blocks, mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 6, 4, stride=4)
        self.blocks = nn.Sequential(MixerBlock(16, 6), MixerBlock(16, 6))
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """A field to three numbers."""
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(dim=1))


class ConvNeXtBlock(nn.Module):
    """Depthwise 7 x 7, norm over channels last, two matrices, a scale per channel."""

    def __init__(self, width: int, mode: str) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width, padding_mode=mode)
        self.norm = nn.LayerNorm(width)
        self.expand, self.shrink = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(0.5 * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """A field in, a field on the same grid out."""
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.shrink(functional.gelu(self.expand(self.norm(y))))
        return x + (self.scale * y).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Two blocks between a lift and a head."""

    def __init__(self, mode: str = "circular") -> None:
        super().__init__()
        self.lift = nn.Conv2d(1, 4, 1)
        self.blocks = nn.Sequential(ConvNeXtBlock(4, mode), ConvNeXtBlock(4, mode))
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """A field in, a field on the same grid out."""
        return self.head(self.blocks(self.lift(x)))


class Recurrent(nn.Module):
    """A GRU along time: signals ``(batch, channel, time)``."""

    def __init__(self, kind: str = "GRU") -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(1, 8, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, u: Tensor) -> Tensor:
        """A signal to one of the same length."""
        h, _ = self.rnn(u.transpose(1, 2))
        return self.head(h).transpose(1, 2)


class MessageLayer(nn.Module):
    """Messages from neighbours with their direction, summed; then an update."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.message = nn.Sequential(nn.Linear(2 * width + 2, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.update = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, edge_index: Tensor, edge_vector: Tensor) -> Tensor:
        """Values at nodes, pairs of nodes, and the vector along each edge."""
        source, target = edge_index
        vector = edge_vector.expand(x.shape[0], -1, -1)
        messages = self.message(torch.cat([x[:, target], x[:, source], vector], dim=-1))
        total = torch.zeros_like(x).index_add(1, target, messages)
        return x + self.update(torch.cat([x, total], dim=-1))


class GraphNetwork(nn.Module):
    """Message passing between the four neighbours of every point of a periodic grid."""

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.lift, self.head = nn.Linear(1, 4), nn.Linear(4, 1)
        self.layers = nn.ModuleList(MessageLayer(4) for _ in range(2))
        points = torch.arange(size * size).reshape(size, size)
        directions = ((1, 0), (-1, 0), (0, 1), (0, -1))
        sources = [points.roll(d, (0, 1)).flatten() for d in directions]
        targets = [points.flatten()] * 4
        self.register_buffer("edge_index", torch.stack([torch.cat(sources), torch.cat(targets)]))
        vectors = torch.tensor(directions, dtype=torch.get_default_dtype()).repeat_interleave(size * size, dim=0)
        self.register_buffer("edge_vector", vectors)

    def forward(self, u: Tensor) -> Tensor:
        """A field in, a field on the same grid out."""
        b, c, h, w = u.shape
        x = self.lift(u.reshape(b, c, h * w).transpose(1, 2))
        for layer in self.layers:
            x = layer(x, self.edge_index, self.edge_vector)
        return self.head(x).transpose(1, 2).reshape(b, 1, h, w)


def lively(net: nn.Module) -> nn.Module:
    """In float64, evaluation, with statistics and biases as after training: outputs are more than their biases."""
    net = net.double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.mul_(0.1)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        net.train()(torch.rand(8, 1, 16, 16, dtype=torch.float64).cumsum(-1).sin())
    return net.eval()
