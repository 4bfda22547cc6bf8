"""When a process that died is started again: soon, later each time, and not for ever. Pure."""

from collections import defaultdict, deque

WINDOW_NS = 60_000_000_000
FIRST_NS, LONGEST_NS = 100_000_000, 5_000_000_000


class Restarts:
    """The deaths of the processes of one run.

    At most `limit` restarts of each within a minute; the first at once, the next after 0.1 s, 0.2 s
    and so on, at most 5 s.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._deaths: dict[str, deque[int]] = defaultdict(deque)
        self._due: dict[str, int] = {}

    def died(self, role: str, now_ns: int) -> bool:
        """Note a death; tell whether `role` will be started again."""
        deaths = self._deaths[role]
        while deaths and now_ns - deaths[0] > WINDOW_NS:
            deaths.popleft()
        if len(deaths) >= self._limit:
            return False
        wait = 0 if not deaths else min(LONGEST_NS, FIRST_NS << (len(deaths) - 1))
        deaths.append(now_ns)
        self._due[role] = now_ns + wait
        return True

    def due(self, now_ns: int) -> list[str]:
        """Return who is to be started now; each is told once."""
        roles = [role for role, at in self._due.items() if at <= now_ns]
        for role in roles:
            del self._due[role]
        return roles
