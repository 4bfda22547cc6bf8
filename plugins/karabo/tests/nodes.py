"""The devices around the node under test, and what a test does with all three."""

import asyncio
import uuid
from typing import Any

import numpy as np
from karabo.middlelayer import (
    AccessMode,
    Configurable,
    DaqDataType,
    Device,
    Hash,
    InputChannel,
    NDArray,
    OutputChannel,
    Overwrite,
    State,
    Timestamp,
    UInt16,
    get_array_data,
    getDevice,
)
from karabo.middlelayer import (
    Node as SchemaNode,
)
from karabo.middlelayer.testing import AsyncDeviceContext

from phasewatch_karabo.device import PhasewatchNode as Node

HANG_S = 60.0  # a guard: whatever is waited for comes far sooner


class ImageData(Configurable):
    daqDataType = DaqDataType.TRAIN
    image = NDArray(shape=(0, 0), dtype=UInt16, accessMode=AccessMode.READONLY)


class ImageChannel(Configurable):
    data = SchemaNode(ImageData)


class Source(Device):
    """Sends what it is told."""

    state = Overwrite(defaultValue=State.ON, options=[State.ON])
    output = OutputChannel(ImageChannel)

    async def send(self, frame: np.ndarray, train: int) -> None:
        self.output.schema.data.image = frame
        await self.output.writeData(timestamp=stamp(train))

    async def send_raw(self, data: Hash, train: int) -> None:
        await self.output.writeRawData(data, timestamp=stamp(train))


class Client(Device):
    """Keeps what comes."""

    state = Overwrite(defaultValue=State.ON, options=[State.ON])

    def __init__(self, configuration: Any) -> None:
        super().__init__(configuration)
        self.got: list[tuple[Hash, Any]] = []
        self.ends = 0

    @InputChannel(raw=True)
    async def input(self, data: Hash, meta: Any) -> None:
        self.got.append((data, meta.timestamp.timestamp))

    @input.endOfStream
    async def input(self, name: str) -> None:
        self.ends += 1

    def patterns(self) -> np.ndarray:
        return np.stack([get_array_data(data, "data.pattern") for data, _ in self.got])

    def column(self, key: str) -> list[Any]:
        return [data[f"data.{key}"] for data, _ in self.got]


class Stage:
    """A source, the node and a client, connected with the policy ``wait``."""

    def __init__(self, **keys: Any) -> None:
        name = uuid.uuid4().hex[:8]
        self.source = Source({"deviceId": f"TEST/SOURCE/{name}"})
        inlet = {"connectedOutputChannels": [f"TEST/SOURCE/{name}:output"], "onSlowness": "wait"}
        keys.setdefault("maxLatency", 0.0)  # the machine may be slow
        self.node = Node({"deviceId": f"TEST/NODE/{name}", "input": inlet, **keys})
        inlet = {"connectedOutputChannels": [f"TEST/NODE/{name}:output"], "onSlowness": "wait"}
        self.client = Client({"deviceId": f"TEST/CLIENT/{name}", "input": inlet})
        self._context = AsyncDeviceContext(source=self.source, node=self.node, client=self.client)

    async def begin(self) -> None:
        await self._context.__aenter__()
        self.proxy = await getDevice(self.node.deviceId)
        await until(lambda: len(self.source.output.connections.value))
        await until(lambda: len(self.node.output.connections.value))

    async def end(self) -> None:
        await self._context.__aexit__(None, None, None)

    async def state(self, *states: State) -> None:
        """Wait until the node is in one of `states`."""
        try:
            await until(lambda: self.node.state in states)
        except TimeoutError:
            raise AssertionError(
                f"{self.node.state} and not {states}: {self.node.status}"
            ) from None

    async def start(self) -> None:
        await self.proxy.start()
        await self.state(State.PROCESSING, State.ERROR)
        assert self.node.state == State.PROCESSING, self.node.status

    async def stop(self) -> None:
        await self.proxy.stop()
        await self.state(State.PASSIVE)

    async def results(self, n: int) -> None:
        """Wait until the client has `n` results."""
        try:
            await until(lambda: len(self.client.got) >= n)
        except TimeoutError:
            raise AssertionError(
                f"{len(self.client.got)} of {n} results; {self.node.status}"
            ) from None


async def until(true: Any) -> None:
    """Wait until `true()`."""
    async with asyncio.timeout(HANG_S):
        while not true():
            await asyncio.sleep(0.02)


def stamp(train: int) -> Timestamp:
    attributes = {"sec": 1_700_000_000, "frac": train * 10**15, "tid": np.uint64(train)}
    return Timestamp.fromHashAttributes(attributes)
