"""Frames a second through the node, next to Karabo's own pipeline alone, by turns in one run.

``python plugins/karabo/tests/measure.py [FRAMES] [ROUNDS]`` in the device's environment. Alone:
a source device and a client device. Node: a source device, the node, and the source ``zmq`` of the
chain, which takes what the node sends and looks at no pixel. Sources and node have a process each;
all connections have the policy ``wait``. The rate is that of the frames' arrival at the end.
"""

import asyncio
import logging
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import psutil
from broker import broker, free_ports

SHAPE = (1833, 1556)
ALONE, BEFORE, NODE, CLIENT = (f"MEASURE/{x}/1" for x in ("ALONE", "BEFORE", "NODE", "CLIENT"))


def on_loop(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `work` on a loop that is connected to the broker."""
    from karabo.middlelayer.testing import KaraboTestLoopPolicy

    logging.disable(logging.INFO)
    loop = KaraboTestLoopPolicy().new_event_loop()
    loop.run_until_complete(loop.create_task(work(), instance=loop.lead))
    loop.close()


def inlet(source: str) -> dict[str, Any]:
    """Return the input of a device that takes what `source` sends."""
    return {"connectedOutputChannels": [f"{source}:output"], "onSlowness": "wait"}


async def heard(pipe: Any) -> Any:
    """Wait for what comes through `pipe`."""
    return await asyncio.get_running_loop().run_in_executor(None, pipe.recv)


def sources(orders: Any, n: int) -> None:
    """Be two sources, and let the one send that is named."""
    from nodes import Source, until

    async def work() -> None:
        devices = {name: Source({"deviceId": name}) for name in (ALONE, BEFORE)}
        await asyncio.gather(*(device.startInstance() for device in devices.values()))
        await until(lambda: all(len(d.output.connections.value) for d in devices.values()))
        orders.send("connected")
        frame = np.random.default_rng(0).poisson(0.2, SHAPE).astype(np.uint16)
        while name := await heard(orders):
            for train in range(1, n + 1):
                await devices[name].send(frame, train)
        await asyncio.gather(*(device.slotKillDevice() for device in devices.values()))

    on_loop(work)


def node(orders: Any, places: dict[str, str]) -> None:
    """Be the node."""
    from karabo.middlelayer import State
    from nodes import Node, until

    async def work() -> None:
        device = Node({"deviceId": NODE, "input": inlet(BEFORE), **places})
        await device.startInstance()
        await until(lambda: device.state == State.PASSIVE)
        await device.start()
        await until(lambda: device.state in (State.PROCESSING, State.ERROR))
        orders.send(str(device.status))
        await heard(orders)
        await device.slotKillDevice()

    on_loop(work)


class Chain(threading.Thread):
    """The end of the chain that the node sees: its control socket, its source ``zmq``."""

    def __init__(self, places: dict[str, str]) -> None:
        super().__init__(daemon=True)
        from phasewatch.pipeline.transport.links import Transport
        from phasewatch.plugins.sources.zmq import open_source

        self._transport = Transport(linger_s=0)
        self._control = self._transport.link("router", places["control"], bind=True)
        self._source = open_source(places["frames"], bind=True)
        self.times: list[float] = []
        self.over = False
        threading.Thread(target=self._answer, daemon=True).start()

    def run(self) -> None:
        """Take frames."""
        self._source.start()
        for batch in self._source:
            if batch is not None:
                self.times.append(time.perf_counter())
            if self.over:
                break
        self._source.close()

    def _answer(self) -> None:
        from phasewatch.pipeline.bodies import ControlBody
        from phasewatch.pipeline.health import Book, run_status
        from phasewatch.pipeline.messages import encode

        said = run_status(Book(0), 1, run_id="measure", source="zmq").model_dump(mode="json")
        while not self.over:
            if self._transport.poll([self._control], 100):
                who, _ = self._control.receive() or (b"", None)
                self._control.offer(encode(ControlBody(what="status", data=said)), to=who)


def rate(times: list[float]) -> float:
    """Return frames a second."""
    return (len(times) - 1) / (times[-1] - times[0])


def cpu_s(*pids: int | None) -> list[float]:
    """Return the CPU seconds that processes have had so far."""
    return [sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids]


def stolen(before: Any, after: Any) -> float:
    """Return which part of the processors' time other virtual machines had, between two looks."""
    return (after.steal - before.steal) / (sum(after) - sum(before))


def measure(n: int, rounds: int) -> None:
    """Print the rates of each round, and their medians."""
    from karabo.middlelayer import InputChannel
    from nodes import Client, until

    class Counter(Client):
        """Keeps when frames came, not the frames."""

        times: list[float]

        @InputChannel(raw=True)
        async def input(self, data: Any, meta: Any) -> None:
            self.times.append(time.perf_counter())

    control, frames, results = (f"tcp://127.0.0.1:{p}" for p in free_ports(3))
    places = {"control": control, "frames": frames, "results": results}
    context = multiprocessing.get_context("spawn")
    (to_sources, a), (to_node, b) = context.Pipe(), context.Pipe()
    others = [
        context.Process(target=sources, args=(a, n)),
        context.Process(target=node, args=(b, places)),
    ]

    async def work() -> None:
        chain = Chain(places)
        chain.start()
        client = Counter({"deviceId": CLIENT, "input": inlet(ALONE)})
        await client.startInstance()
        for process in others:
            process.start()
        print("node:", await heard(to_node), "  sources:", await heard(to_sources), flush=True)
        found: dict[str, list[float]] = {"alone": [], "node": []}
        cpu: dict[str, list[float]] = {}
        at_first = psutil.cpu_times()
        for _ in range(rounds):
            client.times = []
            pids = os.getpid(), *(process.pid for process in others)
            before = cpu_s(*pids)
            to_sources.send(ALONE)
            await until(lambda: len(client.times) == n)
            between = cpu_s(*pids)
            found["alone"].append(rate(client.times))
            first = len(chain.times)
            to_sources.send(BEFORE)
            await until(lambda first=first: len(chain.times) >= first + n)
            found["node"].append(rate(chain.times[first:]))
            after = cpu_s(*pids)
            for who, i, x, y in (
                ("client alone", 0, before, between),
                ("source alone", 1, before, between),
                ("node", 2, between, after),
                ("chain's source", 0, between, after),
            ):
                cpu.setdefault(who, []).append((y[i] - x[i]) / n * 1e3)
            print("frames/s ", {k: round(v[-1], 1) for k, v in found.items()}, flush=True)
        alone, through = (statistics.median(found[k]) for k in ("alone", "node"))
        part = 100 * stolen(at_first, psutil.cpu_times())
        print(f"median   alone {alone:.0f}, node {through:.0f}, ratio {through / alone:.2f}")
        for who, spent in cpu.items():
            print(f"CPU a frame, {who}: {statistics.median(spent):.1f} ms")
        print(f"stolen by other machines: {part:.0f} % of the processors' time")
        to_sources.send("")
        to_node.send("")
        chain.over = True
        for process in others:
            await asyncio.get_running_loop().run_in_executor(None, process.join)
        await client.slotKillDevice()

    on_loop(work)


def main() -> None:
    """Measure with a broker of our own."""
    port = free_ports(1)[0]
    os.environ["KARABO_BROKER"] = f"amqp://guest:guest@127.0.0.1:{port}"
    os.environ["KARABO_BROKER_TOPIC"] = f"measure-{os.getpid()}"
    n, rounds = (int(x) for x in (*sys.argv[1:], *("100", "5")[len(sys.argv) - 1 :]))
    with broker(port):
        measure(n, rounds)


if __name__ == "__main__":
    main()
