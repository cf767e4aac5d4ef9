"""TensorBoard event files as a sink, in DIR/tensorboard: scalars, histograms, hyperparameters, the YAML.

Needs the package tensorboard (extra ``tensorboard``). Its classes of messages and its record writer are used
directly: they load neither torch nor TensorFlow, and an error of the disk is raised where it happens.
"""

from __future__ import annotations

import os
import platform
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from dials_mpi import settings
from dials_mpi.algorithm.evaluation import Evaluation
from dials_mpi.run.sinks.base import Session, Sink
from dials_mpi.settings.yaml_text import scalar

BINS = 30
NAME = "events.out.tfevents"
FORMAT = "brain.Event:2"


class TensorBoardSink(Sink):
    """Writes an event file per session: means over agents or regions as scalars, all values as histograms."""

    name = "tensorboard"

    def session(self, session: Session) -> None:
        """Start an event file: readers drop events of earlier files that come again."""
        folder = session.directory / "tensorboard"
        folder.mkdir(exist_ok=True)
        self.agents, self.last_kept = session.agents, session.last_kept
        self.last = (session.env_steps, session.wall_time)
        earlier = sorted(folder.glob(f"{NAME}.*"))
        self.known = _tags_at(earlier, self.last_kept)
        file = FileIO(_next_name(folder, earlier), "x")
        self.writer = RecordWriter(BufferedWriter(file))
        self._write(Event(file_version=FORMAT))
        first = self.last_kept + 1
        self._write(Event(step=first, session_log=SessionLog(status=SessionLog.START)))
        self._describe(session)

    def fit(self, env_steps: int, wall_time: float, columns: Sequence[str], losses: np.ndarray) -> None:
        """Cross-entropies of the predictors."""
        names = (f"influence/cross_entropy_{name}" for name in columns)
        self._distributions(env_steps, dict(zip(names, losses.T, strict=True)))

    def training(self, env_steps: int, wall_time: float, columns: Sequence[str], metrics: np.ndarray) -> None:
        """The metrics of the policies."""
        names = (f"training/{name}" for name in columns)
        self._distributions(env_steps, dict(zip(names, metrics.T, strict=True)))

    def evaluation(self, env_steps: int, wall_time: float, evaluation: Evaluation) -> None:
        """Returns, cross-entropies and the domain's statistics."""
        found = {"evaluation/return": evaluation.returns.mean(axis=0)}
        if evaluation.cross_entropy is not None:
            found["evaluation/cross_entropy"] = evaluation.cross_entropy
        self._distributions(env_steps, found)
        means = {f"evaluation/{name}": evaluation.statistic(name) for name in evaluation.statistics}
        means["evaluation/return_standard_error"] = evaluation.standard_error
        self._scalars(env_steps, {tag: mean for tag, mean in means.items() if mean is not None})

    def costs(
        self,
        env_steps: int,
        wall_time: float,
        phases: Sequence[str],
        seconds: np.ndarray,
        memory: np.ndarray,
        failures: np.ndarray,
    ) -> None:
        """Speed, seconds by phase (mean over the ranks), memory of all ranks, failed simulators."""
        steps, before = self.last
        self.last = (env_steps, wall_time)
        means = dict(zip(phases, seconds[:, :, 0].mean(axis=0), strict=True))
        found = {f"timing/{phase}_seconds": mean for phase, mean in means.items()}
        found["timing/memory_bytes"] = memory[:, 1].sum()
        found["timing/largest_peak_rss_bytes"] = memory[:, 0].max()
        found["timing/simulator_failures"] = failures.sum()
        if env_steps > steps and wall_time > before:
            found["timing/agent_steps_per_second"] = self.agents * (env_steps - steps) / (wall_time - before)
        self._scalars(env_steps, found)

    def flush(self) -> None:
        """Hand the events to the system."""
        self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()

    def _describe(self, session: Session) -> None:
        """The configuration: as text, and each setting as a hyperparameter."""
        values = {key: _hyperparameter(value) for key, value in settings.flat(session.config).items()}
        yaml = "".join(f"    {line}\n" for line in session.config.to_yaml().splitlines())  # Markdown: code
        hyperparameters = hparams_pb(values, trial_id=str(session.directory)).value
        self._summaries(session.env_steps, [*hyperparameters, _text("configuration", yaml)])

    def _distributions(self, env_steps: int, found: Mapping[str, np.ndarray]) -> None:
        """The mean as a scalar and the values as a histogram, of all that is finite."""
        finite = {tag: values[np.isfinite(values)] for tag, values in found.items()}
        finite = {tag: values for tag, values in finite.items() if values.size}
        self._scalars(env_steps, {tag: values.mean() for tag, values in finite.items()})
        self._summaries(env_steps, [_histogram(f"{tag}_distribution", v) for tag, v in finite.items()])

    def _scalars(self, env_steps: int, found: Mapping[str, float]) -> None:
        finite = {tag: float(value) for tag, value in found.items() if np.isfinite(value)}
        self._summaries(env_steps, [Summary.Value(tag=t, simple_value=v) for t, v in finite.items()])

    def _summaries(self, env_steps: int, values: Sequence[Summary.Value]) -> None:
        """Write values, except those that an earlier file has from before the checkpoint."""
        new = [value for value in values if env_steps != self.last_kept or value.tag not in self.known]
        if new:
            self._write(Event(step=env_steps, summary=Summary(value=new)))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self.writer.write(event.SerializeToString())


def _histogram(tag: str, values: np.ndarray) -> Summary.Value:
    """Of finite values [n], n > 0; the first bucket is empty and ends at the least value."""
    counts, edges = np.histogram(values, BINS)
    histogram = HistogramProto(
        min=values.min(),
        max=values.max(),
        num=values.size,
        sum=values.sum(),
        sum_squares=np.square(values).sum(),
        bucket_limit=edges.tolist(),
        bucket=[0, *counts.tolist()],
    )
    return Summary.Value(tag=tag, histo=histogram)


def _text(tag: str, text: str) -> Summary.Value:
    """A text in Markdown."""
    tensor = TensorProto(
        dtype=DT_STRING,
        string_val=[text.encode()],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
    )
    plugin = SummaryMetadata.PluginData(plugin_name="text")
    return Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin), tensor=tensor)


def _hyperparameter(value: Any) -> bool | float | str:
    """A setting's value as a type that the plugin knows."""
    return value if isinstance(value, bool | int | float | str) else scalar(value)


def _next_name(folder: Path, earlier: Sequence[Path]) -> Path:
    """A file whose name is sorted behind the earlier ones: readers take files in this order."""
    times = [int(path.name.split(".")[3]) for path in earlier if path.name.split(".")[3].isdecimal()]
    number = max([int(time.time()), *(one + 1 for one in times)])
    return folder / f"{NAME}.{number:010}.{platform.node()}.{os.getpid()}"


def _tags_at(files: Sequence[Path], step: int) -> set[str]:
    """The tags that have a value at a step, in the files in their order."""
    tags: set[str] = set()
    for event in (event for file in files for event in _events(file)):
        if event.session_log.status == SessionLog.START and event.step <= step:
            tags.clear()  # those events were dropped
        if event.step == step:
            tags.update(value.tag for value in event.summary.value)
    return tags


def _events(file: Path) -> Iterator[Event]:
    """The complete records of an event file: length (8 bytes), checksum (4), data, checksum (4)."""
    data, place = file.read_bytes(), 0
    while place + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        end = place + 12 + length + 4
        if end > len(data):
            return
        yield Event.FromString(data[place + 12 : end - 4])
        place = end
