"""An exported tower, run by ONNX Runtime in this process."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import CorruptDataError
from feature_repo.exported.files import OUTPUT

Vectors = NDArray[np.float32]
Inputs = Mapping[str, NDArray[Any]]


class RunTower(Protocol):
    """Runs one tower."""

    def __call__(self, inputs: Inputs) -> Vectors:
        """Return unit vectors float32 [n, dim] of n > 0 rows of inputs by name; NaN where there is none."""
        ...


def open_onnx_tower(file: Path, *, threads: int) -> RunTower:
    """Open an ONNX file. The function may be called by several threads at once.

    Args:
        file: model.onnx of a tower.
        threads: cores that one call uses; 0 leaves it to ONNX Runtime.

    Raises:
        CorruptDataError: the file is missing or damaged.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises bare exceptions
        message = " ".join(str(error).split())[:200]
        raise CorruptDataError(f"{file}: not readable ({message}); run produce export again") from error

    def run(inputs: Inputs) -> Vectors:
        return session.run([OUTPUT], dict(inputs))[0]

    return run
