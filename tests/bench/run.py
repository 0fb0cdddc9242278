"""`make bench`: every suite, one table, `build/bench.json` (a list of rows as in rows.py)."""

import argparse
import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import bench_checkpoint
import bench_proxy
from rows import Row

SUITES = {"proxy": bench_proxy.rows, "checkpoint": bench_checkpoint.rows}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--suite", choices=sorted(SUITES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    options = parser.parse_args()
    found: list[Row] = []
    for name, suite in SUITES.items():
        if options.suite in (None, name):
            print(f"--- {name}: {options.rounds} rounds", flush=True)
            found += suite(options.rounds)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps([row.as_json() for row in found], indent=1) + "\n")
    print(f"\n{'suite':11} {'workload':34} {'peer':28} {'ours':>11} {'theirs':>11} unit   ratio  noise   bar  met")
    for row in found:
        bar = "-" if row.bar is None else f"{row.bar:.2f}"
        met = {True: "yes", False: "NO", None: "-"}.get(row.met, row.met)  # type: ignore[arg-type]
        print(
            f"{row.suite:11} {row.workload:34} {row.peer:28} {row.ours:11.2f} {row.theirs:11.2f} {row.unit:6}"
            f"{row.ratio:6.2f} {row.noise:6.2f} {bar:>5}  {met}"
        )


if __name__ == "__main__":
    main()
