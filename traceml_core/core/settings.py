"""Settings: keyword argument > environment variable > default. `docs/settings.md` is generated from here."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict

import msgspec

PREFIX = "TRACEML_"
Mode = Literal["summary", "cli", "dashboard"]
Profile = Literal["run", "watch"]
ReportStyle = Literal["full", "line", "off"]


class SettingsArguments(TypedDict, total=False):
    """The keyword arguments of every adapter and of `trace_run`: plain JSON types, so that configs can hold them."""

    name: str | None
    runs_dir: str
    run_dir: str | None
    enabled: bool
    mode: Mode
    profile: Profile
    report: ReportStyle | None
    trackers: bool
    log_every_n_steps: int | None
    labels: dict[str, str]
    record_errors: bool
    sample_interval_s: float
    port: int


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The resolved settings of one callback. `report` null means `full` for a process's first run, then `line`."""

    name: str | None = None
    runs_dir: str = "traceml_runs"
    run_dir: str | None = None
    enabled: bool = True
    mode: Mode = "summary"
    profile: Profile = "run"
    report: ReportStyle | None = None
    trackers: bool = True
    log_every_n_steps: int | None = None
    labels: dict[str, str] = {}
    record_errors: bool = True
    sample_interval_s: float = 1.0
    port: int = 0


class _Setting(msgspec.Struct, frozen=True):
    """How one setting is checked, read from text, and described."""

    accepted: str
    check: Callable[[Any], bool]
    parse: Callable[[str], Any]
    description: str


def resolve_settings(environment: Mapping[str, str] = os.environ, **given: Any) -> Settings:
    """Settle every setting: what was given, else the environment, else the default.

    Raises:
        ValueError: an argument is unknown or not accepted; the message names it, its value, and what is accepted.
    """
    for name, value in given.items():
        if name not in _SETTINGS:
            raise ValueError(f"unknown setting {name!r}; TraceML knows {', '.join(_SETTINGS)}")
        if not _SETTINGS[name].check(value):
            raise ValueError(f"{name}={value!r} is not accepted; {name} is {_SETTINGS[name].accepted}")
    values = {**_from_environment(environment, given), **given}
    values["labels"] = {**_job_labels(environment), **values.get("labels", {})}
    if environment.get(f"{PREFIX}DISABLED", "").strip().lower() in _TRUE:
        values["enabled"] = False
    return Settings(**values)


def settings_reference() -> str:
    """`docs/settings.md`, as Markdown."""
    defaults = Settings()
    lines = [
        "# Settings",
        "",
        "Every adapter and `trace_run` take the same keyword-only arguments, plain JSON types all. An argument wins over",
        "the environment variable, which wins over the default. A bad argument raises `ValueError` at construction; a",
        "bad environment variable warns once and is ignored.",
        "",
        "| argument | environment | default | accepted | what it does |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, setting in _SETTINGS.items():
        default = msgspec.json.encode(getattr(defaults, name)).decode()
        accepted = setting.accepted.replace("|", "\\|")
        lines.append(f"| `{name}` | `{PREFIX}{name.upper()}` | `{default}` | {accepted} | {setting.description} |")
    lines += ["", f"`{PREFIX}DISABLED=1` turns everything off, whatever else is set.", ""]
    return "\n".join(lines)


def _from_environment(environment: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for name, setting in _SETTINGS.items():
        text = environment.get(f"{PREFIX}{name.upper()}")
        if text is None or name in given or text.strip().lower() in _FOREIGN.get(name, ()):
            continue
        try:
            value = setting.parse(text.strip())
        except ValueError:
            value = _BAD
        if value is _BAD or not setting.check(value):
            _warn_once(f"{PREFIX}{name.upper()}={text!r} is ignored: {name} is {setting.accepted}")
        else:
            values[name] = value
    return values


def _job_labels(environment: Mapping[str, str]) -> dict[str, str]:
    job = environment.get("SLURM_JOB_ID")
    return {"slurm_job_id": job} if job else {}


def _warn_once(message: str) -> None:
    if message not in _WARNED:
        _WARNED.add(message)
        warnings.warn(f"TraceML: {message}", stacklevel=4)


def _one_of(*choices: str) -> _Checks:
    return " or ".join(repr(choice) for choice in choices), lambda value: value in choices, str


def _parse_flag(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


def _parse_labels(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(separator and key.strip() for key, separator, _ in pairs):
        raise ValueError(text)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_interval(value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and 0.1 <= value <= 3600
    )


def _is_labels(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for pair in value.items() for text in pair)


_Checks = tuple[str, Callable[[Any], bool], Callable[[str], Any]]
_TRUE = ("1", "true", "yes", "on")
_BAD = object()
_WARNED: set[str] = set()
# traceml-ai reads some variables of the same names; its values mean nothing here and deserve no warning.
_FOREIGN = {"profile": ("auto", "deep"), "mode": ("auto",)}

_TEXT: _Checks = ("text, or null", lambda value: value is None or _is_text(value), str)
_FLAG: _Checks = ("true or false", lambda value: isinstance(value, bool), _parse_flag)
_COUNT: _Checks = (
    "a whole number from 1 on, or null",
    lambda value: value is None or (_is_whole(value) and value >= 1),
    int,
)

_SETTINGS: dict[str, _Setting] = {
    name: _Setting(checks[0], checks[1], checks[2], description)
    for name, checks, description in (
        ("name", _TEXT, "names the run and its folder; null: the script's stem"),
        ("runs_dir", ("a path", _is_text, str), "where run folders are made"),
        ("run_dir", _TEXT, "the run folder exactly; one that holds a run already is kept, and a numbered sibling used"),
        ("enabled", _FLAG, "false: nothing is measured, replaced or written"),
        ("mode", _one_of("summary", "cli", "dashboard"), "how the run is shown while it goes on"),
        ("profile", _one_of("run", "watch"), "`watch` samples system and process only"),
        (
            "report",
            ("'full', 'line', 'off', or null", lambda value: value in ("full", "line", "off", None), str),
            "what is printed at the end; null: `full`, and `line` for further runs of one process",
        ),
        ("trackers", _FLAG, "write results to the trainer's own loggers or trackers, under `traceml/`"),
        ("log_every_n_steps", _COUNT, "write them during the run as well, every so many steps"),
        (
            "labels",
            ("a mapping of text to text (environment: k=v,k=v)", _is_labels, _parse_labels),
            "facts about the job",
        ),
        ("record_errors", _FLAG, "false: of an error that ends the run only its type is kept"),
        (
            "sample_interval_s",
            ("seconds from 0.1 to 3600", _is_interval, float),
            "between two looks at process and machine",
        ),
        (
            "port",
            ("a port from 0 to 65535", lambda value: _is_whole(value) and 0 <= value <= 65535, int),
            "where the aggregator listens; 0: any free port",
        ),
    )
}
