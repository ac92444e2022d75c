import torch
from torch import nn

from dualview.networks.attention import InstanceAttention, ResidualAttention, SharedProjections

DIMS = 16


def inputs(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, 2, count, DIMS, generator=generator))


def test_is_multi_head_attention_with_a_residual() -> None:
    torch.manual_seed(0)
    ours, theirs = ResidualAttention(DIMS, 4), nn.MultiheadAttention(DIMS, 4, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    (query, key), (value, _) = inputs(7, 0), inputs(7, 1)
    blocked = torch.rand(7, 7, generator=torch.Generator().manual_seed(2)) > 0.7
    blocked.fill_diagonal_(False)
    expected = query + theirs(query, key, value, attn_mask=blocked)[0]
    torch.testing.assert_close(ours(query, key, value, query, blocked), expected)


def test_blocked_instances_cannot_be_seen() -> None:
    torch.manual_seed(0)
    attention, shared = InstanceAttention(DIMS, 4).eval(), SharedProjections(DIMS)
    features, embedding = inputs(8, 0)
    group = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
    blocked = group[:, None] != group[None, :]
    changed = features.clone()
    changed[:, 3:] += 1.0
    first = attention(features, embedding, shared, blocked)
    second = attention(changed, embedding, shared, blocked)
    assert torch.equal(first[:, :3], second[:, :3]) and not torch.allclose(first[:, 3:], second[:, 3:])


def test_embedding_of_keys_steers_but_is_not_read() -> None:
    """With one key only, its embedding can't matter: values are features alone."""
    torch.manual_seed(0)
    attention, shared = InstanceAttention(DIMS, 4).eval(), SharedProjections(DIMS)
    features, embedding = inputs(5, 0)
    key_features, key_embedding = inputs(1, 1)
    first = attention.toward(features, embedding, key_features, key_embedding, shared)
    second = attention.toward(features, embedding, key_features, key_embedding + 3, shared)
    torch.testing.assert_close(first, second)


def test_plain_form_needs_no_shared_projections() -> None:
    torch.manual_seed(0)
    attention = InstanceAttention(DIMS, 4, decoupled=False).eval()
    features, embedding = inputs(5, 0)
    theirs = nn.MultiheadAttention(DIMS, 4, batch_first=True)
    theirs.load_state_dict(attention.attention.state_dict())
    query = features + embedding
    expected = features + theirs(query, query, features)[0]
    torch.testing.assert_close(attention(features, embedding, None), expected)
