"""How long a plan takes and how good it is: `python -m benchmarks.planning --seed 1`.

Devices differ by up to thirty times in compute and rates. Times are seconds of one core. `--only
bounds` prints how far plans may be from the best possible, as they say, and how far they are.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np

from benchmarks.planning import everything
from benchmarks.planning.cuts_by_device import fleet, lenet
from benchmarks.planning.cuts_by_device import rows as cuts_by_device_rows
from benchmarks.planning.exact_clusters import exact_round_s
from edge_coordinator.experiments.exhaustive import best_round_s
from edge_coordinator.planning.bound.lower_bound import lower_bound_s
from edge_coordinator.planning.clusters.clustering import (
    CUT_SCHEDULE,
    default_schedule,
    gibbs_clusters,
    random_clusters,
    sorted_clusters,
)
from edge_coordinator.planning.clusters.grouping import Grouping, cluster_sizes
from edge_coordinator.planning.cuts.cut_layer import choose_cut
from edge_coordinator.planning.division.pricing import THOROUGH_EXCHANGES, Pricer
from edge_coordinator.planning.fleet import Fleet
from edge_coordinator.planning.latency import cluster_latency_s
from edge_coordinator.planning.planner import plan_round
from edge_coordinator.planning.spectrum import equal_shares
from profiles.link import IndependentLinks, Medium, SharedLink, Subcarriers
from profiles.units import Counts
from tests.fleets import best_of_all_s, random_devices, random_pricer, workload

MEDIA: tuple[Medium, ...] = (IndependentLinks(), Subcarriers(30), SharedLink())
CLUSTER_SIZE = 5
CUTS = range(1, 4)
TABLES = ("times", "everything", "choices", "quality", "bounds", "losses", "divisions", "cuts")
CHOICES = ("codec", "parts", "sizes", "own cuts", "all")
BOUND_DEVICES = (8, 15, 30)
BOUND_INSTANCES = 8
DIVIDED = ((12, 3, 1), (12, 4, 4), (20, 4, 1), (20, 4, 4))
"""Subcarriers, the devices that divide them, local epochs."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--instances", type=int, default=200, help="small ones, per kind of link")
    parser.add_argument("--only", choices=TABLES, help="print one table")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, clusters of {CLUSTER_SIZE}\n")
    tables = {
        "times": lambda: print_times(arguments.seed),
        "everything": lambda: print_everything(arguments.seed),
        "choices": print_choices,
        "quality": lambda: print_quality(arguments.seed),
        "bounds": lambda: print_bounds(arguments.seed),
        "losses": lambda: print_losses(arguments.seed, arguments.instances),
        "divisions": lambda: print_divisions(arguments.seed, arguments.instances),
        "cuts": print_cuts,
    }
    for table in TABLES if arguments.only is None else [arguments.only]:
        tables[table]()
        print()


def print_times(seed: int) -> None:
    """Time whole plans at a given cut, and the choice among three cuts in ten states."""
    print_row("seconds of one core", "devices", "plan", "of it clusters", "cut (3 x 10)")
    for medium in MEDIA:
        for num_devices in (30, 1000):
            print_row(named(medium), num_devices, *times_s(seed, num_devices, medium))


def times_s(seed: int, num_devices: int, medium: Medium) -> tuple[float, float, float]:
    """Time a plan, its clusters alone, and a choice of the cut."""
    devices = random_devices(np.random.default_rng(seed), num_devices)
    work, states = workload(medium), [Fleet.of(devices)] * 10
    pricer, sizes = pricer_of(seed, num_devices, medium)
    plan = partial(
        plan_round,
        devices,
        work,
        grouping=Grouping("cpsl", cluster_size=CLUSTER_SIZE),
        cut=2,
    )
    cut = partial(choose_cut, states, work, sizes=sizes, candidates=CUTS, schedule=CUT_SCHEDULE)
    return (
        core_seconds(lambda: plan(generator=np.random.default_rng(seed))),
        core_seconds(lambda: found(pricer, sizes, seed)),
        core_seconds(lambda: cut(generator=np.random.default_rng(seed))),
    )


