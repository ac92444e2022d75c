"""The door to all distillation losses: what it gives, what it asks for, and that the student stays what it is."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dualview.detectors.json_config import from_dict, to_dict
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.center_head import CenterHead, CenterHeadConfig
from dualview.networks.lift_splat import DepthBins
from dualview.supervision.distillation import (
    DistillationSettings,
    StudentOutputs,
    TeacherOutputs,
    distillation_losses,
    object_depth_losses,
)
from dualview.supervision.ground_truth import GroundTruth
from dualview.supervision.ray_config import RayConfig
from dualview.supervision.ray_layout import CameraView
from dualview.supervision.response_distillation import ResponseConfig
from dualview.supervision.tig_depth import InnerDepthConfig
from dualview.supervision.tig_features import InnerFeatureConfig
from dualview.supervision.tig_targets import ObjectDepth

GRID = BevGrid(-8.0, -6.0, 1.0, 16, 12)
COARSE = BevGrid(-8.0, -6.0, 2.0, 8, 6)
BINS = DepthBins(1.0, 9.0, 2.0)
ALL = DistillationSettings(
    100.0,
    InnerDepthConfig(),
    InnerFeatureConfig(keypoints=4),
    RayConfig(ray_count=60, origin="frame"),
    ResponseConfig(),
)
NAMES = {
    "tig/absolute_depth", "tig/inner_depth", "tig/inter_channel", "tig/inter_keypoint", "ray/contrastive", "ray/weighted", "response",
}  # fmt: skip


def truth(*boxes):
    rows = [[x, y, 0.0, 4.0, 2.0, 1.5, yaw, 0.0, torch.nan] for x, y, yaw in boxes]
    return GroundTruth(torch.tensor(rows).view(-1, 9), torch.zeros(len(rows), dtype=torch.int64))


MIXED = [truth((1.0, 2.0, 0.3), (30.0, 0.0, 0.0)), truth(), truth((-7.5, -5.5, 1.0))]
NOTHING = [truth(), truth((30.0, 0.0, 0.0)), truth()]


class Scene:
    """A student with a lift and a centre head, and its teacher, of random numbers."""

    def __init__(self, student_grid=GRID, teacher_grid=GRID):
        torch.manual_seed(0)
        tasks = CenterHeadConfig(((0,), (1, 2)), 8, 8)
        self.bev = torch.randn(3, 4, student_grid.rows, student_grid.columns, requires_grad=True)
        self.logits = torch.randn(3, 1, BINS.count, 2, 3, requires_grad=True)
        center = CenterHead(tasks, 4)(self.bev) if student_grid == teacher_grid else []
        self.student = StudentOutputs(self.bev, student_grid, center)
        self.teacher_bev = torch.randn(3, 6, teacher_grid.rows, teacher_grid.columns, requires_grad=True)
        taught = CenterHead(tasks, 6)(self.teacher_bev)
        self.teacher = TeacherOutputs(self.teacher_bev, teacher_grid, taught)
        self.objects = ObjectDepth(
            torch.rand(3, 1, 2, 3) * 8 + 1,
            torch.tensor([1, 1, 0, 1, 2, 2]).view(1, 1, 2, 3).repeat(3, 1, 1, 1),
        )
        self.adapters = ALL.adapters(4, 6)

    def losses(self, truths, settings=ALL, seed=0, objects=None, **changes):
        generator = torch.Generator().manual_seed(seed)
        given = {"adapters": self.adapters, "generator": generator} | changes
        depths = object_depth_losses(self.logits, BINS, objects or self.objects, settings)
        return depths | distillation_losses(self.student, self.teacher, truths, settings, **given)


def test_everything_at_once_in_a_mixed_batch():
    scene = Scene()
    losses = scene.losses(MIXED)
    assert set(losses) == NAMES
    assert all(loss.shape == () and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert scene.bev.grad.ne(0).any() and scene.logits.grad.ne(0).any() and scene.teacher_bev.grad is None
    assert all(p.grad is not None and p.grad.isfinite().all() for p in scene.adapters.parameters())


def test_scenes_without_boxes():
    scene = Scene()
    none = ObjectDepth(scene.objects.depth, torch.zeros_like(scene.objects.object_index))
    losses = scene.losses(NOTHING, objects=none)
    for name in ("tig/inner_depth", "tig/inter_channel", "tig/inter_keypoint", "ray/contrastive"):
        assert losses[name].item() == 0.0
    sum(losses.values()).backward()  # every parameter has a gradient, so that processes agree
    assert all(p.grad is not None and p.grad.isfinite().all() for p in scene.adapters.parameters())
    assert scene.bev.grad.isfinite().all() and scene.logits.grad.isfinite().all()


def test_parts_are_off_until_they_are_named():
    scene = Scene()
    assert scene.losses(MIXED, DistillationSettings()) == {}
    only = {
        "inner_depth": {"tig/inner_depth"},
        "inner_feature": {"tig/inter_channel", "tig/inter_keypoint"},
        "rays": {"ray/contrastive", "ray/weighted"},
        "response": {"response"},
    }
    for part, names in only.items():
        settings = replace(DistillationSettings(), **{part: getattr(ALL, part)})
        assert set(scene.losses(MIXED, settings)) == names
    rays = replace(ALL.rays, contrastive_weight=0.0)
    assert set(scene.losses(MIXED, DistillationSettings(rays=rays))) == {"ray/weighted"}


def test_parts_alone_and_together_are_the_same():
    scene = Scene()
    scene.adapters.eval()
    together = scene.losses(MIXED)
    alone = scene.losses(MIXED, DistillationSettings(rays=ALL.rays))
    assert torch.equal(together["ray/contrastive"], alone["ray/contrastive"])
    assert torch.equal(together["ray/weighted"], alone["ray/weighted"])


def test_a_coarser_student_is_brought_to_the_teachers_cells():
    scene = Scene(COARSE, GRID)
    losses = scene.losses(MIXED)
    assert set(losses) == NAMES - {"response"}  # no centre head, no response
    sum(losses.values()).backward()
    assert scene.bev.grad.ne(0).any()


def test_rays_start_at_the_cameras():
    scene = Scene()
    settings = DistillationSettings(rays=replace(ALL.rays, origin="camera_mean"))
    with pytest.raises(ValueError, match="CameraView"):
        scene.losses(MIXED, settings)
    scene.adapters.eval()
    # At the frame's origin, with any orientation, a camera gives the same rays as the frame.
    turn = torch.eye(4, dtype=torch.float64)[[1, 2, 0, 3]].expand(3, 1, 4, 4)
    found = scene.losses(MIXED, settings, cameras=CameraView(turn, None, (8, 8)))
    expected = scene.losses(MIXED, DistillationSettings(rays=ALL.rays))
    assert torch.equal(found["ray/weighted"], expected["ray/weighted"])
    moved = turn.clone()
    moved[..., :3, 3] = 3.0
    other = scene.losses(MIXED, settings, cameras=CameraView(moved, None, (8, 8)))
    assert not torch.equal(other["ray/weighted"], expected["ray/weighted"])


def test_what_is_missing_is_named():
    scene = Scene()
    with pytest.raises(ValueError, match="run the teacher"):
        distillation_losses(scene.student, None, MIXED, DistillationSettings(rays=ALL.rays))
    with pytest.raises(ValueError, match=r"DistillationSettings\.adapters"):
        scene.losses(MIXED, DistillationSettings(rays=ALL.rays), adapters=None)
    with pytest.raises(ValueError, match="one for each"):
        scene.losses(MIXED[:2])
    depth_only = DistillationSettings(inner_depth=InnerDepthConfig())
    assert not depth_only.needs_teacher and depth_only.needs_object_depth
    assert set(object_depth_losses(scene.logits, BINS, scene.objects, depth_only)) == {"tig/inner_depth"}
    assert distillation_losses(scene.student, None, MIXED, depth_only) == {}


def test_settings_travel_as_json():
    for settings in (
        ALL,
        DistillationSettings(),
        DistillationSettings.tig_bev(),
        DistillationSettings.rayd3d(),
    ):
        assert from_dict(DistillationSettings, to_dict(settings)) == settings
    assert DistillationSettings.tig_bev().inner_feature.keypoints == 24
    assert DistillationSettings.rayd3d().rays == RayConfig()


def test_the_student_after_a_step_is_the_plain_student():
    """Same parameter names and shapes, same graph: nothing of a teacher stays in it."""
    torch.manual_seed(0)
    student = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    before = {name: value.shape for name, value in student.state_dict().items()}
    scene = Scene()
    optimizer = torch.optim.SGD([*student.parameters(), *scene.adapters.parameters()], 1e-3)
    bev = student(torch.randn(3, 3, 12, 16))
    settings = DistillationSettings(inner_feature=ALL.inner_feature, rays=ALL.rays)
    losses = distillation_losses(StudentOutputs(bev, GRID), scene.teacher, MIXED, settings, scene.adapters)
    sum(losses.values()).backward()
    optimizer.step()
    assert {name: value.shape for name, value in student.state_dict().items()} == before
    assert not set(dict(student.named_modules()).values()) & set(scene.adapters.modules())


@pytest.mark.parametrize(
    "part",
    [
        {"inner_feature": replace(ALL.inner_feature, keypoint_weight=0.0)},
        {"inner_feature": replace(ALL.inner_feature, channel_weight=0.0)},
        {"rays": replace(ALL.rays, weighted_weight=0.0)},
        {"rays": replace(ALL.rays, contrastive_weight=0.0)},
    ],
    ids=["inter_channel", "inter_keypoint", "contrastive", "weighted"],
)
def test_each_loss_can_be_learnt(part):
    """A map trained on one loss alone, without layers between, loses a third of it in a few steps."""
    scene = Scene()
    bev = torch.randn(3, 6, GRID.rows, GRID.columns, requires_grad=True)
    optimizer = torch.optim.Adam([bev], 0.1)
    history = []
    for _ in range(20):
        (loss,) = distillation_losses(
            StudentOutputs(bev, GRID), scene.teacher, MIXED, DistillationSettings(**part),
            generator=torch.Generator().manual_seed(0),
        ).values()  # fmt: skip
        history.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert history[-1] < history[0] * 2 / 3, history
