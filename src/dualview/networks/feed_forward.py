"""The decoder's feed-forward block (Sparse4Dv3's AsymmetricFFN): its input may be wider than its output."""

from __future__ import annotations

from torch import Tensor, nn


class AsymmetricFeedForward(nn.Module):
    """x [B, N, input_dims] -> [B, N, dims]: identity(norm(x)) + mlp(norm(x)); both branches start from the
    normalised input.

    The identity branch is a Linear when the widths differ.
    """

    def __init__(self, input_dims: int, dims: int, hidden_dims: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(input_dims)
        self.expand = nn.Linear(input_dims, hidden_dims)
        self.contract = nn.Linear(hidden_dims, dims)
        self.identity: nn.Module = nn.Identity() if input_dims == dims else nn.Linear(input_dims, dims)
        self.activation, self.dropout = nn.ReLU(inplace=True), nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier weights; biases keep PyTorch's start."""
        for layer in (self.expand, self.contract, self.identity):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        hidden = self.dropout(self.activation(self.expand(x)))
        return self.identity(x) + self.dropout(self.contract(hidden))
