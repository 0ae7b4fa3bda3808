"""A real Prometheus beside a test."""

from __future__ import annotations

import json
import math
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Self

from tests.clients.test_clients import program
from tests.system.serverprocess import free_ports

JSON = dict[str, Any]


class Prometheus:
    """Scrapes `jobs` (scrape configs) once a second with the chart's rules. Leaving it ends it."""

    def __init__(self, folder: Path, rules: Path, jobs: list[JSON]) -> None:
        config = folder / "prometheus.json"
        every_second = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config.write_text(json.dumps({"global": every_second, "rule_files": [str(rules)], "scrape_configs": jobs}))
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "prometheus.log"
        self._command = [
            program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def ask(self, path: str, **parameters: str) -> Any:
        """The answer's data; None while it is not up. Raises HTTPError for a query that it does not understand."""
        assert self._process.poll() is None, self._log.read_text()
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it starts
                return None
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None
        except OSError:
            return None

    def values(self, query: str) -> list[float]:
        """The finite ones."""
        data = self.ask("query", query=query)
        found = [] if data is None else [float(sample["value"][1]) for sample in data["result"]]
        return [value for value in found if math.isfinite(value)]
