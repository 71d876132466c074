"""Benchmarks of vds, beside its peers and alone; see benchmarks/README.md.

python -m benchmarks [--workload A,B] [--latency 0,20] [--wire plain,tls] [--peers A,B] [--rounds N] [--keep NAME]
python -m benchmarks report FILE...     the tables of kept results, and the targets
python -m benchmarks install            the peers, into .bench/
python -m benchmarks embedded [...]     vds alone, on a store in a directory
"""

from __future__ import annotations

import sys

from benchmarks import embedded, install, matrix, report


def main(words: list[str]) -> int:
    """Run the command that the first word names, the matrix when it names none, and return the exit status."""
    commands = {"embedded": embedded.main, "install": install.main, "report": report.main}
    if words and words[0] in commands:
        return commands[words[0]](words[1:])
    return matrix.main(words)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
