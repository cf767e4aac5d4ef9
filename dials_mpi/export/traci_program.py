"""Control the traffic lights of a city in SUMO by trained policies; it needs numpy, and traci or libsumo.

The policies, the scenario and its rules lie in the file .npz of the same name beside this one:

    python FILE.py                               one episode: number 0 of evaluate, with its random numbers
    python FILE.py --gui --greedy --delay 100    in SUMO's window; further options go to sumo

It prints the delay: timeLoss + departDelay, the mean over all vehicles of the window, those that have not
arrived or departed included.

An .npz file has the parameters of each policy as float32 arrays <agent>/<name>, and a ``description`` in
JSON. Its part ``control`` has: network, routes, additional: SUMO's files; begin, end: seconds of the day;
options: of SUMO; decision_every, yellow, all_red, minimum_green: seconds; observe_waiting; minimum_gap and
waiting_unit of observations; and for each of the signals, in the order of the agents: name, greens (the
states to choose from), approaches (for each lane that ends there, it and the lanes upstream of it) and their
lengths in metres. ``streams`` has the keys of random numbers.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import iterparse

import numpy as np

ARRAYS = Path(__file__).with_suffix(".npz")


class Network:
    """A policy network: a GRU or a linear layer with ReLU, then a linear layer with ReLU and a linear one."""

    def __init__(self, layers: dict[str, np.ndarray]) -> None:
        """layers: the parameters by name, float32."""
        self._layers = layers
        self._recurrent = "gru.weight_hh" in layers
        self.state = np.zeros(layers["gru.weight_hh"].shape[1] if self._recurrent else 0, np.float32)

    def logits(self, observation: np.ndarray) -> np.ndarray:
        """One logit per action [A] for an observation float32 [O]; it advances the recurrent state."""
        if self._recurrent:
            features = self.state = self._gru(observation)
        else:
            features = np.maximum(self._linear("first", observation), 0)
        outputs = self._linear("head", np.maximum(self._linear("second", features), 0))
        return outputs[:-1]  # the last one is the value

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return self._layers[f"{name}.weight"] @ x + self._layers[f"{name}.bias"]

    def _gru(self, x: np.ndarray) -> np.ndarray:
        own = self._layers
        gates = np.split(own["gru.weight_ih"] @ x + own["gru.bias_ih"], 3)
        products = np.split(own["gru.weight_hh"] @ self.state + own["gru.bias_hh"], 3)
        reset, update = (
            np.float32(1) / (np.float32(1) + np.exp(-(a + b)))
            for a, b in zip(gates[:2], products[:2], strict=True)
        )
        new = np.tanh(gates[2] + reset * products[2])
        return new + update * (self.state - new)


def draw(logits: np.ndarray, uniform: float) -> int:
    """An action with probability softmax(logits)[action], by a uniform number in [0, 1)."""
    values = logits.astype(np.float64)
    chances = np.exp(values - values.max())
    return min(int(np.searchsorted(np.cumsum(chances / chances.sum()), uniform, "right")), len(logits) - 1)


class Signal:
    """One traffic light: it shows a green, or changes to it through yellow and all-red."""

    def __init__(self, control: dict[str, Any], own: dict[str, Any]) -> None:
        """control: the description's part of this name; own: that of the signal."""
        self.name, self.greens, self.approaches = own["name"], own["greens"], own["approaches"]
        self._lengths = np.array(own["lengths"], np.float64)
        self._control, self._minimum = control, control["minimum_green"]
        self.green, self._age, self.state = 0, self._minimum, self.greens[0]
        self._before, self._gone = 0, -1  # seconds since the request; -1: no change is going on

    def observe(self, sumo: Any) -> np.ndarray:
        """The green, one-hot; whether it may be changed; density and queue of each approach (and waiting)."""
        control = self._control
        rows = np.array([self._read(sumo, lanes) for lanes in self.approaches], np.float64)
        vehicles, halting, metres, waiting = rows.T
        capacity = self._lengths / (control["minimum_gap"] + metres / np.maximum(vehicles, 1))
        parts = [np.minimum(1, vehicles / capacity), np.minimum(1, halting / capacity)]
        if control["observe_waiting"]:
            parts.append(waiting / control["waiting_unit"])
        one_hot = np.arange(len(self.greens)) == self.green
        return np.concatenate([one_hot, [self._free()], *parts]).astype(np.float32)

    def _read(self, sumo: Any, lanes: list[str]) -> list[float]:
        """Of an approach: vehicles, halting ones, the sum of their lengths, seconds that they wait."""
        ask = sumo.lane
        numbers = [ask.getLastStepVehicleNumber(lane) for lane in lanes]
        return [
            sum(numbers),
            sum(ask.getLastStepHaltingNumber(lane) for lane in lanes),
            sum(n * ask.getLastStepLength(lane) for lane, n in zip(lanes, numbers, strict=True) if n),
            sum(ask.getWaitingTime(lane) for lane in lanes) if self._control["observe_waiting"] else 0,
        ]

    def _free(self) -> bool:
        return self._gone < 0 and self._age >= self._minimum

    def request(self, green: int) -> None:
        """Choose a green at a decision; without effect during a change and the minimum green."""
        if green != self.green and self._free():
            self._before, self._gone = self.green, 0
            self.green, self._age = green, 0

    def second(self) -> bool:
        """Advance ``state`` to the coming second; whether it changes."""
        before = self.state
        if self._gone >= 0:
            self.state = self._changing()
            change = self._control["yellow"] + self._control["all_red"]
            self._gone = -1 if self._gone >= change else self._gone + 1
        self._age = 0 if self._gone >= 0 else self._age + 1
        return self.state != before

    def _changing(self) -> str:
        old, new = self.greens[self._before], self.greens[self.green]
        if self._gone >= self._control["yellow"] + self._control["all_red"]:
            return new
        letter = "y" if self._gone < self._control["yellow"] else "r"
        pairs = zip(old, new, strict=True)
        return "".join(letter if a in "gG" and b in "rs" else a for a, b in pairs)


