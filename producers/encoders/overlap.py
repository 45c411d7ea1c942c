"""One stage of a run beside the next: an iterator driven from a thread of its own, a few items ahead of its reader."""

import threading
from collections import deque
from collections.abc import Generator, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def in_background(items: Iterator[Item], ahead: int = 1) -> Generator[Item, None, None]:
    """The same items in the same order, computed while the reader is busy with those before.

    Args:
        items: driven from another thread, which ends with it or as soon as the reader stops reading.
        ahead: how many items may lie ready; with the one in the making, that many more than the reader's own are held.

    Raises:
        BaseException: whatever `items` raised, at its place in the order.
    """
    ready: deque[Item] = deque()
    failed: list[BaseException] = []
    changed = threading.Condition()
    ended = stopped = False

    def drive() -> None:
        nonlocal ended
        try:
            for item in items:
                with changed:
                    ready.append(item)
                    changed.notify_all()
                    changed.wait_for(lambda: stopped or len(ready) < ahead)
                    if stopped:
                        return
        except BaseException as error:  # it belongs to the reader, whatever it is
            failed.append(error)
        finally:
            with changed:
                ended = True
                changed.notify_all()

    thread = threading.Thread(target=drive, name="in_background", daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: ready or ended)
                if not ready:
                    break
                item = ready.popleft()
                changed.notify_all()
            yield item
        if failed:
            raise failed[0]
    finally:
        with changed:
            stopped = True
            changed.notify_all()
        thread.join()
        close = getattr(items, "close", None)
        if close is not None:
            close()
