"""The licences of everything in constraints.txt, as each package states them: python -m
dapflow.deployments.licences > deployments/LICENCES.md
"""

import sys
from collections import defaultdict
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path

_CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
_HEAD = """# Licences of what dapflow runs on

The packages of `constraints.txt`, as their own metadata state it (`python -m dapflow.deployments.licences`). None is part of this repository.
`make audit` asks for their known vulnerabilities.

| licence | packages |
|---|---|"""


def licence_of(package: PackageMetadata) -> str:
    """Its licence expression, else its classifiers, else the first line of its licence."""
    classifiers = [
        one.rpartition(" :: ")[2]
        for one in package.get_all("Classifier") or []
        if one.startswith("License ::")
    ]
    exact = [one for one in classifiers if one != "OSI Approved"]
    expression, plain = (
        [*(package.get_all(name) or ()), ""][0].strip()
        for name in ("License-Expression", "License")
    )
    told = expression or "; ".join(exact) or plain
    return told.splitlines()[0] if told else "not stated"


def main() -> int:
    """Print the table. Returns 1, with a sentence, when a package is not installed."""
    by_licence, missing = defaultdict[str, list[str]](list), list[str]()
    for line in _CONSTRAINTS.read_text().splitlines():
        name = line.partition("==")[0].strip()
        if not name or name.startswith("#"):
            continue
        try:
            by_licence[licence_of(metadata(name))].append(name)
        except PackageNotFoundError:
            missing.append(name)
    print(_HEAD)
    for licence in sorted(by_licence, key=str.lower):
        print(f"| {licence} | {', '.join(by_licence[licence])} |")
    if missing:
        print(
            f"Not installed, so not listed: {', '.join(missing)}. All extras are wanted here.",
            file=sys.stderr,
        )
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
