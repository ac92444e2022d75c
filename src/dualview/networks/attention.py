"""Decoupled attention between instances (Sparse4Dv3, arXiv 2311.11722, section 3.2, figure 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualAttention(nn.Module):
    """Multi-head attention that returns query + attention(query, key, value), all [B, N, dims].

    Dropout acts on the attention weights and on the result before the residual, as in the published code.
    """

    def __init__(self, dims: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dims % heads:
            raise ValueError(f"{dims} channels can't be cut into {heads} heads; choose a divisor")
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dims, dims))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dims))
        self.out_proj = nn.Linear(dims, dims)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier weights, zero biases."""
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.in_proj_bias)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, identity: Tensor, blocked: Tensor | None = None
    ) -> Tensor:
        """blocked bool [N, M], True = this query must not see this key. identity [B, N, dims] is added to the
        result."""
        query, key, value = (
            F.linear(x, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x, weight, bias in zip(
                (query, key, value), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True
            )
        )
        dropout = self.dropout if self.training else 0.0
        allowed = None if blocked is None else ~blocked
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=dropout)
        output = self.out_proj(attended.transpose(1, 2).flatten(-2))
        return identity + F.dropout(output, self.dropout, self.training)


class SharedProjections(nn.Module):
    """The two linear maps that all attention layers of a decoder share: C -> 2 C for values, 2 C -> C for
    results."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.before = nn.Linear(dims, 2 * dims, bias=False)
        self.after = nn.Linear(2 * dims, dims, bias=False)


class InstanceAttention(nn.Module):
    """Attention among instances, or from instances to remembered ones.

    Decoupled: queries and keys are the concatenation (feature, embedding), 2 C wide, so content and place
    never mix by addition; values are the features alone, widened by the shared map; the identity branch
    carries the concatenated query. Not decoupled: the usual sum of feature and embedding, C wide.
    """

    def __init__(self, dims: int, heads: int = 8, dropout: float = 0.1, decoupled: bool = True) -> None:
        super().__init__()
        self.decoupled = decoupled
        self.attention = ResidualAttention(2 * dims if decoupled else dims, heads, dropout)

    def forward(
        self,
        features: Tensor,
        embedding: Tensor,
        shared: SharedProjections | None,
        blocked: Tensor | None = None,
    ) -> Tensor:
        """Self-attention: features, embedding [B, N, C] -> [B, N, C]."""
        return self.toward(features, embedding, features, embedding, shared, blocked)

    def toward(
        self,
        features: Tensor,
        embedding: Tensor,
        key_features: Tensor,
        key_embedding: Tensor,
        shared: SharedProjections | None,
        blocked: Tensor | None = None,
    ) -> Tensor:
        """Attention to other instances: key_features, key_embedding [B, M, C]."""
        query, key = self._joined(features, embedding), self._joined(key_features, key_embedding)
        if not self.decoupled:
            return self.attention(query, key, key_features, features, blocked)
        return shared.after(self.attention(query, key, shared.before(key_features), query, blocked))

    def without_history(
        self,
        features: Tensor,
        embedding: Tensor,
        shared: SharedProjections | None,
        blocked: Tensor | None = None,
    ) -> Tensor:
        """What a temporal attention layer does when nothing is remembered yet: the queries stand in for keys
        and values.

        The value is the whole concatenated query, without the shared widening. That is how the layer is
        trained on first frames.
        """
        query = self._joined(features, embedding)
        if not self.decoupled:
            return self.attention(query, query, features, features, blocked)
        return shared.after(self.attention(query, query, query, query, blocked))

    def _joined(self, features: Tensor, embedding: Tensor) -> Tensor:
        if self.decoupled:
            return torch.cat([features, embedding.to(features.dtype)], -1)
        return features + embedding
