"""`python -m tests.simulation SEED [COUNT]`: run seeds, print one line of JSON for each.

--trace FILE   write what happened, line by line
--plant NAME   with a known fault built in (tests.simulation.planted)
--chaos SECONDS  how long faults come, in virtual time
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from pathlib import Path


def main() -> None:
    if os.environ.get("PYTHONHASHSEED") != "0":
        command = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | {"PYTHONHASHSEED": "0"})
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("count", type=int, nargs="?", default=1)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--plant", default="")
    parser.add_argument("--chaos", type=float, default=60.0)
    arguments = parser.parse_args()

    from tests.simulation import determinism

    determinism.install()
    from tests.simulation.planted import plant
    from tests.simulation.run import simulate

    plant(arguments.plant)
    failed = False
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        result = simulate(seed, keep=arguments.trace is not None, chaos=arguments.chaos)
        if arguments.trace is not None:
            arguments.trace.write_text("\n".join(result.lines) + "\n")
        failed = failed or bool(result.wrong)
        told = {name: value for name, value in vars(result).items() if name != "lines"}
        print(json.dumps(told), flush=True)
        if failed and arguments.plant:
            break
    sys.stdout.flush()
    # The dead machines' tasks are left as they are.
    os._exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(2)
