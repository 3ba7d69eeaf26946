"""Settings: keyword argument > environment variable > default. `docs/settings.md` is generated from the struct."""

from __future__ import annotations

import os
import sys
import typing
import warnings
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict

import msgspec
from msgspec import Meta

PREFIX = "TRACEML_"
Mode = Literal["summary", "cli", "dashboard"]
Profile = Literal["run", "watch"]
ReportStyle = Literal["full", "line", "off"]

_Text = Annotated[str, Meta(pattern=r"\S")]
_Count = Annotated[int, Meta(ge=1)]
_Seconds = Annotated[float, Meta(gt=0, le=3600)]
_Port = Annotated[int, Meta(ge=0, le=65535)]


class SettingsArguments(TypedDict, total=False):
    """The keyword arguments of every adapter and of `trace_run`: plain JSON types, so that configs can hold them."""

    name: str | None
    runs_dir: str
    run_dir: str | None
    enabled: bool
    mode: Mode
    profile: Profile
    report: ReportStyle | None
    html: bool
    trackers: bool
    log_every_n_steps: int | None
    labels: dict[str, str]
    record_errors: bool
    sample_interval_s: float
    keep_raw_steps: int
    port: int


def _about(accepted: str, description: str) -> Meta:
    return Meta(description=description, extra={"accepted": accepted})


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The resolved settings of one callback. `report` null means `full` for a process's first run, then `line`."""

    name: Annotated[_Text | None, _about("text, or null", "names the run and its folder; null: the script's stem")] = (
        None
    )
    runs_dir: Annotated[_Text, _about("a path", "where run folders are made")] = "traceml_runs"
    run_dir: Annotated[
        _Text | None,
        _about("a path, or null", "the run folder exactly; where it holds a run already, a numbered sibling is used"),
    ] = None
    enabled: Annotated[bool, _about("true or false", "false: nothing is measured, replaced or written")] = True
    mode: Annotated[Mode, _about("'summary', 'cli' or 'dashboard'", "how the run is shown while it goes on")] = (
        "summary"
    )
    profile: Annotated[Profile, _about("'run' or 'watch'", "`watch` samples system and process only")] = "run"
    report: Annotated[
        ReportStyle | None,
        _about(
            "'full', 'line', 'off' or null",
            "what is printed at the end; null: `full`, and `line` for further runs of one process",
        ),
    ] = None
    html: Annotated[
        bool,
        _about("true or false", "write the report as a page too, `final_summary.html` (extra `dashboard`)"),
    ] = False
    trackers: Annotated[
        bool,
        _about("true or false", "write results to the trainer's own loggers or trackers, under `traceml/`"),
    ] = True
    log_every_n_steps: Annotated[
        _Count | None,
        _about("a whole number from 1 on, or null", "write them during the run as well, every so many steps"),
    ] = None
    labels: Annotated[
        dict[str, str],
        _about(
            "a mapping of text to text (environment: k=v,k=v)",
            "facts about the job; those of the environment are added, and SLURM_JOB_ID",
        ),
    ] = {}
    record_errors: Annotated[
        bool,
        _about("true or false", "false: of an error that ends the run only its type is kept"),
    ] = True
    sample_interval_s: Annotated[
        _Seconds,
        _about("seconds above 0, at most 3600", "between two looks at process and machine"),
    ] = 1.0
    keep_raw_steps: Annotated[
        _Count,
        _about(
            "a whole number from 1 on",
            "the last so many steps of each rank stay in the history one by one (with its first 1,024); of all others, "
            "roll-ups. The report speaks of all",
        ),
    ] = 10_000
    port: Annotated[
        _Port,
        _about("a port from 0 to 65535", "where the aggregator listens; 0: any free port"),
    ] = 0


class _Setting(msgspec.Struct, frozen=True):
    """One field of `Settings`. `kind` is its plain type, `type` that with its bounds; `accepted` says both in words."""

    type: Any
    kind: Any
    accepted: str
    description: str


