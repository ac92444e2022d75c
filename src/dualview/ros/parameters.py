"""Every parameter of the node, declared once: type, default, range, meaning, and when it may change.

The node declares its parameters from this table, and `dualview parameters --markdown` prints it for the README. Nothing here needs ROS
until `descriptor` is called.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any

from dualview.errors import ConfigError
from dualview.scene.assembler import AssemblerSettings
from dualview.scene.rig import Rig


class Change(Enum):
    """When a parameter may be set."""

    START = "at start"  # read-only once the node runs
    UNCONFIGURED = "while unconfigured"
    ANY_TIME = "any time"


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter. `default` fixes the type (bool, int, float or str); `minimum`, `maximum` bound numbers; `choices` bound strings."""

    name: str
    default: bool | int | float | str
    description: str
    change: Change = Change.UNCONFIGURED
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""

    def problem_with(self, value: Any) -> str | None:
        """A sentence that says why `value` can't be used, or None."""
        kind = type(self.default)
        if type(value) not in ((float, int) if kind is float else (kind,)):
            return f"parameter '{self.name}' is of type {kind.__name__}, {value!r} is not: give a {kind.__name__}"
        number = float(value) if kind in (int, float) else 0.0
        if not math.isfinite(number):
            return f"parameter '{self.name}' must be a finite number, got {value}"
        if self.minimum is not None and not self.minimum <= number <= (self.maximum or math.inf):
            return f"parameter '{self.name}' must be within {self.range_text()}, got {value}"
        if self.choices and value not in self.choices:
            return f"parameter '{self.name}' must be one of {', '.join(self.choices)}, got '{value}'"
        return None

    def range_text(self) -> str:
        """The allowed values for a reader."""
        if self.choices:
            return ", ".join(self.choices)
        if self.minimum is None:
            return ""
        return f"{self.minimum:g} … {self.maximum:g}"

    def descriptor(self) -> Any:
        """`rcl_interfaces/ParameterDescriptor`."""
        from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, ParameterType

        kinds = {bool: ParameterType.PARAMETER_BOOL, int: ParameterType.PARAMETER_INTEGER,
                 float: ParameterType.PARAMETER_DOUBLE, str: ParameterType.PARAMETER_STRING}  # fmt: skip
        described = ParameterDescriptor(
            name=self.name, type=kinds[type(self.default)], description=self.description,
            read_only=self.change is Change.START, additional_constraints=f"May change: {self.change.value}.",
        )  # fmt: skip
        if self.choices:
            described.additional_constraints += f" One of: {self.range_text()}."
        if self.minimum is not None and self.maximum is not None:
            if isinstance(self.default, int):
                described.integer_range = [
                    IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum), step=1)
                ]
            else:
                limits = FloatingPointRange(
                    from_value=float(self.minimum), to_value=float(self.maximum), step=0.0
                )
                described.floating_point_range = [limits]
        return described


_FROM_RIG = "-1: the rig file's value, else {}"


def _assembler(name: str, description: str, maximum: float, unit: str = "s") -> ParameterSpec:
    default = getattr(AssemblerSettings(), name)
    kind = int if isinstance(default, int) else float
    return ParameterSpec(
        name, kind(-1), f"{description} {_FROM_RIG.format(default)}.", minimum=-1, maximum=maximum, unit=unit
    )


