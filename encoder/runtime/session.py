"""Graphs of a bundle on onnxruntime: loaded on first use, and checked against the bundle's golden values.

Legend: N rows of a batch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias, get_args

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lookalike.encoder.bundle import GOLDEN_RUNS, WHOLE, Bundle, BundleSpec, has_external_tensors
from lookalike.encoder.errors import (
    BundleCorruptError,
    GoldenMismatchError,
    InvalidArgumentError,
    ProviderError,
    one_line,
    printable,
)

Provider = Literal["auto", "cpu", "cuda"]
Session: TypeAlias = ort.InferenceSession
Floats = NDArray[np.float32]

_MAX_THREADS: Final = 1024
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_GOLDEN_TOLERANCE: Final = 2e-3
"""Relative to the spread of the values: far above float32 rounding, far below what would change a ranking."""
_QUIET: Final = 3  # onnxruntime's ERROR level: what it would warn of on stderr is raised here instead
_BATCH: Final = 256
_DENOISING: Final = ("denoiser", "estimator")
"""Graphs that take images of any size."""


class OnnxModel:
    """A bundle running on onnxruntime. Safe for several threads at once: onnxruntime sessions are.

    Attributes:
        bundle: The opened bundle.

    Raises:
        InvalidArgumentError: No such provider or number of threads.
    """

    def __init__(self, bundle: Bundle, *, provider: Provider = "auto", threads: int | None = None) -> None:
        _check_options(provider, threads)
        self.bundle = bundle
        self._provider, self._threads = provider, threads
        self._sessions: dict[str, Session] = {}
        self._loading = threading.Lock()

    @classmethod
    def open(
        cls, where: str | os.PathLike[str], *, provider: Provider = "auto", threads: int | None = None
    ) -> Self:
        """Open a bundle's folder, or a shipped bundle by name.

        Each graph is loaded on first use and then checked against the golden values.

        Args:
            where: Folder or shipped name.
            provider: ``auto`` uses CUDA where onnxruntime has it, else the CPU; ``cuda`` never falls back to
                the CPU.
            threads: Threads within one call; None lets onnxruntime choose.

        Raises:
            InvalidArgumentError: No such provider or number of threads.
            BundleError: The bundle cannot be used.
            ProviderError: The provider is not available; raised when the first graph is loaded.
        """
        return cls(Bundle.open(where), provider=provider, threads=threads)

    @property
    def model_id(self) -> str:
        """SHA-256 over the whole bundle, 64 hex digits."""
        return self.bundle.model_id

    @property
    def provider(self) -> str:
        """The execution provider that really runs, by onnxruntime's name."""
        main = "denoiser" if self.bundle.is_denoiser else "encoder"
        return str(self._session(main).get_providers()[0])

    def check(self) -> None:
        """Load every graph and compare it with the golden values.

        Raises:
            GoldenMismatchError: This machine does not reproduce them.
        """
        for graph in self.bundle.graphs:
            self._session(graph)

    def _session(self, graph: str) -> Session:
        with self._loading:
            if graph not in self._sessions:
                self._sessions[graph] = self._load(graph)
            return self._sessions[graph]

    def _load(self, graph: str) -> Session:
        folder, golden = self.bundle.folder, self.bundle.golden
        session = open_session(
            self.bundle.graph(graph),
            graph=graph,
            folder=folder,
            provider=self._provider,
            threads=self._threads,
            # The threads of other graphs, spinning after a run, would take the cores from encoder and search.
            allow_spinning=graph == "encoder",
            plan_memory=graph not in _DENOISING,
        )
        inputs, output = GOLDEN_RUNS[graph]
        expected = golden[output]
        try:
            rows = [golden[name] for name in inputs]
            got = _run(session, *rows, shape=expected.shape[1:], batch=self._batch(graph, _BATCH))
        except (MemoryError, RecursionError):
            raise  # they say nothing of the input
        except Exception as error:  # onnxruntime's own types, and ValueError from other inputs or outputs
            raise BundleCorruptError(
                f"bundle {printable(str(folder))} is damaged: {graph}.onnx does not run ({one_line(error)}); "
                "fetch or export it again"
            ) from error
        difference = float(np.abs(got - expected).max() / max(float(expected.std()), 1e-6))
        if not difference <= _GOLDEN_TOLERANCE:
            raise GoldenMismatchError(
                f"bundle {printable(str(folder))} does not reproduce its golden values here: {graph} differs "
                f"by {difference:.1e} standard deviations (limit {_GOLDEN_TOLERANCE:.0e}); "
                "fetch it again, or try provider cpu"
            )
        return session

    def _run(
        self,
        graph: str,
        *rows: NDArray[Any],
        shape: tuple[int, ...],
        output: int = 0,
        batch: int = _BATCH,
        release: bool = False,
        whole: bool = True,
    ) -> Floats:
        """Run a graph on its inputs (N, ...) in batches; returns float32 (N, *shape).

        With ``release``, memory that earlier runs took is given back to the system (on the CPU). If not
        ``whole``, parts of a latent that embeddings do not use may be zero.
        """
        session, options = self._session(graph), None
        if release and session.get_providers()[0] == _CPU:
            options = ort.RunOptions()
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        batch = self._batch(graph, batch)
        switches = {} if whole else {name: np.array(False) for name in _switches(session)}
        return _run(
            session, *rows, shape=shape, output=output, batch=batch, options=options, switches=switches
        )

    def _batch(self, graph: str, usual: int) -> int:
        """Return how many rows a graph takes at once."""
        if graph == "text":
            return 1  # texts differ in length
        spec = self.bundle.manifest.spec
        return spec.batch or usual if graph == "encoder" and isinstance(spec, BundleSpec) else usual


