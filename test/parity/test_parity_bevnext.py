"""BEVNeXt's depth field, temporal fusion and perspective refinement, and BEVDet4D's warp, against published code's numbers."""

from __future__ import annotations

import pytest
import torch
from golden import golden_case
from test_parity_bev import (
    bins_of,
    depth_net_names,
    grid_of,
    image_augmentation,
    load_published,
    projection,
)
from torch import Tensor, nn

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bev_warp import planar, warp_bev
from dualview.networks.conditional_random_field_depth import (
    ConditionalRandomFieldDepth,
    DepthFieldConfig,
    color_affinity,
    patch_colors,
)
from dualview.networks.depth_net import DepthNet, camera_vector
from dualview.networks.lift_splat import frustum, lift_splat, plan_lift_splat
from dualview.networks.perspective_refinement import PerspectiveRefinement, PerspectiveRefinementConfig
from dualview.networks.pillar_attention import pillar_points, project_pillars
from dualview.networks.res2_stages import Res2Stages
from dualview.networks.temporal_bev_fusion import Res2Fusion
from dualview.supervision.depth_loss import depth_distribution_loss, depth_target


def canvas_images(canvas: Tensor) -> Tensor:
    """uint8 [B, N, H, W, 3] -> [B N, 3, H, W]."""
    return canvas.flatten(0, 1).permute(0, 3, 1, 2)


@pytest.mark.parametrize("run", ["official", "wide", "wide_tol"])
def test_parity_depth_field(run: str) -> None:
    case = golden_case("bev", "bevnext_crf")
    config, settings = case.config, case.config["runs"][run]
    colors = patch_colors(canvas_images(case.inputs["canvas"]), config["patch_size"])
    case.check("patch_color", colors, atol=1e-4)
    affinity = color_affinity(colors, settings["crf_zeta"])
    case.check(f"{run}.kernel", affinity.flatten(2), atol=1e-5)

    def field(iterations: int) -> ConditionalRandomFieldDepth:
        made = ConditionalRandomFieldDepth(
            DepthFieldConfig(iterations, settings["crf_zeta"], tolerance=settings["tolerance"]), config["D"]
        )
        load_published(made, {"ws.0": case.weights[f"{run}.ws.0"]}, {"weight": "ws.0"})
        return made

    logits = case.inputs["logits"].clone().requires_grad_()
    case.check(f"{run}.depth_prob_iter1", field(1)(logits, affinity).softmax(1), atol=1e-5)
    whole = field(config["crf_num_iter"])
    probability = whole(logits, affinity).softmax(1)
    case.check(f"{run}.depth_prob", probability, atol=1e-5)
    ramp = torch.linspace(1, 2, config["D"]).view(1, -1, 1, 1)
    (probability * ramp).square().sum().backward()
    case.check(f"{run}.grad_logits", logits.grad, rtol=1e-4)
    case.check(f"{run}.grad_w", whole.weight.grad, rtol=1e-4)


