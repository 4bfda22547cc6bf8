"""The default scene: what an operator looks at while a ramp is on."""

from karabo.common.scenemodel.api import (
    DisplayAlarmFloatModel,
    DisplayCommandModel,
    DisplayLabelModel,
    DisplayStateColorModel,
    LabelModel,
    LineEditModel,
    NDArrayGraphModel,
    SceneModel,
    TrendGraphModel,
    write_scene,
)

FONT = "Source Sans Pro,10,-1,5,50,0,0,0,0,0"
LEFT, VALUE, ROW, WIDTH = 10, 130, 24, 210
READ = (
    ("Phase", "phase"),
    ("Posterior", "posterior"),
    ("Confidence", "confidence"),
    ("Zones", "zone"),
    ("Last event", "lastEvent"),
    ("Input rate", "inputRate"),
    ("Result rate", "resultRate"),
    ("Latency p50", "latency"),
    ("Latency p99", "latencyP99"),
    ("Age of data", "dataAge"),
    ("Frames in", "framesIn"),
    ("Classified", "classified"),
    ("Lost", "framesLost"),
    ("Train", "trainId"),
    ("Run", "runId"),
    ("Model", "modelDigest"),
)
SLOTS = ("start", "stop", "resetTracker", "loadModel", "loadCalibration")
FILES = (("Model", "model"), ("PONI", "poni"), ("Mask", "mask"))


def scene(device: str) -> str:
    """Return the scene of `device`, SVG as the GUI reads it."""
    wide = {"parent_component": "DisplayComponent", "height": ROW - 3}
    children = [
        DisplayLabelModel(keys=[f"{device}.deviceId"], x=LEFT, y=8, width=330, **wide),
        DisplayStateColorModel(
            keys=[f"{device}.state"], show_string=True, x=350, y=8, width=150, **wide
        ),
        DisplayLabelModel(keys=[f"{device}.alarmCondition"], x=510, y=8, width=90, **wide),
        DisplayLabelModel(keys=[f"{device}.status"], x=LEFT, y=34, width=990, **wide),
    ]
    y = 66
    for text, key in READ:
        model = DisplayAlarmFloatModel if key in ("latencyP99", "dataAge") else DisplayLabelModel
        children += [
            _label(text, y),
            model(keys=[f"{device}.{key}"], x=VALUE, y=y, width=WIDTH, **wide),
        ]
        y += ROW
    for i, slot in enumerate(SLOTS):
        place = {"x": LEFT + 200 * i, "y": y + 12, "width": 190, "height": 28}
        children.append(
            DisplayCommandModel(
                keys=[f"{device}.{slot}"], parent_component="DisplayComponent", **place
            )
        )
    y += 52
    for i, (text, key) in enumerate(FILES):
        x = LEFT + 333 * i
        children += [
            _label(text, y, x=x, width=60),
            LineEditModel(
                keys=[f"{device}.{key}"],
                klass="EditableLineEdit",
                parent_component="EditableApplyLaterComponent",
                x=x + 60,
                y=y,
                width=260,
                height=ROW - 3,
            ),
        ]
    for i, path in enumerate(("pattern", "probability")):
        key = f"{device}.output.schema.data.{path}"
        children.append(
            NDArrayGraphModel(
                keys=[key],
                parent_component="DisplayComponent",
                title=path,
                x=360 + 330 * i,
                y=66,
                width=310,
                height=185,
            )
        )
    children.append(
        TrendGraphModel(
            keys=[f"{device}.posterior", f"{device}.confidence"],
            parent_component="DisplayComponent",
            title="posterior and confidence",
            x=360,
            y=260,
            width=640,
            height=185,
        )
    )
    return write_scene(SceneModel(width=1010, height=y + 34, children=children))


def _label(text: str, y: int, x: int = LEFT, width: int = VALUE - LEFT) -> LabelModel:
    return LabelModel(
        text=text,
        font=FONT,
        foreground="#000000",
        parent_component="DisplayComponent",
        x=x,
        y=y,
        width=width,
        height=ROW - 3,
    )
