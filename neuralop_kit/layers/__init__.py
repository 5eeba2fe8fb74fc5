"""Building blocks on fields ``(batch, channel, *space)``, each an ordinary ``nn.Module``."""
