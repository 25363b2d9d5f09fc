"""Wall clocks of single processes that a test sets: a library in C, made by `cc` and preloaded
(clock.c). The offset is in a file, so that the clock can jump while the process runs."""

import shutil
import struct
import subprocess
from pathlib import Path

from compose.local import Process

_SOURCE = Path(__file__).with_name("clock.c")


class Clocks:
    """Makes and moves clocks; `directory` is for the library and the offsets."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        compiler = shutil.which("cc")
        assert compiler is not None, "cc is missing: apt-get install gcc libc6-dev"
        self._directory = directory
        self._library = directory / "clock.so"
        subprocess.run(
            [
                *(compiler, "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"),
                *("-o", str(self._library), str(_SOURCE), "-ldl"),
            ],
            check=True,
        )

    def give(self, process: Process) -> None:
        """A clock of its own to a process that is not started yet."""
        self.set(process, 0.0)
        process.environment = {
            **process.environment,
            "LD_PRELOAD": str(self._library),
            "CLOCK_OFFSET_FILE": str(self._file(process)),
        }

    def set(self, process: Process, offset_seconds: float) -> None:
        """Let the process's clock be so far ahead of ours, from now on."""
        path = self._file(process)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.write(struct.pack("=q", int(offset_seconds * 1e9)))

    def _file(self, process: Process) -> Path:
        return self._directory / f"{process.tag}.offset"