PARAMETERS: tuple[ParameterSpec, ...] = (
    ParameterSpec("rig", "synthetic", "Rig: a name in config/rigs or a path to a YAML file. It says which cameras, topics and frames."),
    ParameterSpec("weights", "dualview-tiny", "Detector: a preset, a name in models/, or a path to a .safetensors checkpoint."),
    ParameterSpec("device", "auto", "auto (CUDA if there is one), cpu, cuda, or cuda:N."),
    ParameterSpec("precision", "auto", "Numbers of the network: fp32, bf16, or auto (bf16 on a CPU with AMX or AVX-512 BF16, else fp32).",
                  choices=("auto", "fp32", "bf16")),
    ParameterSpec("autostart", True, "Configure and activate without a lifecycle manager.", Change.START),
    ParameterSpec("output_frame", "world", "Frame of the published boxes.", Change.ANY_TIME, choices=("world", "ego")),
    ParameterSpec("world_frame", "", "Fixed frame in which the pose doesn't jump; empty: the rig file's."),
    ParameterSpec("ego_frame", "", "The vehicle's frame (x forward, y left, z up); empty: the rig file's."),
    ParameterSpec("anchor", "", "Camera whose images open frames; empty: the rig file's."),
    ParameterSpec("score_threshold", -1.0, "Tracks with a lower score aren't published. -1: what the checkpoint says.",
                  Change.ANY_TIME, -1, 1),
    ParameterSpec("max_objects", 300, "At most so many tracks are published, the best scored.", Change.ANY_TIME, 1, 2000),
    _assembler("max_skew", "How far an image may be from the anchor's stamp.", 1.0),
    _assembler("max_wait", "How long a frame waits for late images and poses, in sensor time.", 2.0),
    _assembler("camera_timeout", "A camera silent for longer isn't waited for.", 60.0),
    _assembler("max_gap", "A longer pause, a longer leap or a step back of the stamps resets the tracks' memory.", 3600.0),
    _assembler("min_cameras", "With fewer usable images nothing is published.", 64, ""),
    _assembler("min_interval", "Anchor images that follow faster are left out.", 10.0),
    ParameterSpec("decode_workers", 1, "Threads that decode images.", minimum=1, maximum=64),
    ParameterSpec("network_threads", 0, "CPU threads of the network; 0: PyTorch's choice.", minimum=0, maximum=256),
    ParameterSpec("image_queue_depth", 2, "Images kept for each camera topic until the node takes them.", minimum=1, maximum=10),
    ParameterSpec("existence_time_constant", 0.5, "Time constant of the filter behind existence_probability.",
                  Change.ANY_TIME, 0.01, 60.0, unit="s"),
    ParameterSpec("trail_length", 20, "Positions kept for each track's trail in ~/markers; 0: no trails.",
                  Change.ANY_TIME, 0, 1000),
    ParameterSpec("marker_lifetime", 1.0, "RViz forgets boxes that aren't renewed for so long.", Change.ANY_TIME, 0.0, 60.0, unit="s"),
    ParameterSpec("bev_encoding", "float16", "Numbers of ~/bev/features.", Change.ANY_TIME, choices=("float16", "uint8")),
    ParameterSpec("max_processing_time", 200.0, "Diagnostics warn when a frame takes longer in the node.",
                  Change.ANY_TIME, 1.0, 60000.0, unit="ms"),
    ParameterSpec("max_consecutive_delay", 1000.0, "Diagnostics say ERROR when frames have been too slow for so long without a break.",
                  Change.ANY_TIME, 1.0, 600000.0, unit="ms"),
)  # fmt: skip

SPECS = {spec.name: spec for spec in PARAMETERS}


@dataclass(frozen=True)
class NodeSettings:
    """The values of all parameters at one moment; fields are the names in `PARAMETERS`."""

    rig: str
    weights: str
    device: str
    precision: str
    autostart: bool
    output_frame: str
    world_frame: str
    ego_frame: str
    anchor: str
    score_threshold: float
    max_objects: int
    max_skew: float
    max_wait: float
    camera_timeout: float
    max_gap: float
    min_cameras: int
    min_interval: float
    decode_workers: int
    network_threads: int
    image_queue_depth: int
    existence_time_constant: float
    trail_length: int
    marker_lifetime: float
    bev_encoding: str
    max_processing_time: float
    max_consecutive_delay: float

    @staticmethod
    def from_values(values: dict[str, Any]) -> NodeSettings:
        """Settings from parameter values by name, defaults for those left out. Raises ConfigError for a value that can't be used."""
        for name, value in values.items():
            problem = SPECS[name].problem_with(value)
            if problem:
                raise ConfigError(problem)
        return NodeSettings(**{spec.name: values.get(spec.name, spec.default) for spec in PARAMETERS})

    def assembler_settings(self, rig: Rig) -> AssemblerSettings:
        """The rig file's settings with those given as parameters (>= 0) put over them."""
        settings = AssemblerSettings(**{**vars(AssemblerSettings()), **dict(rig.assembler)})
        given = {
            f.name: getattr(self, f.name) for f in fields(AssemblerSettings) if getattr(self, f.name) >= 0
        }
        return replace(settings, **given)

    def adapted_rig(self, rig: Rig) -> Rig:
        """The rig with the frames and the anchor that parameters name. Raises ConfigError for an anchor that isn't a camera of it."""
        given = {
            key: getattr(self, key) for key in ("world_frame", "ego_frame", "anchor") if getattr(self, key)
        }
        return replace(rig, **given)


def markdown_table() -> str:
    """The parameters as a table for the README."""
    rows = ["| parameter | type | default | range | may change | meaning |", "|---|---|---|---|---|---|"]
    for spec in PARAMETERS:
        default = (
            str(spec.default).lower() if isinstance(spec.default, bool) else str(spec.default) or "(empty)"
        )
        unit = f" {spec.unit}" if spec.unit else ""
        rows.append(
            f"| `{spec.name}` | {type(spec.default).__name__} | `{default}`{unit} | {spec.range_text()} | "
            f"{spec.change.value} | {spec.description} |"
        )
    return "\n".join(rows) + "\n"


def yaml_defaults() -> str:
    """`config/dualview.yaml`: all parameters with their defaults, to copy and edit."""
    lines = ["# Parameters of dualview_node with their defaults (written by `dualview parameters --yaml`). Keep what you change.",
             "/**:", "  ros__parameters:"]  # fmt: skip
    for spec in PARAMETERS:
        value = f'"{spec.default}"' if isinstance(spec.default, str) else str(spec.default).lower()
        unit = f" [{spec.unit}]" if spec.unit else ""
        lines += [f"    # {spec.description}{unit}", f"    {spec.name}: {value}"]
    return "\n".join(lines) + "\n"
