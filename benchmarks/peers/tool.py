"""Run a command-line tool and take its time up to the last acknowledgement.

The null server says when it took the last request, and when the last byte of a blob was out; a tool that then sleeps, or tidies
up, is not charged for that. Its whole time is kept beside.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from benchmarks.peers.measure import Figures, Job
from benchmarks.server import ask


def run_tool(job: Job, figures: Figures, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run `command` and fill in `figures`; ends this process with the tool's words when it fails."""
    begun_s = time.monotonic()
    with figures.timed():
        done = subprocess.run(
            command, env=os.environ | dict(environment), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    if done.returncode:
        sys.exit(f"{command[0]} ended with {done.returncode}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    stats = json.loads(ask(job.account_url, "/_stats"))
    figures.extra["process_s"] = figures.seconds
    figures.extra["tool_rss_mib"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    figures.seconds = max(stats["last_s"], stats["sent_s"]) - begun_s


def signed_container_url(job: Job) -> str:
    """Return the container's url with a SAS for a day: what both tools take where the account is no public one."""
    values = {
        "sp": "racwdl",
        "st": "",
        "se": (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "spr": "",
        "sv": "2021-12-02",
        "sr": "c",
    }
    lines = [values["sp"], "", values["se"], f"/blob/{job.account}/{job.container}", "", "", "", values["sv"], "c"]
    text = "\n".join([*lines, *[""] * 7])
    signed = base64.b64encode(hmac.new(base64.b64decode(job.key), text.encode(), hashlib.sha256).digest()).decode()
    query = urlencode({name: value for name, value in values.items() if value} | {"sig": signed})
    return f"{job.account_url}/{job.container}?{query}"
