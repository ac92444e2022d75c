import torch

from dualview.detectors.box_decoding import decode_instances


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(2, 12, 4, generator=generator),
        torch.randn(2, 12, 11, generator=generator),
        torch.randn(2, 12, 2, generator=generator),
        torch.arange(24).view(2, 12),
    )


def test_everything_belongs_to_its_box() -> None:
    """Score, class score, label, id and box of a row come from one instance, in falling order of score."""
    logits, anchors, quality, ids = example()
    for b, found in enumerate(decode_instances(logits, anchors, quality, ids, max_boxes=8)):
        assert len(found.scores) == 8 and (found.scores.diff() <= 0).all()
        query = found.query
        probability = logits[b, query].sigmoid()
        torch.testing.assert_close(found.class_scores, probability.amax(-1))
        assert torch.equal(found.labels, probability.argmax(-1))
        torch.testing.assert_close(found.scores, found.class_scores * quality[b, query, 0].sigmoid())
        assert torch.equal(found.track_ids, ids[b, query])
        torch.testing.assert_close(found.boxes[:, :3], anchors[b, query, :3])
        assert len(set(query.tolist())) == 8, "with ids, an instance is one box"


def test_threshold_is_on_the_class_score() -> None:
    logits, anchors, quality, ids = example()
    for b, found in enumerate(decode_instances(logits, anchors, quality, ids, score_threshold=0.75)):
        sure = logits[b].sigmoid().amax(-1) >= 0.75
        assert sorted(found.query.tolist()) == sure.nonzero()[:, 0].tolist()
        assert (found.class_scores >= 0.75).all() and (found.scores < 0.75).any()


def test_without_ids_an_instance_may_be_several_classes() -> None:
    logits, anchors, _, _ = example()
    found = decode_instances(logits, anchors, max_boxes=48)[0]
    assert len(found.scores) == 48 and found.track_ids is None
    assert sorted(zip(found.query.tolist(), found.labels.tolist(), strict=True)) == [
        (q, c) for q in range(12) for c in range(4)
    ]


def test_fewer_instances_than_asked_for() -> None:
    logits, anchors, quality, ids = example()
    assert len(decode_instances(logits, anchors, quality, ids, max_boxes=300)[0].scores) == 12
