"""Run the stages of a pipeline side by side: compute items in other threads while the reader works on earlier ones."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def iterate_in_background(items: Iterator[Item], ahead: int = 1) -> Generator[Item, None, None]:
    """Yield the same items in the same order, computed in another thread while the reader works on earlier ones.

    The thread starts when the first item is asked for.

    Args:
        items: iterated in one other thread. The thread ends with it, or when the returned generator is closed; `items`
            is then closed too, if it has a `close`.
        ahead: how many finished items may wait for the reader; at least 1. The next item is computed as soon as fewer
            are waiting.

    Raises:
        BaseException: what `items` raised, after the items before it.
    """
    ready: deque[Item] = deque()
    errors: list[BaseException] = []
    changed = threading.Condition()
    is_exhausted = is_stopped = False

    def iterate() -> None:
        nonlocal is_exhausted
        try:
            for item in items:
                with changed:
                    ready.append(item)
                    changed.notify_all()
                    changed.wait_for(lambda: is_stopped or len(ready) < ahead)
                    if is_stopped:
                        return
        except BaseException as error:  # raised again in the reader's thread
            errors.append(error)
        finally:
            with changed:
                is_exhausted = True
                changed.notify_all()

    thread = threading.Thread(target=iterate, name="iterate_in_background", daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: ready or is_exhausted)
                if not ready:
                    break
                item = ready.popleft()
                changed.notify_all()
            yield item
        if errors:
            raise errors[0]
    finally:
        with changed:
            is_stopped = True
            changed.notify_all()
        thread.join()
        close = getattr(items, "close", None)
        if close is not None:
            close()


def map_in_threads(
    call: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Generator[tuple[Item, Result], None, None]:
    """Yield each item and `call(item)`, in the order of the items; up to `threads` calls run at once.

    At most `threads` items are in progress, so `items` is read no further ahead than that. It is read in the thread of
    the reader. Closing the generator waits for the calls that have started.

    Args:
        call: called once for each item, in another thread.
        items: the arguments of the calls; may be empty.
        threads: number of threads, at least 1.

    Raises:
        BaseException: what `items` or a call raised, in order; calls that have started are finished first.
    """
    running: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads, "map_in_threads") as pool:
        for item in items:
            running.append((item, pool.submit(call, item)))
            if len(running) == threads:
                first, future = running.popleft()
                yield first, future.result()
        for first, future in running:
            yield first, future.result()