def open_session(
    data: bytes,
    *,
    graph: str,
    folder: Path,
    provider: Provider = "auto",
    threads: int | None = None,
    allow_spinning: bool = True,
    plan_memory: bool = True,
) -> Session:
    """Load a graph.

    Args:
        data: ONNX.
        graph: Its name in messages.
        folder: That of the bundle.
        provider: As of :meth:`OnnxModel.open`.
        threads: Threads within one call; None lets onnxruntime choose.
        allow_spinning: Whether its threads wait for the next run in a loop, which takes cores from others.
        plan_memory: Whether the second run with inputs of one shape, and later ones, take their memory in one
            block, beside what earlier runs took: for large images that doubled what a run takes.

    Raises:
        BundleCorruptError: onnxruntime cannot load it, or it would read other files.
        ProviderError: The requested provider is not available.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _QUIET
    if not allow_spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = plan_memory
    if threads is not None:
        options.intra_op_num_threads = threads
    providers = _providers(provider)
    _check_self_contained(data, graph=graph, folder=folder)
    try:
        session = ort.InferenceSession(data, options, providers=providers)
    except (MemoryError, RecursionError):
        raise  # they say nothing of the input
    except Exception as error:  # onnxruntime raises its own types from C++, RuntimeError and ValueError
        raise BundleCorruptError(
            f"bundle {printable(str(folder))} is damaged: onnxruntime cannot load {graph}.onnx "
            f"({one_line(error)}); fetch or export it again"
        ) from error
    if provider == "cuda" and session.get_providers()[0] != _CUDA:
        raise ProviderError("provider cuda could not start; check the driver or use cpu")
    return session


def _check_self_contained(data: bytes, *, graph: str, folder: Path) -> None:
    """Refuse a graph that would read other files, before onnxruntime sees it."""
    try:
        external = has_external_tensors(data)
    except ValueError as error:
        raise BundleCorruptError(
            f"bundle {printable(str(folder))} is damaged: cannot load {graph}.onnx, which is no ONNX graph "
            f"({error}); fetch or export it again"
        ) from error
    if external:
        raise BundleCorruptError(
            f"bundle {printable(str(folder))} is refused: {graph}.onnx reads its weights from other files, "
            "which could be any file here; export it again in one file"
        )


def _check_options(provider: str, threads: int | None) -> None:
    if provider not in get_args(Provider):
        raise InvalidArgumentError(f"provider must be auto, cpu or cuda, not {provider!r}")
    if threads is not None and not 1 <= threads <= _MAX_THREADS:
        raise InvalidArgumentError(
            f"threads must be 1 to {_MAX_THREADS}, not {threads}; leave it out to let onnxruntime choose"
        )


def _providers(provider: Provider) -> list[str]:
    available = ort.get_available_providers()
    if provider == "cuda" and _CUDA not in available:
        raise ProviderError(
            f"provider cuda is not available, this onnxruntime has {', '.join(available)}; "
            "install onnxruntime-gpu or use cpu"
        )
    return [_CUDA, _CPU] if provider != "cpu" and _CUDA in available else [_CPU]


def _switches(session: Session) -> list[str]:
    """Return the inputs of a graph that may be left out and say what to compute: ``whole``, or none."""
    return [each.name for each in session.get_overridable_initializers() if each.name == WHOLE]


def _run(
    session: Session,
    *rows: NDArray[Any],
    shape: tuple[int, ...],
    output: int = 0,
    batch: int = _BATCH,
    options: ort.RunOptions | None = None,
    switches: Mapping[str, NDArray[np.bool_]] | None = None,
) -> Floats:
    """Run in batches of a size whose activations stay in cache; inputs (N, ...) -> (N, *shape)."""
    names = [feed.name for feed in session.get_inputs()]
    wanted = session.get_outputs()[output].name
    out = np.empty((len(rows[0]), *shape), np.float32)
    for start in range(0, len(out), batch):
        part = [np.ascontiguousarray(each[start : start + batch]) for each in rows]
        feeds = dict(zip(names, part, strict=True)) | dict(switches or {})
        (result,) = session.run([wanted], feeds, options)
        if result.shape != (len(part[0]), *shape):
            raise ValueError(f"its output has shape {result.shape}, not {(len(part[0]), *shape)}")
        out[start : start + batch] = result
    return out
