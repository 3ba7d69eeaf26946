"""Attaches a callback to every Hugging Face trainer of this process, where `TRACEML_ATTACH=1` asks for it.

transformers has no entry point for callbacks. What it has is `transformers.trainer.DEFAULT_CALLBACKS`, the list of
classes that every trainer begins with. The class `AttachedCallback` is put at its end as soon as that module has been
loaded; no function or class is replaced, and `detach` takes it out again. `traceml_attach.pth`, beside this package in
the environment, calls `attach_when_loaded` at the start of every Python process that is asked to, and of no other.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

TRAINER = "transformers.trainer"


def attach_when_loaded() -> None:
    """Wait for transformers' trainer to be loaded; nothing of it, and nothing else, is loaded for that."""
    if TRAINER in sys.modules:
        attach(sys.modules[TRAINER])
    elif not any(isinstance(finder, TrainerFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, TrainerFinder())


def attach(trainer_module: ModuleType) -> None:
    """Have every trainer begin with our callback too. Never raises into the import that it is called in."""
    from traceml_core.loggers.error_log import fail_open, get_error_logger

    with fail_open(get_error_logger("Trainer"), "attaching to trainers"):
        from traceml_hf.attached_callback import AttachedCallback

        if AttachedCallback not in trainer_module.DEFAULT_CALLBACKS:
            trainer_module.DEFAULT_CALLBACKS.append(AttachedCallback)


def detach() -> None:
    """Undo both: wait no longer, and leave the trainers that are made from now on alone."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, TrainerFinder)]
    defaults = getattr(sys.modules.get(TRAINER), "DEFAULT_CALLBACKS", [])
    defaults[:] = [one for one in defaults if not getattr(one, "gives_way", False)]


class TrainerFinder(MetaPathFinder):
    """Finds one module, once, by asking everybody else, and is gone."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of the trainer's module, with a loader that attaches; of any other module None."""
        if fullname != TRAINER:
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = AttachingLoader(spec.loader)
        return spec


class AttachingLoader(Loader):
    """Loads as the real loader does, gives the module back to it, and attaches."""

    def __init__(self, real: Loader) -> None:
        """Stand in for `real`."""
        self._real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the real loader does."""
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As the real loader does; then attach."""
        module.__loader__ = self._real
        if module.__spec__ is not None:
            module.__spec__.loader = self._real
        try:
            self._real.exec_module(module)
        except BaseException:
            attach_when_loaded()  # somebody may catch this and try again
            raise
        attach(module)

    def __getattr__(self, name: str) -> Any:
        """Whatever else a loader is asked for."""
        return getattr(self._real, name)
