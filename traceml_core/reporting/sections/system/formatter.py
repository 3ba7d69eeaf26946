"""Host and GPUs as text: the card's lines and the table of their load."""

from __future__ import annotations

from traceml_core.core.units import byte_size, count, percent
from traceml_core.reporting.section_spec import CardLine
from traceml_core.reporting.stat_table import Unit, stat_table
from traceml_core.reporting.summary import RunSummary, Section


def card_lines(section: Section, run: RunSummary) -> list[CardLine]:
    """How busy the job's processors and GPUs were, and the most memory in use, against what the job may use."""
    lines = []
    host, gpu = _host(section, run), _gpu(section, run)
    if host:
        lines.append(CardLine("Host", " · ".join(host)))
    if gpu:
        lines.append(CardLine("GPU", " · ".join(gpu)))
    return lines


def table_lines(section: Section) -> list[str]:
    """Load, memory, heat and power, as a table."""
    return stat_table(section, TABLE)


def _host(section: Section, run: RunSummary) -> list[str]:
    parts = []
    processors = section.metrics.get("host_cpu_percent")
    if processors is not None:
        cpus = run.hardware.cpus
        of = f" of {cpus:g} core{'' if cpus == 1 else 's'}" if cpus else ""
        parts.append(f"CPU {percent(processors.mean / 100)}{of}")
    memory = section.metrics.get("host_memory_bytes")
    if memory is not None:
        limit = run.hardware.memory_bytes
        parts.append(f"memory {byte_size(memory.max)}" + (f" of {byte_size(limit)}" if limit else ""))
    return parts


def _gpu(section: Section, run: RunSummary) -> list[str]:
    parts = []
    for name, unit in (("gpu_utilization_percent", busy), ("gpu_temperature_c", celsius), ("gpu_power_w", watts)):
        stat = section.metrics.get(name)
        if stat is not None:
            parts.append(unit(stat.mean))
    names = sorted(set(run.hardware.gpus))
    number = len(run.hardware.gpus)
    if parts and names:
        parts.insert(0, (f"{count(number)} × " if number > 1 else "") + ", ".join(names))
    return parts


def busy(value: float | None) -> str:
    """Utilisation in per cent."""
    return f"{'–' if value is None else percent(value / 100)} busy"


def celsius(value: float | None) -> str:
    """A temperature."""
    return f"{count(value)} °C"


def watts(value: float | None) -> str:
    """Electrical power."""
    return f"{count(value)} W"


def _load(value: float | None) -> str:
    return percent(None if value is None else value / 100)


TABLE: tuple[tuple[str, Unit], ...] = (
    ("host_cpu_percent", _load),
    ("host_memory_bytes", byte_size),
    ("gpu_utilization_percent", _load),
    ("gpu_memory_used_bytes", byte_size),
    ("gpu_temperature_c", celsius),
    ("gpu_power_w", watts),
)
