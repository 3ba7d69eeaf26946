"""The Accelerate adapter: `with TraceMLCallback().attach(accelerator): ...` records the loop in the block.

Never imports transformers. Accelerate itself is imported by whoever made the accelerator.
"""

from __future__ import annotations

from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any

from traceml_core.core.settings import resolve_settings

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from traceml_core.core.settings import SettingsArguments
    from traceml_hf.accelerate_attachment import Attachment

__all__ = ["TraceMLCallback"]

_MARK = "_traceml_attachment"


class TraceMLCallback:
    """Records a hand-written Accelerate loop.

    ```python
    with TraceMLCallback().attach(accelerator):
        for batch in loader:
            ...
    ```

    `attach` may come before or after `accelerator.prepare`. Without `with`, the run is closed by
    `accelerator.end_training()`, by `close()`, by the next `attach` to another accelerator or at process exit. A loop
    that `sys.exit(1)` leaves then counts as completed; a `with` block tells it as interrupted.
    """

    def __init__(self, **settings: Unpack[SettingsArguments]) -> None:
        """Take the settings of `docs/settings.md`.

        Raises:
            ValueError: a setting's value is not accepted; the message names it and what is.
        """
        self._settings = resolve_settings(**settings)
        self._attachment: Attachment | None = None

    def attach(self, accelerator: Any) -> Self:
        """Begin to record what `accelerator` does; returns this callback, whose `with` block is then the run.

        An accelerator that is being recorded already stays with its first callback.

        Raises:
            TypeError: the argument is no `Accelerator`.
        """
        started_ns = perf_counter_ns()  # the run's wall time begins here: what we import is part of it
        if not hasattr(accelerator, "prepare") or not hasattr(accelerator, "backward"):
            raise TypeError(f"attach() takes an accelerate.Accelerator, not {type(accelerator).__name__}")
        from traceml_core.runtime.console import say
        from traceml_hf.accelerate_attachment import Attachment

        if _MARK not in vars(accelerator):
            Attachment.close_left_open()
        if _MARK in vars(accelerator) or (self._attachment is not None and self._attachment.is_open):
            if accelerator.is_main_process:
                say("a run is attached here already; this attach() does nothing")
            return self
        self._attachment = Attachment(accelerator, self._settings, started_ns)
        return self

    def close(self, error: BaseException | None = None) -> None:
        """End the run; with `error`, as failed (`KeyboardInterrupt`: interrupted). Safe to call more than once."""
        if self._attachment is not None:
            self._attachment.close(error)
            self._attachment = None

    def __enter__(self) -> Self:
        if self._attachment is not None:
            self._attachment.in_block = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(error)

    def __getstate__(self) -> dict[str, Any]:
        """A copy keeps the settings; the run stays with the original."""
        return {**self.__dict__, "_attachment": None}
