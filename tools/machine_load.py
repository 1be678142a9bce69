"""How busy the machine is with other things: contention halves every number, so a benchmark has to know."""

import os
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
BUSY_CORES = 0.1  # of other processes: more is worth a warning


def busy_seconds(stat):
    """CPU time that /proc/stat has counted as used, by whomever, the hypervisor's other guests included."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.splitlines()[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


class Watch:
    """Counts from its creation on the CPU time that neither we nor our finished children used."""

    def __init__(self):
        self.start, self.busy, self.own = self.now()

    @staticmethod
    def now():
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        return time.monotonic(), busy_seconds(Path("/proc/stat").read_text(encoding="ascii")), own

    def other_cores(self):
        """Cores that others kept busy, on average."""
        now, busy, own = self.now()
        return max(0.0, (busy - self.busy - (own - self.own)) / max(now - self.start, 1e-3))


def other_cores(seconds=1.0):
    """Cores that others keep busy while we sleep."""
    watch = Watch()
    time.sleep(seconds)
    return watch.other_cores()


def runnable():
    """Threads that want a CPU now, this one aside."""
    return int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[0]) - 1
