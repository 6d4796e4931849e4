from __future__ import annotations

from collections.abc import Callable

from sftn.training.cuda_graph import WARM, Seen


class Rerun:
    """Calls the recorded function again: stands in for a graph on a CPU, to see that nothing but static tensors carries
    over from step to step."""

    def warm(self, function: Callable[[], Seen]) -> None:
        for _ in range(WARM):
            function()

    def record(self, function: Callable[[], Seen]) -> Seen:
        self._function, self._seen = function, function()
        return self._seen

    def replay(self) -> None:
        for static, value in zip(self._seen, self._function()):
            static.copy_(value)
