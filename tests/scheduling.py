"""Which test worker runs what, and when (`-p tests.scheduling`, for `--dist loadscope`).

The stores of the compat and iam tests take seconds to start and are shared by all tests of a
backend, so all tests of one of them go to one worker; so do the tests over TLS. Everything else is
handed out file by file, the longest first, so that no worker is left with a long one when the
others have nothing to do any more.

Tests of whole clusters wait much (for leases, elections, nodes that come back), and what they wait
for is late on a machine that has too much to do. So one worker at a time has them, while the others
compute; two have them at once only when nothing else is left.

(The xdist_group mark would say the first, but xdist 3.8 writes it where pytest 9.2 no longer
reads.)
"""

import re
from collections import OrderedDict

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

_BACKEND = re.compile(r"^tests/(compat|iam)/.*[\[-](given|sqlite|etcd)[-\]]")
_ONE_STORE = "tests/tls/"
# Seconds of a test, about, by the beginning of its name; of one with a backend; and of others.
_SECONDS = {
    "tests/cluster/test_checker": 0.1,
    "tests/cluster/": 8.0,
    "tests/compose/": 4.0,
    "tests/keyring/test_restarts": 6.0,
    "tests/simulation/": 5.0,
    "tests/bench/": 3.0,
    "tests/rescue/test_up": 1.5,
    "tests/attacks/": 0.3,
    "tests/edge/": 0.3,
    "tests/workers/": 0.1,
}
_SECONDS_WITH_BACKEND = 0.15
_SECONDS_OF_OTHERS = 0.02
_WAITING = re.compile(r"^tests/(cluster/|compose/|keyring/test_restarts)")


def _seconds(test: str) -> float:
    if _BACKEND.search(test):
        return _SECONDS_WITH_BACKEND
    return next((of for name, of in _SECONDS.items() if test.startswith(name)), _SECONDS_OF_OTHERS)


class StoreScheduling(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(_ONE_STORE):
            return _ONE_STORE
        backend = _BACKEND.search(nodeid)
        return f"tests/{backend[1]}/{backend[2]}" if backend else nodeid.partition("::")[0]

    def _assign_work_unit(self, node: WorkerController) -> None:
        """Assign the longest scope that is left: one that waits, unless another worker has one."""
        busy = any(
            _WAITING.match(scope) and not all(tests.values())
            for other, scopes in self.assigned_work.items()
            if other is not node
            for scope, tests in scopes.items()
        )

        def place(item: tuple[str, dict[str, bool]]) -> tuple[bool, float]:
            scope, tests = item
            return (_WAITING.match(scope) is not None) == busy, -sum(map(_seconds, tests))

        order = OrderedDict(sorted(self.workqueue.items(), key=place))
        self.workqueue.clear()
        self.workqueue.update(order)
        super()._assign_work_unit(node)


def pytest_xdist_make_scheduler(config, log):
    return StoreScheduling(config, log)
