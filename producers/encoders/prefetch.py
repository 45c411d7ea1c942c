"""One stage of a run beside the next: an iterator driven from threads of its own, a few items ahead of its reader."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def iterate_in_background(items: Iterator[Item], ahead: int = 1) -> Generator[Item, None, None]:
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


def map_in_threads(
    call: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Generator[tuple[Item, Result], None, None]:
    """Items in their order, and what a call gives of each; so many calls run at once, and no item is taken for more.

    Raises:
        BaseException: whatever a call or `items` raised; the calls that have begun are waited for.
    """
    under_way: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads, "in_threads") as pool:
        for item in items:
            under_way.append((item, pool.submit(call, item)))
            if len(under_way) == threads:
                done, future = under_way.popleft()
                yield done, future.result()
        for done, future in under_way:
            yield done, future.result()