class FusionAndStages(nn.Module):
    """The two networks of the case, which run one after the other."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        settings = config["cfg"]
        self.fusion = Res2Fusion(config["C"], config["frames"], settings["fusion_layer"]["scales"])
        channels = tuple(settings["num_channels"])
        self.stages = Res2Stages(
            settings["numC_input"], channels, (2,) * len(channels), tuple(settings["num_layer"])
        )


def res2_names(config: dict) -> dict[str, str]:
    """Our prefix -> published prefix."""
    names = {f"fusion.{ours}.{i}": f"fusion_layer.{theirs}" for ours, i, theirs in (
        ("join", 0, "conv1"), ("join", 1, "bn1"), ("leave", 0, "conv3"), ("leave", 1, "bn3"),
    )}  # fmt: skip
    for i in range(config["cfg"]["fusion_layer"]["scales"] - 1):
        names |= {
            f"fusion.parts.{i}.0": f"fusion_layer.convs.{i}",
            f"fusion.parts.{i}.1": f"fusion_layer.bns.{i}",
        }
    for stage, count in enumerate(config["cfg"]["num_layer"]):
        for block in range(count):
            ours, theirs = f"stages.stages.{stage}.{block}", f"layers.{stage}.0.{block}"
            for mine, number in (("enter", 1), ("leave", 3)):
                names |= {
                    f"{ours}.{mine}.0": f"{theirs}.conv{number}",
                    f"{ours}.{mine}.1": f"{theirs}.bn{number}",
                }
            names |= {f"{ours}.parts.{i}.0": f"{theirs}.convs.{i}" for i in range(3)}
            names |= {f"{ours}.parts.{i}.1": f"{theirs}.bns.{i}" for i in range(3)}
            names[f"{ours}.shortcut"] = f"{theirs}.downsample"
    return names


def test_parity_res2_fusion() -> None:
    case = golden_case("bev", "bevnext_res2fusion")
    network = FusionAndStages(case.config).eval()
    load_published(network, case.weights, res2_names(case.config))
    fused = network.fusion(case.inputs["frames"].unflatten(1, (case.config["frames"], case.config["C"])))
    case.check("fused", fused, atol=2e-5)
    for index, stage in enumerate(network.stages(fused)):
        case.check(f"stage{index}", stage, atol=2e-5)


def refinement_names() -> dict[str, str]:
    """Our prefix -> published prefix."""
    layer = "transformer_neck.decoder.layers.0"
    attention = f"{layer}.attentions.0"
    return {
        "depth_embedding.embed": "depth_emb",
        "adapt.0": "transformer_neck.shared_conv.conv",
        "adapt.1": "transformer_neck.shared_conv.bn",
        "query": "transformer_neck.bev_embedding.weight",
        "row_position": "transformer_neck.positional_encoding.row_embed.weight",
        "column_position": "transformer_neck.positional_encoding.col_embed.weight",
        "attention.offsets": f"{attention}.deformable_attention.sampling_offsets",
        "attention.weights": f"{attention}.deformable_attention.attention_weights",
        "attention.value": f"{attention}.deformable_attention.value_proj",
        "attention.output": f"{attention}.output_proj",
        "norm1": f"{layer}.norms.0",
        "feed_forward.0": f"{layer}.ffns.0.layers.0.0",
        "feed_forward.3": f"{layer}.ffns.0.layers.1",
        "norm2": f"{layer}.norms.1",
    }


def test_parity_perspective_refinement() -> None:
    case = golden_case("bev", "bevnext_perspective_refinement")
    config, inputs = case.config, case.inputs
    grid, heights = grid_of({"grid_config": config["grid"]})
    settings = PerspectiveRefinementConfig(config["num_heads"], config["num_points"], heights)
    network = PerspectiveRefinement(settings, grid, config["lss_channels"], config["C"], config["D"]).eval()
    load_published(network, case.weights, refinement_names())

    case.check("ref_3d", pillar_points(grid, heights), atol=1e-5)
    views = project_pillars(grid, heights, projection(inputs), None, tuple(config["input_size"]))
    case.check("mask", views.visible.transpose(0, 1).to(torch.uint8))
    seen = torch.where(views.visible.unsqueeze(-1), views.locations, 0.0).transpose(0, 1)
    case.check("reference_points_cam_valid", seen, atol=1e-5)
    features = network.depth_embedding(inputs["context"], inputs["depth_prob"])
    case.check("feats_2d", features, atol=1e-5)
    context, depth = (
        inputs[name].unflatten(0, views.visible.shape[:2]) for name in ("context", "depth_prob")
    )
    case.check("refined", network(inputs["lss_feats"], context, depth, views), atol=1e-4)


class ViewTransformer(nn.Module):
    """The learned parts of the case."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        bins = bins_of(config).count
        self.depth_net = DepthNet(
            config["C_in"], config["mid"], bins, config["out_channels"], deformable=False,
            context_deformable=config["use_dcn"],
        )  # fmt: skip
        crf = config["crf"]
        self.depth_field = ConditionalRandomFieldDepth(
            DepthFieldConfig(crf["crf_num_iter"], crf["crf_zeta"]), bins
        )


