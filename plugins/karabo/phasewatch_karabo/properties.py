"""What the node shows and what can be set: its properties, and the schema of its results."""

from typing import Any

from karabo.middlelayer import (
    AccessLevel,
    AccessMode,
    Assignment,
    Configurable,
    DaqDataType,
    Device,
    Double,
    Float,
    Int32,
    Int64,
    MetricPrefix,
    NDArray,
    Node,
    OutputChannel,
    Overwrite,
    State,
    String,
    UInt64,
    Unit,
    VectorString,
)

STATES = (
    State.INIT,
    State.PASSIVE,
    State.STARTING,
    State.PROCESSING,
    State.CHANGING,
    State.STOPPING,
    State.ERROR,
)


class ResultData(Configurable):
    """One result; a vector is empty where the chain does not classify."""

    daqDataType = DaqDataType.TRAIN

    seq = Int64(
        displayedName="Position",
        description="Position in the run, from 0.",
        accessMode=AccessMode.READONLY,
        defaultValue=-1,
    )
    trainId = UInt64(displayedName="Train Id", accessMode=AccessMode.READONLY, defaultValue=0)
    label = Int32(
        displayedName="Label",
        description="Index of the most probable class; -1: not classified.",
        accessMode=AccessMode.READONLY,
        defaultValue=-1,
    )
    phase = Int32(
        displayedName="Phase",
        description="Index of the phase as the tracker follows it; -1: unknown.",
        accessMode=AccessMode.READONLY,
        defaultValue=-1,
    )
    novelty = Float(
        displayedName="Novelty",
        description="1 is the edge of what the model was trained on.",
        accessMode=AccessMode.READONLY,
        defaultValue=0.0,
    )
    probability = NDArray(
        displayedName="Probability",
        description="Of each class, in the order of the model.",
        shape=(0,),
        dtype=Float,
        accessMode=AccessMode.READONLY,
    )
    pattern = NDArray(
        displayedName="Pattern",
        description="The clean pattern, on the axis of the run.",
        shape=(0,),
        dtype=Float,
        accessMode=AccessMode.READONLY,
    )


class ResultChannel(Configurable):
    """What the output channel carries."""

    data = Node(ResultData)


def _init(name: str, text: str, value: str, **more: Any) -> String:
    return String(
        displayedName=name,
        description=text,
        defaultValue=value,
        accessMode=AccessMode.INITONLY,
        assignment=Assignment.OPTIONAL,
        **more,
    )


def _file(name: str, text: str) -> String:
    return String(displayedName=name, description=text, defaultValue="")


def _text(name: str, text: str = "") -> String:
    return String(
        displayedName=name, description=text, defaultValue="", accessMode=AccessMode.READONLY
    )


def _number(name: str, text: str = "", **more: Any) -> Double:
    return Double(
        displayedName=name,
        description=text,
        defaultValue=0.0,
        accessMode=AccessMode.READONLY,
        **more,
    )


def _count(name: str, text: str = "") -> UInt64:
    return UInt64(
        displayedName=name,
        description=text,
        defaultValue=0,
        unitSymbol=Unit.COUNT,
        accessMode=AccessMode.READONLY,
    )


def _limit(name: str, text: str, value: float, **more: Any) -> Double:
    return Double(displayedName=name, description=text, defaultValue=value, minInc=0.0, **more)