def play(sumo: Any, control: dict[str, Any], networks: list[Network], stream: Any, greedy: bool) -> None:
    """One episode in a SUMO that has started; stream: of numpy, for the actions."""
    signals = [Signal(control, own) for own in control["signals"]]
    for signal in signals:
        sumo.trafficlight.setRedYellowGreenState(signal.name, signal.state)
    for second in range(control["end"] - control["begin"]):
        if second % control["decision_every"] == 0:
            uniforms = stream.random(len(signals), dtype=np.float32).tolist()
            seen = [signal.observe(sumo) for signal in signals]
            for signal, network, observation, uniform in zip(signals, networks, seen, uniforms, strict=True):
                logits = network.logits(observation)
                signal.request(int(np.argmax(logits)) if greedy else draw(logits, uniform))
        for signal in signals:
            if signal.second():
                sumo.trafficlight.setRedYellowGreenState(signal.name, signal.state)
        sumo.simulationStep()


def mean_delay(tripinfo: str, end: float) -> tuple[float, int]:
    """The mean of timeLoss + departDelay of the vehicles that should depart before ``end``; their number."""
    delays = []
    for _, trip in iterparse(tripinfo):
        if trip.tag == "tripinfo":
            depart, late = float(trip.attrib["depart"]), float(trip.attrib["departDelay"])
            if (end if depart < 0 else depart) - late < end:
                delays.append(float(trip.attrib["timeLoss"]) + late)
            trip.clear()
    return (float(np.mean(delays)) if delays else math.nan), len(delays)


def load() -> tuple[dict[str, Any], list[Network]]:
    """The description, and one network per signal."""
    with np.load(ARRAYS) as file:
        description = json.loads(str(file["description"]))
        arrays = {name: file[name] for name in file.files}
    networks = []
    for agent in range(len(description["policies"])):
        start = f"{agent}/"
        own = {name.removeprefix(start): part for name, part in arrays.items() if name.startswith(start)}
        networks.append(Network(own))
    return description, networks


def stream_of(streams: dict[str, Any], kind: str, seed: int, episode: int) -> np.random.Generator:
    """The random numbers of one kind: those of this episode of the evaluation, if the seed is the run's."""
    key = np.random.SeedSequence((seed, streams[kind], episode, streams["segment"]))
    return np.random.Generator(np.random.PCG64(key))


