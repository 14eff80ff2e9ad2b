"""Reads pip's report of a dry run on stdin, writes infra/requirements.lock: `make lock`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

HEADER = """\
# Every package of the images, at one version: the closure of pyproject.toml with the extras s3, gcs, azure, lm, otel and trace
# under infra/constraints.txt, for Python 3.11 on Linux. CUDA packages are pinned by torch itself. Made by `make lock`.
"""


def main() -> None:
    """Sorted `name==version` lines, without our own package and without local version labels."""
    found = {
        each["metadata"]["name"].lower().replace("_", "-"): each["metadata"]["version"].split("+")[0]
        for each in json.load(sys.stdin)["install"]
    }
    found.pop("audiomill", None)
    lines = "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))
    Path(__file__).with_name("requirements.lock").write_text(HEADER + lines)


if __name__ == "__main__":
    main()