def print_everything(seed: int) -> None:
    """Time plans that choose codec, micro-batches, cuts by device and sizes, with their bound."""
    print_row("seconds of one core", "devices", "one cut", "by device", "predicted, s")
    table = lenet()
    for medium in MEDIA:
        for num_devices in (30, 1000):
            devices = fleet(table, seed, num_devices, decades=1.5)
            plan = partial(everything.plan, devices, everything.everything(table, medium))
            took_s = [core_seconds(partial(plan, by_device=own)) for own in (False, True)]
            print_row(named(medium), num_devices, *took_s, plan().predicted_s)


def print_choices() -> None:
    """Say how many times longer a round of LeNet is without each choice, and without all."""
    print_row("times longer, without", "decades", "devices", *CHOICES)
    for medium in MEDIA:
        for row in everything.rows(medium, num_devices=20):
            print_row(named(medium), *row)


def print_quality(seed: int) -> None:
    """Compare the predicted round with what other ways of grouping would have cost."""
    print_row("predicted round, s", "devices", "planned", "sorted", "random", "and equal")
    for medium in MEDIA:
        for num_devices in (30, 1000):
            pricer, sizes = pricer_of(seed, num_devices, medium)
            generator = np.random.default_rng(seed)
            draws = [random_clusters(sizes=sizes, generator=generator) for _ in range(8)]
            print_row(
                named(medium),
                num_devices,
                round_s(pricer, found(pricer, sizes, seed)),
                round_s(pricer, sorted_clusters(pricer, sizes=sizes)),
                np.mean([round_s(pricer, draw) for draw in draws]),
                np.mean([equal_round_s(pricer, draw) for draw in draws]),
            )


def print_bounds(seed: int) -> None:
    """Compare plans with their bound, and both with the exact solver; medians and the worst.

    Half of the fleets wait for computing and half for the link; half of them three times a turn.
    """
    print_row("above, %", "devices", "bound", "worst", "exact", "worst", "bound below")
    for medium in MEDIA:
        for num_devices in BOUND_DEVICES:
            said, real, below = np.array(list(gaps_percent(seed, num_devices, medium))).T
            medians = np.median(said), said.max(), np.median(real), real.max(), np.median(below)
            print_row(named(medium), num_devices, *(float(each) for each in medians))

    print_row("above the bound, %", "devices", "by speed", "worst", "everything", "worst")
    for medium in MEDIA:
        for num_devices in BOUND_DEVICES:
            by_speed = everything.plans_by_speed(seed, num_devices, medium)
            of_all = everything.plans_of_all(num_devices, medium)
            above = [everything.above_bound_percent(plans) for plans in (by_speed, of_all)]
            found = [each for own in above for each in (float(np.median(own)), max(own))]
            print_row(named(medium), num_devices, *found)


