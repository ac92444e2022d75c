"""Just enough of `launch` and `launch_ros` to load launch files where these packages don't exist (they have no wheels).

Each class only keeps what it was given. On a ROS machine the real packages are used instead, by `ros2 launch`.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Context:
    """Values of launch arguments."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values


class Substitution:
    def perform(self, context: Context) -> str:
        raise NotImplementedError


class LaunchConfiguration(Substitution):
    def __init__(self, name: str) -> None:
        self.name = name

    def perform(self, context: Context) -> str:
        return context.values[self.name]


class FindPackageShare(Substitution):
    def __init__(self, package: str) -> None:
        self.package = package

    def perform(self, context: Context) -> str:
        assert self.package == "dualview"
        return str(ROOT)


class PathJoinSubstitution(Substitution):
    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts

    def perform(self, context: Context) -> str:
        return str(Path(*[text(part, context) for part in self.parts]))


def text(value: Any, context: Context) -> str:
    """The string that a value or substitution stands for."""
    return value.perform(context) if isinstance(value, Substitution) else str(value)


class DeclareLaunchArgument:
    def __init__(self, name: str, *, default_value: Any = None, description: str = "") -> None:
        self.name, self.default_value, self.description = name, default_value, description


class Recorded:
    """An action or event: keeps positional and keyword arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs


class OpaqueFunction:
    def __init__(self, *, function: Any) -> None:
        self.function = function


class LaunchDescription:
    def __init__(self, entities: list[Any]) -> None:
        self.entities = entities

    def arguments(self) -> dict[str, DeclareLaunchArgument]:
        return {e.name: e for e in self.entities if isinstance(e, DeclareLaunchArgument)}

    def actions(self, **values: str) -> list[Any]:
        """All actions with these arguments; OpaqueFunctions are called, defaults filled in."""
        given = dict(values)
        for name, argument in self.arguments().items():
            if name not in given:
                assert argument.default_value is not None, f"argument '{name}' is required"
                given[name] = text(argument.default_value, Context(given))
        context, found = Context(given), []
        for entity in self.entities:
            if isinstance(entity, OpaqueFunction):
                found += entity.function(context)
            elif not isinstance(entity, DeclareLaunchArgument):
                found.append(entity)
        self.context = context
        return found


class ParameterValue:
    def __init__(self, value: Any, *, value_type: type) -> None:
        self.value, self.value_type = value, value_type


def action(name: str) -> type:
    return type(name, (Recorded,), {})


def modules() -> dict[str, types.ModuleType]:
    """The stand-in modules by name."""
    content = {
        "launch": {"LaunchDescription": LaunchDescription},
        "launch.actions": {
            "DeclareLaunchArgument": DeclareLaunchArgument, "OpaqueFunction": OpaqueFunction,
            **{n: action(n) for n in ("EmitEvent", "ExecuteProcess", "IncludeLaunchDescription", "RegisterEventHandler", "TimerAction")},
        },
        "launch.event_handlers": {"OnProcessExit": action("OnProcessExit")},
        "launch.events": {"Shutdown": action("Shutdown")},
        "launch.launch_description_sources": {"PythonLaunchDescriptionSource": action("PythonLaunchDescriptionSource")},
        "launch.substitutions": {"LaunchConfiguration": LaunchConfiguration, "PathJoinSubstitution": PathJoinSubstitution},
        "launch_ros": {},
        "launch_ros.actions": {"Node": action("Node"), "LifecycleNode": action("LifecycleNode")},
        "launch_ros.parameter_descriptions": {"ParameterValue": ParameterValue},
        "launch_ros.substitutions": {"FindPackageShare": FindPackageShare},
    }  # fmt: skip
    result = {}
    for name, members in content.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        result[name] = module
    return result


def load_launch_file(name: str) -> tuple[types.ModuleType, LaunchDescription]:
    """A launch file of ours as a module, and its description."""
    before = {key: sys.modules.get(key) for key in modules()}
    sys.modules.update(modules())
    try:
        path = ROOT / "launch" / name
        module = types.ModuleType(path.stem.replace(".", "_"))
        exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
        return module, module.generate_launch_description()
    finally:
        for key, value in before.items():
            if value is None:
                del sys.modules[key]
            else:
                sys.modules[key] = value