def resolve_settings(environment: Mapping[str, str] = os.environ, **given: Any) -> Settings:
    """Settle every setting: what was given, else the environment, else the default. Labels of both are put together.

    Raises:
        ValueError: an argument is unknown or not accepted; the message names it, its value, and what is accepted.
    """
    values = _from_environment(environment, given)
    labels = values.pop("labels", {})
    for name, value in given.items():
        if name not in _SETTINGS:
            raise ValueError(f"unknown setting {name!r}; TraceML knows {', '.join(_SETTINGS)}")
        try:
            plain = os.fspath(value) if isinstance(value, os.PathLike) else value
            values[name] = msgspec.convert(plain, _SETTINGS[name].type)
        except msgspec.ValidationError:
            accepted = _SETTINGS[name].accepted
            raise ValueError(f"{name}={value!r} is not accepted; {name} is {accepted}") from None
    values["labels"] = {**_job_labels(environment), **labels, **values.get("labels", {})}
    if environment.get(f"{PREFIX}DISABLED", "").strip().lower() in _FLAGS[True]:
        values["enabled"] = False
    return Settings(**values)


def settings_reference() -> str:
    """`docs/settings.md`, as Markdown."""
    defaults = Settings()
    lines = [
        "# Settings",
        "",
        "Every adapter and `trace_run` take the same keyword-only arguments, plain JSON types all. An argument wins",
        "over the environment variable, which wins over the default. A bad argument raises `ValueError` at",
        "construction; a bad environment variable warns once and is ignored.",
        "",
        "| argument | environment | default | accepted | what it does |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, setting in _SETTINGS.items():
        default = msgspec.json.encode(getattr(defaults, name)).decode()
        environment = f"{PREFIX}{name.upper()}"
        lines.append(f"| `{name}` | `{environment}` | `{default}` | {setting.accepted} | {setting.description} |")
    lines += ["", f"`{PREFIX}DISABLED=1` turns everything off, whatever else is set.", ""]
    return "\n".join(lines)


def _from_environment(environment: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for name, setting in _SETTINGS.items():
        variable = f"{PREFIX}{name.upper()}"
        text = environment.get(variable, "").strip()
        overruled = name in given and name != "labels"
        if not text or overruled or text.lower() in _FOREIGN.get(name, ()):
            continue
        try:
            values[name] = _parse(text, setting)
        except ValueError:  # msgspec's errors are ValueErrors
            _warn_once(f"{variable}={text!r} is ignored: {name} is {setting.accepted}")
    return values


def _parse(text: str, setting: _Setting) -> Any:
    if setting.kind is bool:
        return _parse_flag(text)
    if setting.kind == dict[str, str]:
        return _parse_labels(text)
    return msgspec.convert(text, setting.type, strict=False)


def _parse_flag(text: str) -> bool:
    for flag, words in _FLAGS.items():
        if text.lower() in words:
            return flag
    raise ValueError(text)


def _parse_labels(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(separator and key.strip() for key, separator, _ in pairs):
        raise ValueError(text)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _job_labels(environment: Mapping[str, str]) -> dict[str, str]:
    job = environment.get("SLURM_JOB_ID")
    return {"slurm_job_id": job} if job else {}


def _warn_once(message: str) -> None:
    if message not in _WARNED:
        _WARNED.add(message)
        warnings.warn(f"TraceML: {message}", stacklevel=4)


def _setting(hint: Any) -> _Setting:
    kind, *_, about = typing.get_args(hint)
    return _Setting(hint, kind, about.extra["accepted"], about.description)


_FLAGS = {True: ("1", "true", "yes", "on"), False: ("0", "false", "no", "off")}
_WARNED: set[str] = set()
# traceml-ai reads some variables of the same names; its values mean nothing here and deserve no warning.
_FOREIGN = {"profile": ("auto", "deep"), "mode": ("auto",)}
_SETTINGS = {name: _setting(hint) for name, hint in typing.get_type_hints(Settings, include_extras=True).items()}


if __name__ == "__main__":
    sys.stdout.write(settings_reference())