def command_of(control: dict[str, Any], chosen: argparse.Namespace, seed: int, tripinfo: str) -> list[str]:
    """SUMO's command line, without the program."""
    routes = chosen.routes or control["routes"]
    additional = control["additional"] if chosen.additional is None else chosen.additional
    _require_files([chosen.network or control["network"], *routes, *additional])
    return [
        *("-n", chosen.network or control["network"]),
        *(("-a", ",".join(additional)) if additional else ()),
        *control["options"],
        *(("--start", "--quit-on-end") if chosen.gui else ()),
        *(("-r", ",".join(routes)) if routes else ()),
        *("--begin", str(control["begin"]), "--seed", str(seed), "--tripinfo-output", tripinfo),
        *("--tripinfo-output.write-unfinished", "--tripinfo-output.write-undeparted"),
    ]


def start(command: Sequence[str], backend: str, gui: bool) -> Any:
    """libsumo or traci with a SUMO that has started."""
    if not gui and backend in ("auto", "libsumo"):
        try:
            import libsumo
        except ImportError:
            if backend == "libsumo":
                raise
        else:
            # SUMO orders some conflicts by the addresses of its objects. In a new thread these rise in order
            # of allocation, whatever this process did before, so that the traffic is that of evaluate.
            with ThreadPoolExecutor(max_workers=1) as thread:
                thread.submit(libsumo.start, ["sumo", *command]).result()
            return libsumo
    if backend == "libsumo":
        sys.exit("--backend is libsumo, which has no window: leave --gui out, or choose traci")
    import traci

    traci.start([_program("sumo-gui" if gui else "sumo"), *command])
    return traci


def _program(name: str) -> str:
    """The path of SUMO's program: in $SUMO_HOME, on $PATH, or beside this Python."""
    home = os.environ.get("SUMO_HOME")
    places = [*([os.path.join(home, "bin")] if home else ()), None, os.path.dirname(sys.executable)]
    found = next(filter(None, (shutil.which(name, path=place) for place in places)), None)
    return found or sys.exit(
        f"SUMO's program {name} is not found: set SUMO_HOME, or pip install eclipse-sumo"
    )


def _require_files(files: Sequence[str]) -> None:
    for file in files:
        if not os.path.isfile(file):
            sys.exit(f"{file} does not exist: give --network, --routes or --additional")


def options(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The chosen options, and those for SUMO."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--gui", action="store_true", help="show SUMO's window, with sumo-gui")
    parser.add_argument(
        "--greedy",
        action="store_true",
        help="take the most probable action; default: draw one, as in training",
    )
    parser.add_argument("--seed", type=int, help="of SUMO and of the actions (default: of the evaluations)")
    parser.add_argument("--episode", type=int, default=0, help="another one with the same seed (default 0)")
    parser.add_argument("--tripinfo", metavar="FILE", help="keep SUMO's tripinfo file")
    parser.add_argument("--backend", choices=("auto", "libsumo", "traci"), default="auto")
    parser.add_argument("--network", metavar="FILE", help="in place of the scenario's")
    parser.add_argument("--routes", metavar="FILE", nargs="+", help="in place of the scenario's")
    parser.add_argument("--additional", metavar="FILE", nargs="*", help="in place of the scenario's")
    return parser.parse_known_args(arguments)


def main() -> None:
    """The command line."""
    chosen, further = options()
    description, networks = load()
    control, streams = description["control"], description["streams"]
    seed = description["streams"]["seed"] if chosen.seed is None else chosen.seed
    simulator, actions = (stream_of(streams, kind, seed, chosen.episode) for kind in ("simulator", "actions"))
    with tempfile.TemporaryDirectory() as work:
        tripinfo = chosen.tripinfo or os.path.join(work, "tripinfo.xml")
        command = command_of(control, chosen, int(simulator.integers(2**31)), tripinfo)
        sumo = start([*command, *further], chosen.backend, chosen.gui)
        play(sumo, control, networks, actions, chosen.greedy)
        sumo.close()
        delay, vehicles = mean_delay(tripinfo, control["end"])
    print(f"delay: {delay:.3f} s ({vehicles} vehicles)")


if __name__ == "__main__":
    main()
