"""``asapo:HOST:PORT``: one stream of ASAP::O, the data broker of PETRA III.

Its messages bring pixels, packed by ``seedee``, or (with `files`) the names of the part files of a
LAMBDA detector, which are then read as they come to rest. One stream, that is one scan, is one run.
Ids are those of the messages; with `files`, sequence numbers. There is no ``t_acq``: the time in a
message is that of the producer.

**Tested against a fake consumer object only**, which raises the real package's errors in the order
that its documentation gives: the server cannot be installed outside the facility.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import Source
from phasewatch.plugins.sources.asapo_feed import AsapoFeed, package
from phasewatch.plugins.sources.asapo_files import Announced
from phasewatch.plugins.sources.asapo_pixels import PixelDecoder
from phasewatch.plugins.sources.lambda_follow import LambdaFollow
from phasewatch.plugins.sources.stream import POLL_MS, Stream

TOKEN = "ASAPO_TOKEN"

Name = Annotated[str, Field(min_length=1, max_length=256)]


def open_source(
    target: str,
    *,
    beamtime: Name,
    source: Name,
    stream: Name = "default",
    token_file: str | None = None,
    group: Name | None = None,
    datasets: bool = False,
    translations: list[tuple[float, float]] | None = None,
    files: str | None = None,
    modules: Annotated[int, Field(ge=1)] | None = None,
    idle_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None,
) -> Source:
    """Take a stream from the server at `target`.

    Parameters
    ----------
    target
        ``HOST:PORT``.
    beamtime, source, stream
        Which messages: the beamtime's id, the name of the data source, and of one of its streams.
    token_file
        File with the token; without it the environment variable ASAPO_TOKEN.
    group
        Share the messages with the other members of this consumer group, unordered; without it all
        are taken, in order, and taken from nobody.
    datasets
        Each message is a data set, one part per module.
    translations
        (x, y) of each module in pixels, in the order of the substreams: the modules are put there
        and the frame is flipped vertically, as ``lambda-nexus`` does.
    files
        Messages announce LAMBDA part files below this folder; `modules` of them make a frame.
    idle_timeout_s
        End the run when nothing came for so long, an error where it had not begun; None waits for
        ever.
    """
    host, _, port = target.rpartition(":")
    if not host or not port.isdecimal():
        raise PipelineError(f"asapo:{target}: not HOST:PORT")
    if files is None and modules is not None:
        raise PipelineError("[source] modules: only with files")
    if files is not None and (translations is not None or group is not None):
        raise PipelineError("[source] files: neither translations nor group go with it")
    if files is not None and modules is None:
        raise PipelineError("[source] files needs modules, the number of modules of the detector")
    if datasets and files is None and translations is None:
        raise PipelineError("[source] datasets needs translations, or files: where do modules lie?")
    if translations is not None and (len(translations) > 1) != datasets:
        raise PipelineError("[source] translations of several modules go with datasets = true")
    token = read_token(token_file)
    feed = AsapoFeed(
        target,
        connector(target, beamtime, source, token, files),
        stream,
        group=group,
        datasets=datasets,
        with_data=files is None,
        secret=token,
    )
    if files is not None and modules is not None:
        return LambdaFollow(
            f"asapo:{target}", Announced(feed, Path(files)), modules, idle_timeout_s
        )
    made = Stream("asapo", feed, PixelDecoder(stream, translations), idle_timeout_s=idle_timeout_s)
    made.replays = group is None
    return made


def connector(
    target: str, beamtime: str, source: str, token: str, files: str | None
) -> Callable[[], Any]:
    """Return what makes the consumer; data come from the server unless `files` are here."""

    def connect() -> Any:
        path, here = ("auto", False) if files is None else (files, True)
        return package().create_consumer(target, path, here, beamtime, source, token, POLL_MS)

    return connect


def read_token(file: str | None) -> str:
    """Return the token of `file`, or of the environment.

    Raises
    ------
    PipelineError
        There is none, or more than one word.
    """
    where = f"[source] token_file: {file}" if file else f"environment variable {TOKEN}"
    try:
        text = Path(file).read_text() if file else os.environ.get(TOKEN, "")
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"{where}: {getattr(error, 'strerror', None) or 'no text'}") from None
    if len(text.split()) != 1:
        hint = "" if file else ", or name a file: token_file"
        raise PipelineError(f"{where}: a token, one word, is expected{hint}")
    return text.strip()
