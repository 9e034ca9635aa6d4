"""Graphs of a bundle on onnxruntime: where they run, and whether they still make what they made at home.

Any graph of any kind of bundle is opened here, and compared with the bundle's golden values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lookalike.encoder.errors import (
    BundleCorruptError,
    GoldenMismatchError,
    InvalidArgumentError,
    ProviderError,
)
from lookalike.encoder.text import one_line, printable

Provider = Literal["auto", "cpu", "cuda"]
Session: TypeAlias = ort.InferenceSession

_MOST_THREADS: Final = 1024
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_GOLDEN_TOLERANCE: Final = 2e-3
"""Relative to the spread of the values: far above float32 rounding, far below what would change a ranking."""
_QUIET: Final = 3  # onnxruntime's ERROR level: what it would warn of on stderr is raised here instead


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """Where graphs run.

    Attributes:
        provider: ``auto`` takes CUDA where onnxruntime has it, else the CPU; ``cuda`` is never silently the
            CPU.
        threads: Threads within one call; None lets onnxruntime choose.

    Raises:
        InvalidArgumentError: no such provider or number of threads.
    """

    provider: Provider = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.provider not in get_args(Provider):
            raise InvalidArgumentError(f"a provider is auto, cpu or cuda; {self.provider!r} is not")
        if self.threads is not None and not 1 <= self.threads <= _MOST_THREADS:
            raise InvalidArgumentError(
                f"threads must be 1 to {_MOST_THREADS}, not {self.threads}; "
                "leave it out to let onnxruntime choose"
            )

    def session(self, data: bytes, *, graph: str, folder: Path, spinning: bool = True) -> Session:
        """Load a graph.

        Args:
            data: ONNX.
            graph: What it is called in messages.
            folder: That of the bundle.
            spinning: Whether its threads wait for the next run by spinning: it takes the cores from others.

        Raises:
            BundleCorruptError: onnxruntime cannot load it.
            ProviderError: the provider that was asked for is not to be had.
        """
        options = ort.SessionOptions()
        options.log_severity_level = _QUIET
        if not spinning:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        wanted = self._providers()
        try:
            session = ort.InferenceSession(data, options, providers=wanted)
        except Exception as error:  # onnxruntime raises its own types from C++, RuntimeError and ValueError
            raise BundleCorruptError(
                f"bundle {printable(str(folder))} is damaged: onnxruntime cannot load {graph}.onnx "
                f"({one_line(error)}); fetch or export it again"
            ) from error
        if self.provider == "cuda" and session.get_providers()[0] != _CUDA:
            raise ProviderError(
                "provider cuda was asked for and could not start; check the driver or use cpu"
            )
        return session

    def _providers(self) -> list[str]:
        there = ort.get_available_providers()
        if self.provider == "cuda" and _CUDA not in there:
            raise ProviderError(
                f"provider cuda was asked for, this onnxruntime has {', '.join(there)}; "
                "install onnxruntime-gpu or use cpu"
            )
        return [_CUDA, _CPU] if self.provider != "cpu" and _CUDA in there else [_CPU]


def compare_golden(
    got: NDArray[np.float32], golden: NDArray[np.float32], *, graph: str, folder: Path
) -> None:
    """Hold what a graph makes here of golden inputs against what it made where the bundle was made.

    Raises:
        GoldenMismatchError: they are further apart than rounding explains.
    """
    apart = float(np.abs(got - golden).max() / max(float(golden.std()), 1e-6))
    if not apart <= _GOLDEN_TOLERANCE:
        raise GoldenMismatchError(
            f"bundle {printable(str(folder))} does not reproduce its golden values here: {graph} is "
            f"{apart:.1e} of a deviation off (limit {_GOLDEN_TOLERANCE:.0e}); "
            "fetch it again, or try provider cpu"
        )
