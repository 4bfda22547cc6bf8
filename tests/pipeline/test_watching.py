"""A run that goes on can be watched: status, metrics, heartbeat say the same."""

import urllib.request
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from phasewatch.pipeline.bodies import ControlBody
from phasewatch.pipeline.config import parse_config
from phasewatch.pipeline.health import parse_status
from phasewatch.pipeline.messages import encode
from phasewatch.pipeline.processes.supervisor import supervise
from phasewatch.pipeline.processes.view import View, status
from phasewatch.pipeline.transport.links import Transport


@pytest.mark.usefixtures("thirdparty")
def test_a_run_can_be_watched(tmp_path: Path) -> None:
    tables = {
        "source": {"uri": "ramp:40", "endless": True},
        "reduce": {"baseline": {"method": "asls", "lam": 1e3}},
        "metrics": {"port": 0},
        "heartbeat": {"address": f"ipc://{tmp_path}/beat"},
    }
    config = parse_config(tables, name="test", folder=tmp_path)
    seen: dict[str, str] = {}
    with Transport(linger_s=0) as transport, capture_logs() as logs:
        beat = transport.link("sub", f"ipc://{tmp_path}/beat", bind=False)
        control = None

        def update(view: View) -> None:
            nonlocal control
            if control is None:
                control = transport.link("dealer", view.control, bind=False)
            if transport.poll([beat], 0) and (received := beat.receive()) is not None:
                assert isinstance(received[1].body, ControlBody)
                told = parse_status(received[1].body.data["status"], where="heartbeat")
                if told.frames.classified and told.processes["reducer-0"].rate_hz and not seen:
                    seen["run"] = told.run_id
                    url = next(line["address"] for line in logs if line["event"] == "metrics")
                    with urllib.request.urlopen(url, timeout=10) as answer:
                        seen["metrics"] = answer.read().decode()
                    assert status(view, told_ns(view)).run_id == told.run_id
                    control.send(encode(ControlBody(what="stop")))

        def told_ns(view: View) -> int:
            return max(view.book.heard_ns.values())

        outcome = supervise(config, on_update=update)
    assert outcome.error is None
    assert f'run_id="{seen["run"]}"' in seen["metrics"]
    assert "phasewatch_frames_received_total" in seen["metrics"]
