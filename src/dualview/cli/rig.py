"""Rig files: which cameras a vehicle has, and on which topics and frames they speak."""

from __future__ import annotations

import argparse

HELP = "list and check rig files, or make one from nuScenes' tables"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`dualview rig list`, `dualview rig check RIG`, `dualview rig from-nuscenes DATAROOT SCENE`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="the rigs that come with the package")
    check = actions.add_parser("check", help="read a rig and show what was understood")
    check.add_argument("rig", help="name or YAML file")
    nuscenes = actions.add_parser(
        "from-nuscenes", help="print a rig for a nuscenes2bag recording, with the scene's intrinsics"
    )
    nuscenes.add_argument("dataroot", help="nuScenes' data root")
    nuscenes.add_argument("scene", help="name of the scene, e.g. scene-0061")
    nuscenes.add_argument(
        "--version", help="folder of the tables, e.g. v1.0-mini (default: the only one there)"
    )
    nuscenes.add_argument(
        "--compressed", action="store_true", help="the recording was made with nuscenes2bag's compress switch"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print what was asked for."""
    from dualview.scene.rig import known_rigs, load_rig

    if arguments.action == "list":
        for name, file in known_rigs().items():
            print(f"{name:16s} {len(load_rig(name).cameras)} cameras  {file}")
    elif arguments.action == "check":
        rig = load_rig(arguments.rig)
        print(f"{rig.name}: {rig.world_frame} -> {rig.ego_frame}, anchor {rig.anchor}")
        for camera in rig.cameras:
            kind = "compressed" if camera.compressed else "raw"
            calibration = camera.camera_info_topic or ("in the rig" if camera.calibration else "MISSING")
            placed = ", placed by the rig" if camera.ego_from_camera is not None else ""
            frame = camera.optical_frame or "of the image"
            print(
                f"  {camera.name}: {camera.image_topic} ({kind}), calibration {calibration}, "
                f"frame {frame}{placed}"
            )
    else:
        from dualview.scene.convert.nuscenes import nuscenes2bag_rig

        print(
            nuscenes2bag_rig(arguments.dataroot, arguments.scene, arguments.version, arguments.compressed),
            end="",
        )
    return 0
