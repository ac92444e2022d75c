"""Which files make a recording, and what to say when one of them is broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from mcap.records import Chunk, Message, MessageIndex
from mcap.stream_reader import StreamReader
from rosbags import rosbag1, rosbag2

from dualview.errors import BagError

_SUFFIXES = (".mcap", ".db3", ".bag")


def open_recording(path: Path) -> list[rosbag1.Reader | rosbag2.Reader]:
    """Open readers, one for each file of a recording in order of time; the caller closes them.

    path: a bare .mcap, .db3 or (ROS 1) .bag file, or a rosbag2 folder, with or without its metadata.yaml.
    Raises BagError saying what is wrong with the recording, how much of it could be read, and how to mend it.
    """
    opened: list[rosbag1.Reader | rosbag2.Reader] = []
    for file in recording_files(path):
        try:
            if file.is_file() and file.stat().st_size == 0:
                raise BagError(
                    f"{file} is empty (zero bytes): the recorder was stopped before it wrote anything"
                )
            reader = rosbag1.Reader(file) if file.suffix == ".bag" else rosbag2.Reader(file)
            reader.open()
            opened.append(reader)
        except Exception as error:  # a broken file can raise nearly anything in the parsers
            for reader in opened:
                reader.close()
            raise error if isinstance(error, BagError) else BagError(describe_damage(file, error)) from error
    return opened


def recording_files(path: Path) -> list[Path]:
    """What rosbags has to open for the recording at `path`: its files, or the folder itself if rosbag2
    compressed the files.

    Files of a folder are opened one by one, so that a split recording is merged in order of time and one
    without metadata.yaml (its recorder was killed) can be read too.
    """
    if not path.exists():
        raise BagError(f"there is no recording at {path}: check the path")
    if path.is_file():
        if path.suffix not in _SUFFIXES:
            compressed = path.suffix in (".zst", ".zstd")
            hint = (
                "decompress it first (zstd -d)"
                if compressed
                else f"known are {', '.join(_SUFFIXES)} and rosbag2 folders"
            )
            raise BagError(f"{path} is not a recording that can be read: {hint}")
        return [path]
    metadata = _folder_metadata(path)
    if metadata is not None and (metadata.get("compression_mode") or "none").lower() != "none":
        return [path]
    listed = [path / Path(name).name for name in (metadata or {}).get("relative_file_paths", [])]
    missing = [file.name for file in listed if not file.is_file()]
    if missing:
        raise BagError(
            f"{path} lacks {', '.join(missing)}, which its metadata.yaml lists: copy the whole folder, or "
            "delete metadata.yaml to read what is there"
        )
    found = listed or sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
    if not found:
        raise BagError(f"the folder {path} holds no recording ({', '.join(_SUFFIXES)})")
    return found


def _folder_metadata(path: Path) -> dict[str, Any] | None:
    """rosbag2's description of a folder, or None if it is absent or broken (the files themselves are complete
    without it)."""
    try:
        content = yaml.safe_load((path / "metadata.yaml").read_text(encoding="utf-8"))[
            "rosbag2_bagfile_information"
        ]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return None
    return content if isinstance(content, dict) else None


def describe_damage(file: Path, error: BaseException) -> str:
    """A sentence on what is wrong with a file that can't be opened, what could be read of it, and what mends
    it."""
    reason = str(error).strip().rstrip(".") or type(error).__name__
    if "Profile is not ros2" in reason:
        return f"{file} holds no ROS 2 messages (its mcap profile isn't 'ros2'): convert it with rosbag2"
    if file.suffix == ".mcap":
        count, last_ns = _readable_part(file)
        until = f", the last at {last_ns / 1e9:.3f} s," if last_ns else ""
        return (
            f"{file} is cut off or damaged ({reason}); {count} complete messages{until} could still be read. "
            f"`mcap recover {file.name} -o mended.mcap` keeps them"
        )
    mend = {
        ".db3": "`ros2 bag reindex` helps if the database is whole; `sqlite3 FILE .recover` saves the rest",
        ".bag": "`rosbag reindex` mends it",
    }
    return f"{file} can't be read ({reason}). {mend.get(file.suffix, '`ros2 bag reindex` may mend it')}"


def _readable_part(file: Path) -> tuple[int, int]:
    """(number of messages, last log time in ns) in front of the damage of an mcap file; chunks aren't
    decompressed."""
    count, last_ns, pending_ns = 0, 0, 0
    try:
        with open(file, "rb") as stream:
            for record in StreamReader(stream, emit_chunks=True).records:
                if isinstance(record, Chunk):
                    pending_ns = record.message_end_time
                elif isinstance(record, MessageIndex):
                    count += len(record.records)
                    last_ns = max(last_ns, pending_ns)
                elif isinstance(record, Message):
                    count += 1
                    last_ns = max(last_ns, record.log_time)
    except Exception:  # whatever the parser raises marks the place of the damage
        pass
    return count, last_ns
