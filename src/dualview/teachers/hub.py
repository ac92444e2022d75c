"""Networks of the transformers library, by hub name or local folder; the library is only needed by who asks for one."""

from __future__ import annotations

import importlib
import logging
from typing import Any

from dualview.errors import WeightsError
from dualview.networks.torchvision_shim import declare_missing_ops

_NETWORKS = {"depth-estimation": "ForDepthEstimation", "object-detection": "ForObjectDetection"}


def import_transformers() -> Any:
    """The `transformers` module. Raises WeightsError, saying how to get it, where it isn't installed."""
    declare_missing_ops()
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise WeightsError(
            f"this needs the transformers library, and it can't be imported ({error}): pip install transformers"
        ) from error


def open_pipeline(task: str, model: str, device: str = "cpu", **settings: Any) -> Any:
    """transformers' pipeline for a task ("object-detection", "depth-estimation"); model: a hub name or a local folder.

    Raises WeightsError if the library is missing, if the model is neither local nor reachable, or if it is for another task.
    """
    transformers = import_transformers()
    loud = logging.getLogger(
        "transformers.pipelines.base"
    )  # prints hundreds of names where we say one sentence
    level = loud.level
    loud.setLevel(logging.CRITICAL)
    try:
        pipeline = transformers.pipeline(task, model=model, device=device, **settings)
    except ImportError as error:
        raise WeightsError(f"the model '{model}' needs a library that isn't installed: {error}") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(
            f"the model '{model}' can't be opened for {task} ({reason}). Check the name; without a network, download it elsewhere "
            f"(`hf download {model} --local-dir DIR`) and give the folder's path"
        ) from error
    finally:
        loud.setLevel(level)
    network = type(pipeline.model).__name__
    if not network.endswith(_NETWORKS[task]):
        raise WeightsError(
            f"the model '{model}' is a {network}: {task} needs one that ends in {_NETWORKS[task]}"
        )
    return pipeline
