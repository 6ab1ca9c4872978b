"""The table of a comparison of both sides."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.cluster_step.result import Result


def show(results: Sequence[Result], title: str, console: Console) -> None:
    """Print a column for each batch size."""
    table = Table(title=title)
    table.add_column("")
    for result in results:
        table.add_column(f"B = {result.batch_size}", justify="right")
    for row in _rows(results):
        if row is None:
            table.add_section()
        else:
            table.add_row(*row)
    console.print(table)


def _rows(results: Sequence[Result]) -> Iterator[tuple[str, ...] | None]:
    def row(name: str, values: Sequence[float]) -> tuple[str, ...]:
        return (name, *(f"{value:.2f}" for value in values))

    yield row("over MQTT, median", [r.over_mqtt_ms for r in results])
    yield row("in one process, median", [r.in_process_ms for r in results])
    yield row("ratio", [r.ratio for r in results])
    yield row("best case: slowest device + server", [r.best_case_ms for r in results])
    yield row("besides the steps, a turn", [r.turn_overhead_ms for r in results])
    yield None
    yield ("over MQTT, mean of the quieter turns", *("" for _ in results))
    for name in results[0].phases_ms:
        yield row(f"  {name}", [r.phases_ms[name] for r in results])
        if name == "transit down and up":
            yield row("    of that serialising, alone", [r.serialising_ms for r in results])
    yield row("  sum", [sum(r.phases_ms.values()) for r in results])
    yield ("in one process", *("" for _ in results))
    yield row("  one device's compute", [r.in_process_device_ms for r in results])
    yield row("  server compute", [r.in_process_server_ms for r in results])
    yield None
    yield ("on a core (waiting for one)", *("" for _ in results))
    for name, (ran_ms, _) in results[0].core_ms.items():
        if ran_ms < 0.01:
            continue  # A thread that only waits.
        cells = ("{:.2f} ({:.2f})".format(*r.core_ms[name]) for r in results)
        yield (f"  {name}", *cells)
    total = [sum(ran for ran, _ in r.core_ms.values()) for r in results]
    yield row("  sum", total)
    yield row("  in one process", [r.in_process_ran_ms for r in results])
    yield None
    yield ("bytes of a frame's packets above raw fp32", *("" for _ in results))
    for name in results[0].wire:
        wires = [r.wire[name] for r in results]
        cells = (f"{w.overhead:+.2%} of {w.raw_bytes / 1e3:.1f} kB" for w in wires)
        yield (f"  {name}", *cells)
