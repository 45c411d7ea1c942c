"""Hand out tasks to threads so that no host is asked by too many at once, too often, or while it asks to wait."""

import heapq
import itertools
import threading
import time
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Task = TypeVar("Task")


@dataclass
class _Host(Generic[Task]):
    waiting: list[tuple[float, int, Task]] = field(default_factory=list)
    """A heap of (not before, serial number, task)."""
    active: int = 0
    """Tasks that threads work on."""
    next_start: float = 0.0
    """When the next task may start, by `time.monotonic`."""
    is_dropped: bool = False
    """Whether no further task is taken."""


class HostQueues(Generic[Task]):
    """A queue of tasks for each host. Threads share it; no thread waits for one host while another has a task due.

    Args:
        per_host: tasks of one host that are worked on at once, at most.
        delay_seconds: least time between the starts of two tasks of one host.
    """

    def __init__(self, per_host: int, delay_seconds: float) -> None:
        self._per_host, self._delay_seconds = per_host, delay_seconds
        self._hosts: dict[str, _Host[Task]] = {}
        self._serials = itertools.count()
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, host: str, task: Task, *, after_seconds: float = 0.0) -> bool:
        """Add a task, to be started after some seconds at the earliest; return False if the host was dropped.

        Tasks that are due at once keep their order.
        """
        with self._changed:
            queue = self._hosts.setdefault(host, _Host())
            if not queue.is_dropped:
                due = time.monotonic() + after_seconds if after_seconds else 0.0
                heapq.heappush(queue.waiting, (due, next(self._serials), task))
                self._changed.notify()
            return not queue.is_dropped

    def take(self) -> tuple[str, Task] | None:
        """Wait for a task that may start, and return it with its host; None once the queues are closed.

        Call `finish` when it is done.
        """
        with self._changed:
            while not self._is_closed:
                now, due = time.monotonic(), float("inf")
                for name, host in self._hosts.items():
                    if host.waiting and host.active < self._per_host:
                        start = max(host.next_start, host.waiting[0][0])
                        if start <= now:
                            host.active += 1
                            host.next_start = now + self._delay_seconds
                            return name, heapq.heappop(host.waiting)[2]
                        due = min(due, start)
                self._changed.wait(None if due == float("inf") else due - now)
            return None

    def finish(self, host: str) -> None:
        """Say that a task that `take` returned is done."""
        with self._changed:
            self._hosts[host].active -= 1
            self._changed.notify()

    def pause(self, host: str, seconds: float) -> None:
        """Start no task of a host for some seconds."""
        with self._changed:
            self._hosts[host].next_start = max(self._hosts[host].next_start, time.monotonic() + seconds)

    def drop(self, host: str) -> list[Task]:
        """Take no more tasks of a host, and return those that wait; tasks that threads work on go on."""
        with self._changed:
            queue = self._hosts[host]
            tasks, queue.waiting, queue.is_dropped = [task for _, _, task in sorted(queue.waiting)], [], True
            return tasks

    def close(self) -> None:
        """Hand out no more tasks; threads that wait in `take` get None."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
