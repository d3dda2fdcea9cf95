"""The thread that calls the victim for the requests of all accounts."""

import concurrent.futures
import queue
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ssl_extract.victims.model import Victim

CHUNK = 256  # inputs of one call of a victim that is a JAX function
JOINED = 1024  # inputs of several requests that become one batch
_SMALLEST = 8


def padded(inputs: np.ndarray) -> np.ndarray:
    """Pads inputs with zeros to 8, 16, 32, ... rows, for a few programs instead of hundreds.

    >>> padded(np.ones((9, 2))).shape
    (16, 2)
    """
    size = max(_SMALLEST, 1 << (len(inputs) - 1).bit_length())
    return np.pad(inputs, [(0, size - len(inputs))] + [(0, 0)] * (inputs.ndim - 1))


class Worker:
    """A victim whose calls are made one at a time, by one thread.

    Waiting calls of a JAX victim are joined to one batch. Any other victim is called for each
    request alone, so that an input on which the victim fails is the failure of its request only.
    """

    def __init__(self, victim: Victim) -> None:
        self._call = _traced(victim) if victim.traced else victim.answer
        self._joined = JOINED if victim.traced else 1
        self._waiting: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._run, name='victim', daemon=True).start()

    def answer(self, inputs: np.ndarray) -> Any:
        """Returns the victim's outputs [n, D] for inputs [n, ...]; called from any thread."""
        outputs: concurrent.futures.Future = concurrent.futures.Future()
        self._waiting.put((inputs, outputs))
        return outputs.result()

    def close(self) -> None:
        """Ends the thread after the calls that are waiting."""
        self._waiting.put(None)

    def _run(self) -> None:
        while call := self._waiting.get():
            calls = [call]
            while sum(len(inputs) for inputs, _ in calls) < self._joined:
                if self._waiting.empty():  # only this thread takes calls out
                    break
                if not (call := self._waiting.get()):
                    self.close()
                    break
                calls.append(call)
            self._serve(calls)

    def _serve(self, calls: list[tuple[np.ndarray, concurrent.futures.Future]]) -> None:
        try:
            if len(calls) == 1:
                parts = [self._call(calls[0][0])]
            else:
                outputs = self._call(np.concatenate([inputs for inputs, _ in calls]))
                ends = np.cumsum([len(inputs) for inputs, _ in calls])
                parts = np.split(outputs, ends[:-1])
        except BaseException as error:  # also SystemExit in a user's function
            failure = error if isinstance(error, Exception) else RuntimeError(repr(error))
            for _, waiting in calls:
                waiting.set_exception(failure)
            return
        for (_, waiting), part in zip(calls, parts, strict=True):
            waiting.set_result(part)


def _traced(victim: Victim) -> Callable[[np.ndarray], np.ndarray]:
    """Compiles a JAX victim for inputs in chunks."""
    encode = jax.jit(lambda answer, inputs: answer(inputs))

    def call(inputs: np.ndarray) -> np.ndarray:
        chunks = [inputs[start : start + CHUNK] for start in range(0, len(inputs), CHUNK)]
        outputs = [encode(victim.answer, padded(chunk)) for chunk in chunks]
        return np.concatenate(
            [np.asarray(out)[: len(chunk)] for out, chunk in zip(outputs, chunks, strict=True)]
        )

    return call
