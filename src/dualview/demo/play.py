"""One pass of the drive through the node, over DDS."""

from __future__ import annotations

import os
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from dualview.demo.observer import RECORDED, Observer, observing
from dualview.demo.pace import Pace
from dualview.demo.processes import Child, ending_all, logs_of, ros_environment, wait_until
from dualview.demo.settings import DemoSettings
from dualview.demo.talk import counter, say
from dualview.errors import DualViewError
from dualview.scene.assembler import FrameAssembler
from dualview.scene.bag_reader import BagReader
from dualview.scene.messages import AssemblerFeed
from dualview.scene.rig import Rig

_NODE_START_S, _RECORDER_START_S, _STALL_S, _SILENCE_S, _QUIET_S = 120.0, 40.0, 40.0, 15.0, 2.5
# Above 101 Fast DDS' ports meet those of other programs; the lower ones are left to people and tests.
DOMAINS = (51, 101)
TOO_FAST = "dropped: network busy"  # as the node's diagnostics call it


@dataclass(frozen=True)
class Played:
    """seconds: wall time of playing. too_fast: frames that the node dropped because a newer one was ready."""

    seconds: float
    too_fast: int


def play(bag: Path, rig: Rig, pace: Pace, settings: DemoSettings) -> Played:
    """player -> node -> recorder, each its own process, into `settings.out`/output.mcap.

    Raises DualViewError that names what hung or failed, with the end of its log.
    """
    domain = random.SystemRandom().randint(*DOMAINS)
    environment = ros_environment(domain)
    os.environ.update(
        {key: environment[key] for key in environment if os.environ.get(key) != environment[key]}
    )
    logs = settings.out / "logs"
    rig_argument = settings.rig or rig.name
    parameters = {} if pace.score_threshold is None else {"score_threshold": f"{pace.score_threshold:f}"}
    node_arguments = ["run", "--rig", rig_argument, "--weights", settings.weights, "--device", settings.device, "--use-sim-time",
                      "--ros-args", *(a for k, v in parameters.items() for a in ("-p", f"{k}:={v}"))]  # fmt: skip
    player_arguments = [
        "replay",
        str(bag),
        "--rig",
        rig_argument,
        "--rate",
        f"{pace.rate:.4f}",
        "--topics",
        *_topics(bag, rig),
    ]
    recorder_arguments = [
        "record",
        str(settings.out / "output.mcap"),
        *RECORDED,
        "--use-sim-time",
        "--overwrite",
        "--rig",
        rig_argument,
    ]
    with observing() as observer, ending_all() as children:
        say(f"starting the node and the recorder (ROS_DOMAIN_ID {domain}, this machine only)")
        node = Child("node", node_arguments, logs / "node.log", environment)
        recorder = Child("recorder", recorder_arguments, logs / "recorder.log", environment)
        children += [node, recorder]
        wait_until(lambda: observer.says("state", "not configured:") or observer.says("frames", "waiting"), _NODE_START_S,
                   "the node to become active", children, observer.spin, observer.story)  # fmt: skip
        if observer.says("state", "not configured:"):
            raise DualViewError(f"the node can't start: {observer.statuses['state'][0]}")
        wait_until(
            observer.is_recorded,
            _RECORDER_START_S,
            "the recorder to join the node's topics",
            children,
            observer.spin,
        )
        player = Child("player", player_arguments, logs / "player.log", environment)
        children.append(player)
        begin = time.monotonic()
        _follow(observer, player, [node, recorder, player], pace)
        seconds = time.monotonic() - begin
        too_fast = observer.frame_counts().get(TOO_FAST, 0)
        # the recorder ends first, while the node still tells its last counts
        if recorder.stop(30.0) not in (0, 1):
            raise DualViewError(
                f"the recorder didn't end in order; the end of {recorder.log}:\n{recorder.tail()}"
            )
        node.stop(30.0)
    if not (settings.out / "output.mcap").is_file():
        raise DualViewError(f"the recorder wrote no output; the end of {recorder.log}:\n{recorder.tail()}")
    return Played(seconds, too_fast)


def _topics(bag: Path, rig: Rig) -> list[str]:
    """What the node needs of a recording."""
    with BagReader(bag) as reader:
        return [t for t in AssemblerFeed(rig, FrameAssembler(rig)).topics if t in reader.topics]


def _follow(observer: Observer, player: Child, children: list[Child], pace: Pace) -> None:
    """Wait for the player's end and the node's last frame, showing progress.

    Raises DualViewError when neither frames nor drops go on for longer than the machine could need, or when the node falls silent.
    """
    show = counter("frames", pace.frames)
    patience = _STALL_S + 10 * pace.frame_ms / 1e3
    latest, progress, quiet_since = -1, time.monotonic(), None
    quiet = _QUIET_S + 4 * pace.frame_ms / 1e3
    while True:
        observer.spin(0.2)
        for child in children:
            child.check()
        now = time.monotonic()
        counts = observer.frame_counts()
        seen = len(observer.stamps) + sum(n for key, n in counts.items() if key.startswith("dropped"))
        if seen != latest:
            latest, progress, quiet_since = seen, now, None
            show(len(observer.stamps), f", {observer.last_boxes} boxes, {len(observer.track_ids)} ids so far")
        if player.exit_status is not None:
            quiet_since = now if quiet_since is None else quiet_since
            if seen >= pace.frames + sum(pace.dropped.values()) and now - quiet_since > 1.5:
                break
            if now - quiet_since > quiet:
                break
        elif now - progress > patience:
            raise DualViewError(
                f"no frame for {patience:.0f} s while the drive is played, after {len(observer.stamps)} frames. "
                f"The node says: {observer.story() or 'nothing'}\n{logs_of(children)}"
            )
        silence = now - observer.last_diagnostics
        if silence > _SILENCE_S:  # it speaks once a second even when it has nothing to do
            raise DualViewError(
                f"the node hangs: it has said nothing on /diagnostics for {silence:.0f} s, after "
                f"{len(observer.stamps)} frames\n{logs_of(children)}"
            )
    before = observer.diagnostics_count
    wait_until(
        lambda: observer.diagnostics_count >= before + 2,
        15.0,
        "the node's last diagnostics",
        children,
        observer.spin,
    )
    if sys.stderr.isatty():
        print(file=sys.stderr)
