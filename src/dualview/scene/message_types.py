"""The ROS 2 message types that bags hold, usable without ROS: one rosbags typestore with ours added.

Standard types come from rosbags' Jazzy set (Kilted and Lyrical have the same wire format for all types that
we touch); `dualview`, `vision_msgs` and `tf2_msgs` are read from their `.msg` files, in the checkout or where
they were installed.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from dualview.errors import BagError
from dualview.resources import checkout_directory, share_directories

_PACKAGES = ("dualview", "vision_msgs", "tf2_msgs")


def message_definitions(package: str) -> dict[str, str]:
    """Type name ("vision_msgs/msg/Detection3D") -> text of its `.msg` file, for a package of ours or of
    `compat/`.

    Raises BagError when no definition of the package can be found.
    """
    folders: list[Path] = []
    checkout = checkout_directory()
    if checkout:
        folders.append(checkout / "msg" if package == "dualview" else checkout / "compat" / package / "msg")
    folders += [share / "msg" for share in share_directories(package)]
    for folder in folders:
        files = sorted(folder.glob("*.msg"))
        if files:
            return {f"{package}/msg/{file.stem}": file.read_text(encoding="utf-8") for file in files}
    raise BagError(
        f"the message definitions of '{package}' are not in "
        f"{', '.join(map(str, folders)) or 'any share/ folder'}: "
        "install dualview completely (its .msg files belong to it), or source the workspace that has them"
    )


@functools.cache
def message_typestore() -> Typestore:
    """The typestore with every type that dualview reads and writes. It is shared: don't register into it,
    copy its `fielddefs`."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for package in _PACKAGES:
        for name, text in message_definitions(package).items():
            types.update(get_types_from_msg(text, name))
    store.register({name: fields for name, fields in types.items() if name not in store.fielddefs})
    return store


def message_class(name: str) -> Any:
    """The Python class of a message type, e.g. "sensor_msgs/msg/CameraInfo"; its fields are ROS' own, arrays
    are NumPy's."""
    return message_typestore().types[name]
