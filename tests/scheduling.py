"""Which test worker runs what (`-p tests.scheduling`, for `--dist loadscope`).

The stores of the compat and iam tests take seconds to start and are shared by all tests of a
backend, so all tests of one of them go to one worker. Everything else is handed out file by file.
The longest scopes start first, so the two stores run beside each other, and the rest fills in.

(The xdist_group mark would say the same, but xdist 3.8 writes it where pytest 9.2 no longer reads.)
"""

import re

from xdist.scheduler import LoadScopeScheduling

_BACKEND = re.compile(r"^tests/(compat|iam)/.*\[(given|sqlite|etcd)\b")


class StoreScheduling(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        backend = _BACKEND.search(nodeid)
        return f"tests/{backend[1]}/{backend[2]}" if backend else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config, log):
    return StoreScheduling(config, log)
