"""The node's parameters as ROS sees them: declared from the table, checked when set, read as one value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.parameter import Parameter

from dualview.errors import DualViewError, did_you_mean
from dualview.ros.parameters import PARAMETERS, SPECS, Change, NodeSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node

_OF_ROS = ("use_sim_time", "qos_overrides", "start_type_description_service")


class DeclaredParameters:
    """Declares all parameters of `node`. A value that was given but can't be used doesn't end the process: it is kept in `problems`,
    a sentence each, and configuring fails with it.

    may_configure: whether parameters that count only while configuring may be set now. on_change: called with the new values.
    """

    def __init__(
        self, node: Node, may_configure: Callable[[], bool], on_change: Callable[[NodeSettings], None]
    ) -> None:
        self._node, self._may_configure, self._on_change = node, may_configure, on_change
        self.problems: dict[str, str] = {}
        given: dict[str, Parameter] = dict(getattr(node, "_parameter_overrides", {}))
        for spec in PARAMETERS:
            value = given[spec.name].value if spec.name in given else spec.default
            problem = spec.problem_with(value)
            if problem:
                self.problems[spec.name] = problem
                value = spec.default
            value = type(spec.default)(value)  # `max_skew: 1` is meant as 1.0
            try:
                node.declare_parameter(spec.name, value, spec.descriptor(), ignore_override=True)
            except ParameterException as error:
                self.problems[spec.name] = str(error)
        for name in given:
            if name not in SPECS and name.split(".")[0] not in _OF_ROS:
                hint = did_you_mean(name, SPECS, "see the README for those that there are")
                node.get_logger().warning(f"parameter '{name}' is not known and has no effect; {hint}")
        node.add_on_set_parameters_callback(self._check)

    def settings(self) -> NodeSettings:
        """The values now."""
        return NodeSettings.from_values(
            {spec.name: self._node.get_parameter(spec.name).value for spec in PARAMETERS}
        )

    def _check(self, parameters: list[Parameter]) -> SetParametersResult:
        changed: dict[str, Any] = {}
        for parameter in parameters:
            spec = SPECS.get(parameter.name)
            if spec is None:
                continue
            problem = spec.problem_with(parameter.value)
            if problem is None and spec.change is Change.UNCONFIGURED and not self._may_configure():
                problem = f"parameter '{spec.name}' counts when the node is configured: deactivate and clean it up first"
            if problem:
                return SetParametersResult(successful=False, reason=problem)
            changed[spec.name] = parameter.value
        now = {spec.name: self._node.get_parameter(spec.name).value for spec in PARAMETERS}
        try:
            self._on_change(NodeSettings.from_values({**now, **changed}))
        except DualViewError as error:  # such as a threshold that the detector can't have
            return SetParametersResult(successful=False, reason=str(error))
        for name in changed:
            self.problems.pop(name, None)
        return SetParametersResult(successful=True)
