"""A world as a MuJoCo model: one mocap body for each actor, fixed geoms for the scenery, and the tables that lead back."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from dualview.scene.synthetic.actors import Pose
from dualview.scene.synthetic.city import signal_state
from dualview.scene.synthetic.meshes import Mesh, merge
from dualview.scene.synthetic.object_model import Limb
from dualview.scene.synthetic.scenery import Scenery, Surface
from dualview.scene.synthetic.sky import skybox
from dualview.scene.synthetic.street_furniture import SignalHead
from dualview.scene.synthetic.world import World

FAR = 420.0  # m, nothing is drawn beyond
NEAR = 0.25  # m
SHADOW_AHEAD, SHADOW_REACH = (
    24.0,
    36.0,
)  # m: shadows are drawn around a point so far ahead of the camera, so far each way
GROUP_SOLID, GROUP_PAINTED, GROUP_HIDDEN = 0, 3, 5
LAMP_COLOURS = ((1.0, 0.12, 0.08), (1.0, 0.72, 0.10), (0.15, 0.95, 0.35))
LAMP_OFF = (0.06, 0.06, 0.06)
_ASPHALT_SPAN = 11.0  # m that the asphalt picture covers


@dataclass
class SceneModel:
    """The compiled model and its tables; G geoms, A actors."""

    mujoco: ModuleType
    model: Any
    data: Any
    world: World
    actor_of_geom: np.ndarray  # int [G], -1 = scenery
    base_group: np.ndarray  # int [G]
    mocap_of_actor: np.ndarray  # int [A]
    limbs: list[
        tuple[int, int, Limb, np.ndarray, np.ndarray]
    ]  # actor, geom, limb, geom position and quaternion at rest
    lamps: list[tuple[int, SignalHead, int]]  # geom, head, which lamp
    reflectivity: np.ndarray  # [G]
    posed: dict[int, Pose] = field(default_factory=dict)  # where everyone was last put, by actor

    def pose_all(self, time: float, around: np.ndarray, radius: float = 160.0) -> None:
        """Put every moving actor near `around` (x, y) where it is at `time`, and light the signals.

        Movers that were farther than `radius` m when last placed stay there: they are beyond what anyone sees.
        """
        data = self.data
        poses: dict[int, Pose] = {}
        for index, actor in enumerate(self.world.actors):
            last = self.posed[index]
            if not actor.moving or abs(last.x - around[0]) > radius or abs(last.y - around[1]) > radius:
                continue
            mocap = self.mocap_of_actor[index]
            pose = self.posed[index] = poses[index] = actor.pose(time)
            data.mocap_pos[mocap] = (pose.x, pose.y, pose.z)
            data.mocap_quat[mocap] = (np.cos(pose.yaw / 2), 0, 0, np.sin(pose.yaw / 2))
        for index, geom, limb, position, quaternion in self.limbs:
            if index in poses:
                self._swing(poses[index], geom, limb, position, quaternion)
        for geom, head, lamp in self.lamps:
            state = signal_state(self.world.city, *head.crossing, head.along_v, time)
            lit = ("red", "yellow", "green")[lamp] == state
            self.model.geom_rgba[geom, :3] = LAMP_COLOURS[lamp] if lit else LAMP_OFF
        self.mujoco.mj_kinematics(self.model, data)

    def _swing(self, pose: Pose, geom: int, limb: Limb, position: np.ndarray, quaternion: np.ndarray) -> None:
        """Turn a limb about its joint as far as the stride wants."""
        angle = limb.swing * pose.stride * np.sin(pose.phase)
        c, s = np.cos(angle), np.sin(angle)
        offset = position - limb.pivot
        self.model.geom_pos[geom] = limb.pivot + np.array(
            [c * offset[0] + s * offset[2], offset[1], -s * offset[0] + c * offset[2]]
        )
        turned = np.empty(4)
        self.mujoco.mju_mulQuat(
            turned, np.array([np.cos(angle / 2), 0.0, np.sin(angle / 2), 0.0]), quaternion
        )
        self.model.geom_quat[geom] = turned

    def place_everyone(self, time: float) -> None:
        """Put all actors, the far ones too, where they are at `time`: before a drive begins."""
        poses = self.posed = {index: actor.pose(time) for index, actor in enumerate(self.world.actors)}
        for mocap, pose in zip(self.mocap_of_actor, poses.values(), strict=True):
            self.data.mocap_pos[mocap] = (pose.x, pose.y, pose.z)
            self.data.mocap_quat[mocap] = (np.cos(pose.yaw / 2), 0, 0, np.sin(pose.yaw / 2))
        for index, geom, limb, position, quaternion in self.limbs:
            self._swing(poses[index], geom, limb, position, quaternion)
        self.mujoco.mj_kinematics(self.model, self.data)


class _Builder:
    """Fills a MuJoCo spec."""

    def __init__(self, mujoco: ModuleType) -> None:
        self.mj = mujoco
        self.spec = mujoco.MjSpec()
        self.geoms: list[tuple[Any, int, str]] = []  # geom, actor, material
        self._meshes: set[str] = set()

    def texture(self, name: str, picture: np.ndarray, kind: Any) -> None:
        texture = self.spec.add_texture(
            name=name, type=kind, width=picture.shape[1], height=picture.shape[0], nchannel=3
        )
        texture.data = np.ascontiguousarray(picture).tobytes()

    def material(self, name: str, surface: Surface) -> None:
        material = self.spec.add_material(
            name=name,
            rgba=[*surface.colour, 1.0],
            specular=surface.specular,
            shininess=surface.shininess,
            reflectance=0.0,
        )
        if surface.picture is not None:
            self.texture(name, surface.picture, self.mj.mjtTexture.mjTEXTURE_2D)
            material.textures[self.mj.mjtTextureRole.mjTEXROLE_RGB] = name
        if name == "asphalt":
            material.texuniform = True
            material.texrepeat = [1 / _ASPHALT_SPAN, 1 / _ASPHALT_SPAN]

    def mesh(self, name: str, mesh: Mesh) -> str:
        if name not in self._meshes:
            self._meshes.add(name)
            asset = self.spec.add_mesh(name=name, inertia=self.mj.mjtMeshInertia.mjMESH_INERTIA_SHELL)
            vertices, index = np.unique(
                np.round(mesh.vertices.reshape(-1, 3), 5), axis=0, return_inverse=True
            )
            corners = np.arange(3 * len(mesh), dtype=np.int32)
            asset.uservert = vertices.ravel()
            asset.userface = index.reshape(-1).astype(np.int32)
            asset.usernormal = mesh.normals.reshape(-1, 3).ravel()
            asset.userfacenormal = corners
            asset.usertexcoord = mesh.texcoords.reshape(-1, 2).ravel()
            asset.userfacetexcoord = corners
        return name

    def geom(self, body: Any, actor: int, material: str, group: int = GROUP_SOLID, **fields: Any) -> int:
        geom = body.add_geom(material=material, contype=0, conaffinity=0, group=group, mass=0.0, **fields)
        geom.name = f"g{len(self.geoms)}"
        self.geoms.append((geom, actor, material))
        return len(self.geoms) - 1

    def mesh_geom(
        self,
        body: Any,
        actor: int,
        material: str,
        name: str,
        mesh: Mesh,
        group: int = GROUP_SOLID,
        **fields: Any,
    ) -> int:
        return self.geom(
            body,
            actor,
            material,
            group,
            type=self.mj.mjtGeom.mjGEOM_MESH,
            meshname=self.mesh(name, mesh),
            **fields,
        )


def build_scene_model(
    mujoco: ModuleType,
    world: World,
    scenery: Scenery,
    image_size: tuple[int, int],
    shadows: int,
    samples: int,
) -> SceneModel:
    """Compile a world. `image_size`: the largest picture (height, width); `shadows`: size of the shadow map, 0 = none; `samples`: for
    smooth edges."""
    builder = _Builder(mujoco)
    spec, weather, domain = builder.spec, world.weather, world.domain
    spec.stat.extent, spec.stat.center = 1.0, [0, 0, 0]
    spec.visual.global_.offheight, spec.visual.global_.offwidth = image_size
    spec.visual.quality.shadowsize, spec.visual.quality.offsamples = max(shadows, 1), samples
    spec.visual.map.znear, spec.visual.map.zfar = NEAR, FAR
    spec.visual.map.shadowclip, spec.visual.map.shadowscale = SHADOW_REACH, 1.0
    spec.visual.map.fogstart, spec.visual.map.fogend = 0.06 * weather.fog_end, weather.fog_end
    spec.visual.rgba.fog = [*weather.horizon, 1.0]
    light = np.asarray(domain.sun_colour)
    sky = np.asarray(domain.zenith) * 0.35 + np.asarray(weather.horizon) * 0.65
    spec.visual.headlight.ambient = list(weather.ambient * sky / sky.mean())
    spec.visual.headlight.diffuse = spec.visual.headlight.specular = [0.0, 0.0, 0.0]
    world_body = spec.worldbody
    world_body.add_light(
        name="sun", type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, pos=[0, 0, 50], dir=list(-weather.sun), castshadow=shadows > 0,
        diffuse=list(weather.sun_strength * light), specular=list(0.6 * weather.sun_strength * light),
        ambient=[0, 0, 0],
    )  # fmt: skip
    # A weak light from the sky opposite the sun and above keeps shaded sides from looking flat.
    fill = np.array([0.45 * weather.sun[0], 0.45 * weather.sun[1], -0.8])
    world_body.add_light(
        name="sky", type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, dir=list(fill / np.linalg.norm(fill)), castshadow=False,
        diffuse=list((0.10 + 0.16 * weather.cloud_cover) * sky), specular=[0, 0, 0], ambient=[0, 0, 0],
    )  # fmt: skip
    rng = np.random.default_rng([world.seed, 13])
    glow = tuple(light * weather.sun_strength)
    cube = skybox(rng, domain.zenith, weather.horizon, weather.sun, glow, weather.cloud_cover)
    builder.texture("sky", cube, mujoco.mjtTexture.mjTEXTURE_SKYBOX)
    for name, surface in scenery.surfaces.items():
        builder.material(name, surface)
    builder.geom(world_body, -1, "asphalt", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[600, 600, 1])
    for index, (material, mesh) in enumerate(scenery.fixed):
        builder.mesh_geom(world_body, -1, material, f"fixed{index}", mesh)
    for index, (material, mesh) in enumerate(scenery.painted):
        builder.mesh_geom(world_body, -1, material, f"painted{index}", mesh, GROUP_PAINTED)
    _add_standing(builder, scenery)
    lamps = []
    for head in scenery.heads:
        for lamp, place in enumerate(head.lamps):
            geom = builder.geom(
                world_body,
                -1,
                "lamp",
                GROUP_PAINTED,
                type=mujoco.mjtGeom.mjGEOM_SPHERE,
                size=[0.10, 0, 0],
                pos=list(place),
            )
            lamps.append((geom, head, lamp))
    spec.add_material(name="lamp", emission=0.9, specular=0.0, reflectance=0.0)
    limbs = _add_actors(builder, world)
    model = spec.compile()
    data = mujoco.MjData(model)
    ids = np.array(
        [mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, f"g{n}") for n in range(len(builder.geoms))]
    )
    actor_of_geom = np.full(model.ngeom, -1)
    reflectivity = np.zeros(model.ngeom)
    for n, (_, actor, material) in enumerate(builder.geoms):
        actor_of_geom[ids[n]] = actor
        reflectivity[ids[n]] = (
            scenery.surfaces[material].reflectivity if material in scenery.surfaces else 0.3
        )
    bodies = [mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, f"a{n}") for n in range(len(world.actors))]
    mocap = np.array([model.body_mocapid[b] for b in bodies])
    limb_table = [
        (a, int(ids[g]), limb, model.geom_pos[ids[g]].copy(), model.geom_quat[ids[g]].copy())
        for a, g, limb in limbs
    ]
    lamp_table = [(int(ids[g]), head, lamp) for g, head, lamp in lamps]
    scene = SceneModel(
        mujoco,
        model,
        data,
        world,
        actor_of_geom,
        model.geom_group.copy(),
        mocap,
        limb_table,
        lamp_table,
        reflectivity,
    )
    scene.place_everyone(0.0)
    scene.pose_all(0.0, np.zeros(2))
    mujoco.mj_camlight(model, data)
    return scene


def _add_standing(builder: _Builder, scenery: Scenery) -> None:
    """Repeated pieces; each scale of a piece is its own mesh, so scales are rounded to few."""
    for piece in scenery.standing:
        scale = round(piece.scale * 5) / 5
        for part, (material, mesh) in enumerate(scenery.pieces[piece.mesh]):
            name = f"{piece.mesh}_{part}_{scale:g}"
            scaled = (
                mesh
                if scale == 1
                else Mesh(
                    mesh.vertices * scale,
                    mesh.normals,
                    mesh.texcoords * scale if "leaves" in material else mesh.texcoords,
                )
            )
            builder.mesh_geom(
                builder.spec.worldbody, -1, material, name, scaled, pos=[piece.x, piece.y, 0.13],
                quat=[np.cos(piece.yaw / 2), 0, 0, np.sin(piece.yaw / 2)],
            )  # fmt: skip


def _add_actors(builder: _Builder, world: World) -> list[tuple[int, int, Limb]]:
    """One body each; parts of one material become one geom. Returns (actor, geom, limb) of what swings."""
    limbs = []
    for index, actor in enumerate(world.actors):
        body = builder.spec.worldbody.add_body(name=f"a{index}", mocap=True)
        rigid = [p for p in actor.model.parts if p.limb is None]
        for material, tint in dict.fromkeys((p.material, p.tint) for p in rigid):
            mesh = merge([p.mesh for p in rigid if (p.material, p.tint) == (material, tint)])
            fields: dict[str, Any] = {"rgba": [*actor.colour, 1.0]} if tint else {}
            builder.mesh_geom(body, index, material, f"{actor.model.name} {material} {tint}", mesh, **fields)
        for number, part in enumerate(actor.model.parts):
            if part.limb is not None:
                geom = builder.mesh_geom(
                    body, index, part.material, f"{actor.model.name} limb {number}", part.mesh
                )
                limbs.append((index, geom, part.limb))
    return limbs