def test_parity_view_transformer() -> None:
    case = golden_case("bev", "bevnext_view_transformer")
    config, inputs = case.config, case.inputs
    network = ViewTransformer(config).eval()
    names = depth_net_names({"use_aspp": True, "use_dcn": False}, blocks=3) | {
        "context_deformable.0.offset": "context_conv.0.conv_offset",
        "context_deformable.0": "context_conv.0",
        "context_deformable.1": "context_conv.1",
        "context_output": "context_conv.3",
    }
    names = {f"depth_net.{ours}": f"depth_net.{theirs}" for ours, theirs in names.items()}
    load_published(network, case.weights, names | {"depth_field.weight": "crf.ws.0"})

    ego_from_camera = torch.cat([inputs["rots"], inputs["trans"].unsqueeze(-1)], -1)
    vector = camera_vector(inputs["intrins"], ego_from_camera, image_augmentation(inputs), inputs["bda"])
    prediction = network.depth_net(inputs["x"].flatten(0, 1), vector.flatten(0, 1))
    case.check("depth_logits", prediction.logits, atol=2e-5)
    case.check("context", prediction.context, atol=2e-5)

    colors = patch_colors(canvas_images(inputs["canvas"]), config["patch_size"])
    refined = network.depth_field(prediction.logits, color_affinity(colors, config["crf"]["crf_zeta"]))
    probability = refined.softmax(1)
    case.check("depth_prob", probability, atol=1e-5)

    grid, z_cells = grid_of(config)
    template = frustum(
        tuple(config["input_size"]), inputs["x"].shape[-2:], bins_of(config), corner_aligned=True
    )
    plan = plan_lift_splat(projection(inputs), None, template, grid, "truncate", z_cells)
    shape = inputs["x"].shape[:2]
    bev = lift_splat(
        probability.unflatten(0, shape), prediction.context.unflatten(0, shape), plan, grid, z_cells
    )
    case.check("bev", bev, atol=2e-5)

    target = depth_target(inputs["gt_depth"].flatten(0, 1), config["downsample"], bins_of(config))
    loss = depth_distribution_loss(probability, target, config["loss_depth_weight"])
    case.check("loss_depth", loss.view(1), rtol=1e-5)


def test_parity_warp() -> None:
    case = golden_case("bev", "bevdet4d_shift_feature")
    inputs = case.inputs
    grid, _ = grid_of(case.config)

    def pose(stem: str, augmentation: Tensor) -> Tensor:
        """Augmented ego frame from camera 0, [B, 4, 4] (float64)."""
        matrix = torch.eye(4, dtype=torch.float64).repeat(len(augmentation), 1, 1)
        matrix[:, :3, :3] = augmentation.double() @ inputs[f"rots_{stem}"][:, 0].double()
        matrix[:, :3, 3:] = augmentation.double() @ inputs[f"trans_{stem}"][:, 0, :, None].double()
        return matrix

    def shifted(current: Tensor, previous: Tensor) -> Tensor:
        # The previous camera lies in the key frame, motion included: camera 0 then, seen from now, against camera 0 now.
        previous_from_current = pose("curr", current) @ torch.linalg.inv(pose("prev", previous))
        return warp_bev(inputs["feat_prev"], planar(previous_from_current), grid, corner_aligned=True)

    plain = torch.eye(3).expand_as(inputs["bda"])
    case.check("shifted", shifted(inputs["bda"], inputs["bda"]), atol=1e-4, rtol=1e-4)
    case.check("shifted_no_bda", shifted(plain, plain), atol=1e-4, rtol=1e-4)
    case.check("shifted_bda_adj", shifted(inputs["bda"], inputs["bda_adj"]), atol=1e-4, rtol=1e-4)


def test_parity_warp_is_the_ego_motion() -> None:
    """What camera 0 says is what the vehicle's motion says: so may a detector that knows its poses do it."""
    case = golden_case("bev", "bevdet4d_shift_feature")
    motion = case.inputs["T_keyego_from_adjego"].double()
    grid: BevGrid = grid_of(case.config)[0]
    adjacent_from_key = planar(torch.linalg.inv(motion))
    case.check(
        "shifted_no_bda",
        warp_bev(case.inputs["feat_prev"], adjacent_from_key, grid, True),
        atol=1e-4,
        rtol=1e-4,
    )