class NodeProperties(Device):
    """The properties of the node and its output channel."""

    state = Overwrite(defaultValue=State.INIT, options=list(STATES))

    configuration = _init(
        "Configuration",
        "Configuration of the chain, which the device then starts itself; empty: it runs already.",
        "",
    )
    executable = _init(
        "Executable",
        "The command phasewatch, of the environment in which the chain is installed.",
        "phasewatch",
        requiredAccessLevel=AccessLevel.EXPERT,
    )
    control = _init("Control", "[runtime] control of the chain.", "tcp://127.0.0.1:45671")
    frames = _init(
        "Frames",
        'Where the chain waits for frames: [source] uri = "zmq:ADDRESS", bind = true.',
        "tcp://127.0.0.1:45672",
    )
    results = _init(
        "Results",
        'Where it publishes: [[sink]] type = "zmq", address = "ADDRESS".',
        "tcp://127.0.0.1:45673",
    )
    keys = _init("Keys", "Folder of keys, where the chain is on another host.", "")
    frameKey = String(
        displayedName="Frame Key",
        description="Where the image is in what comes, an NDArray or an Image.",
        defaultValue="data.image",
    )
    model = _file("Model", "Folder of the model that Load Model takes, on the host of the chain.")
    poni = _file("PONI", "Geometry that Load Calibration takes; empty: as it is.")
    mask = _file("Mask", "Mask that Load Calibration takes; empty: as it is.")
    maxLatency = _limit(
        "Max. Latency", "p99 above it is a warning; 0: never.", 1.0, unitSymbol=Unit.SECOND
    )
    maxAge = _limit(
        "Max. Age",
        "No result for so long while frames come is a warning; 0: never.",
        5.0,
        unitSymbol=Unit.SECOND,
    )
    minConfidence = _limit(
        "Min. Confidence", "Below it, where a boundary was passed, is a warning.", 0.0, maxInc=1.0
    )

    phase = _text("Phase", "Where the sample is, as the tracker follows it.")
    posterior = _number("Posterior", "How sure the tracker is of it, 0 to 1.")
    confidence = _number("Confidence", "Classification confidence of the run, 0 to 1.")
    zone = _text("Ambiguity Zones", "Of the boundaries that were passed, first-last frame.")
    lastEvent = _text("Last Event")
    inputRate = _number("Input Rate", "Frames that come in.", unitSymbol=Unit.HERTZ)
    resultRate = _number("Result Rate", "Results that go out.", unitSymbol=Unit.HERTZ)
    latency = _number(
        "Latency",
        "From received to tracked, the median.",
        unitSymbol=Unit.SECOND,
        metricPrefixSymbol=MetricPrefix.MILLI,
    )
    latencyP99 = _number(
        "Latency p99",
        "99 of 100 frames take less.",
        unitSymbol=Unit.SECOND,
        metricPrefixSymbol=MetricPrefix.MILLI,
    )
    dataAge = _number(
        "Age of Data", "Since the last result; 0: there was none.", unitSymbol=Unit.SECOND
    )
    framesIn = _count("Frames In", "That came to the device since its start.")
    framesForwarded = _count("Frames Forwarded", "That the chain was sent.")
    framesDropped = _count("Frames Dropped", "Here, because the chain took none.")
    framesRefused = _count("Frames Refused", "Here, because they were not the image due.")
    lastRefused = _text("Last Refused", "Why, of the last frame that was.")
    resultsMissed = _count("Results Missed", "Of the runs that have ended: that did not come here.")
    messagesRefused = _count("Messages Refused", "From the chain, because they were not good.")
    received = _count("Received", "By the chain, in this run.")
    classified = _count("Classified", "By the chain, in this run.")
    framesLost = _count("Lost", "In the chain, in this run: missed, dropped, failed.")
    trainId = _count("Train Id", "Of the last result.")
    runId = _text("Run Id", "Of the run of the chain.")
    classes = VectorString(displayedName="Classes", defaultValue=[], accessMode=AccessMode.READONLY)
    modelDigest = _text("Model Digest", "Of the run whose results come.")
    calibrationDigest = _text("Calibration Digest", "Of the run whose results come.")

    availableScenes = VectorString(
        displayedName="Available Scenes",
        displayType="Scenes",
        description="Scenes that the device provides.",
        defaultValue=["scene"],
        accessMode=AccessMode.READONLY,
        requiredAccessLevel=AccessLevel.OBSERVER,
    )

    output = OutputChannel(ResultChannel, displayedName="Results")