def gaps_percent(
    seed: int, num_devices: int, medium: Medium
) -> Iterator[tuple[float, float, float]]:
    """Give how far a plan is above its bound and above the best, and the bound below the best."""
    for instance in range(BOUND_INSTANCES):
        generator = np.random.default_rng((seed, num_devices, instance))
        flop_per_s, up_bps = [(1e8, 1e7), (1e9, 3e6)][instance % 2]
        devices = random_devices(generator, num_devices, flop_per_s=flop_per_s, up_bps=up_bps)
        epochs = [1, 3][instance // 2 % 2]
        pricer = random_pricer(
            *(generator, num_devices), medium=medium, local_epochs=epochs, devices=devices
        )
        sizes = cluster_sizes(num_devices, cluster_size=CLUSTER_SIZE)
        members = found(pricer, sizes, seed)
        planned_s = round_s(pricer, members)
        work = workload(medium, local_epochs=epochs)
        bound_s = lower_bound_s(pricer, work, members=members)
        best_s = exact_round_s(pricer, sizes, known_s=planned_s)
        yield (
            100 * (planned_s / bound_s - 1),
            100 * (planned_s / best_s - 1),
            100 * (1 - bound_s / best_s),
        )


def print_losses(seed: int, num_instances: int) -> None:
    """Compare with exhaustive search, on instances of up to 8 devices."""
    print_row("above exhaustive, %", "instances", "mean", "max", "sorted max", "random max")
    for medium in MEDIA:
        generator = np.random.default_rng(seed)
        losses = []
        for instance in range(num_instances):
            num_devices = int(generator.integers(3, 9))
            sizes = cluster_sizes(
                num_devices, num_clusters=int(generator.integers(2, max(num_devices // 2, 2) + 1))
            )
            pricer = random_pricer(generator, num_devices, medium=medium)
            best_s = best_of_all_s(pricer, sizes)
            candidates = (
                found(pricer, sizes, instance),
                sorted_clusters(pricer, sizes=sizes),
                random_clusters(sizes=sizes, generator=generator),
            )
            losses.append([100 * (round_s(pricer, each) / best_s - 1) for each in candidates])
        planned, by_order, by_chance = np.array(losses).T
        maxima = planned.max(), by_order.max(), by_chance.max()
        print_row(named(medium), num_instances, planned.mean(), *maxima)


def print_divisions(seed: int, num_instances: int) -> None:
    """Compare the division of a cluster's subcarriers with the best of all divisions."""
    print_row("above the best, %", "epochs", "greedy", "max", "exchanges", "max", "equal")
    for num_subcarriers, num_devices, local_epochs in DIVIDED:
        generator = np.random.default_rng(seed)
        members, medium = np.arange(num_devices)[np.newaxis], Subcarriers(num_subcarriers)
        losses = []
        for _ in range(num_instances):
            pricer = random_pricer(generator, num_devices, medium=medium, local_epochs=local_epochs)
            best_s = best_round_s(pricer, sizes=np.array([num_devices]))
            divided_s = (
                float(pricer.latency_s(members, max_exchanges=0).sum()),
                round_s(pricer, members),
                equal_round_s(pricer, members),
            )
            losses.append([100 * (each / best_s - 1) for each in divided_s])
        (greedy, exchanged, equal), most = np.mean(losses, axis=0), np.max(losses, axis=0)
        kind = f"{num_subcarriers} for {num_devices} devices"
        print_row(kind, local_epochs, greedy, most[0], exchanged, most[1], equal)


def pricer_of(seed: int, num_devices: int, medium: Medium) -> tuple[Pricer, Counts]:
    """Draw devices and size their clusters."""
    pricer = random_pricer(np.random.default_rng(seed), num_devices, medium=medium)
    return pricer, cluster_sizes(num_devices, cluster_size=CLUSTER_SIZE)


def found(pricer: Pricer, sizes: Counts, seed: int) -> Counts:
    """Cluster with the default budget."""
    return gibbs_clusters(
        pricer,
        start=sorted_clusters(pricer, sizes=sizes),
        schedule=default_schedule(int(sizes.sum()), num_clusters=len(sizes), medium=pricer.medium),
        generator=np.random.default_rng(seed),
    )


def round_s(pricer: Pricer, members: Counts) -> float:
    """Seconds of a round with allocated shares."""
    return float(pricer.latency_s(members, max_exchanges=THOROUGH_EXCHANGES).sum())


def equal_round_s(pricer: Pricer, members: Counts) -> float:
    """Seconds of a round with equal shares."""
    shares = equal_shares(present=members >= 0, medium=pricer.medium)
    return float(cluster_latency_s(pricer.seconds, members=members, shares=shares).sum())


def core_seconds(work: Callable[[], object]) -> float:
    """Time the fastest of three runs, in seconds of this process."""
    times = []
    for _ in range(3):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def print_cuts() -> None:
    """Compare a round at the best common cut with one of cuts by device, as ratios."""
    print_row("common / by device", "decades", "vetoes", "devices", "median", "most", "core s")
    for row in cuts_by_device_rows():
        print_row("LeNet, independent", *row)


def named(medium: Medium) -> str:
    """Give the kind of link in words."""
    match medium:
        case IndependentLinks():
            return "independent"
        case SharedLink():
            return "shared"
        case Subcarriers(num_subcarriers):
            return f"{num_subcarriers} subcarriers"


def print_row(first: str, *others: object) -> None:
    """Print one line of a table, eighty columns wide at the most."""
    width = 60 // len(others) - 1
    print(f"{first:20}" + "".join(f" {cell:>{width}}" for cell in cells(others)))


def cells(values: Iterable[object]) -> list[str]:
    """Write numbers with three or four digits."""
    return [f"{each:.4g}" if isinstance(each, float) else str(each) for each in values]


if __name__ == "__main__":
    main()
