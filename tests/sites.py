"""Sites to watch, told message by message."""

from collections.abc import Sequence

from edge_coordinator.job.standing import BEGINNING, Standing
from edge_coordinator.monitor.state import DeviceView, SiteState
from edge_coordinator.monitor.view import SiteView
from runtime.wire.fields import Message
from runtime.wire.measures import ComputeProfile, LinkProfile, PhaseSeconds
from runtime.wire.published import (
    ClusterReport,
    CoordinatorStatus,
    DeviceMetrics,
    DeviceProfile,
    DeviceStatus,
    OtherCut,
    PlanAlternatives,
    PlanReport,
    RoundReport,
)
from runtime.wire.topics import Topics

NOW_S = 1_800_000_000.0
TOPICS = Topics("default")
EPOCH = PhaseSeconds(
    distribute_s=0.1,
    forward_s=0.2,
    upload_s=0.3,
    server_s=0.01,
    download_s=0.3,
    backward_s=0.4,
    model_upload_s=0.1,
)


class Site:
    """A view, and short ways to tell it things."""

    def __init__(self) -> None:
        self.view = SiteView(TOPICS)

    def hear(self, topic: str, message: Message, *, retained: bool = True) -> "Site":
        payload = message.encode()
        self.view.receive(topic, memoryview(payload), retained=retained, now_s=NOW_S)
        return self

    def device(self, device: str, *, state: str = "online", session: str = "s") -> "Site":
        status = DeviceStatus.model_validate(
            {"state": state, "session": session, "since_unix_s": NOW_S - 900, "engine": "torch"}
        )
        return self.hear(TOPICS.status(device), status)

    def profile(self, device: str, *, age_s: float = 1.0, retained: bool = True) -> "Site":
        return self.hear(TOPICS.profile(device), make_profile(device, age_s), retained=retained)

    def coordinator(self, *, state: str = "online", run: int = 7) -> "Site":
        status = CoordinatorStatus.model_validate(
            {"state": state, "session": "c", "since_unix_s": NOW_S - 60, "run": run}
            | {"phase": "round 3 of 9"}
        )
        return self.hear(TOPICS.coordinator_status, status)

    def plan(self, *clusters: str, retained: bool = True, **changes: object) -> "Site":
        """Plan round 3 for clusters of devices with names of one letter."""
        return self.hear(TOPICS.plan, make_plan(*clusters, **changes), retained=retained)

    def round(self, number: int, **changes: object) -> "Site":
        return self.hear(TOPICS.round, make_round(number, **changes))

    def finished(self, *devices: str, cluster: int = 0) -> "Site":
        for device in devices:
            metrics = DeviceMetrics(
                run=7, round=3, cluster=cluster, forward_s=1, backward_s=1, upload_s=1,
                waiting_s=1, up_bytes=1, down_bytes=1, phases=EPOCH,
            )  # fmt: skip
            self.hear(TOPICS.metrics(device), metrics, retained=False)
        return self

    @property
    def now(self) -> SiteState:
        return self.view.state(NOW_S)

    def row(self, device: str) -> DeviceView:
        return next(view for view in self.now.devices if view.device == device)

    def phases(self) -> str:
        return " ".join(view.activity for view in self.now.devices)


def make_profile(device: str, age_s: float) -> DeviceProfile:
    return DeviceProfile(
        device=device,
        engine="onnxruntime",
        machine="aarch64",
        num_cores=4,
        memory_bytes=4_000_000_000,
        free_memory_bytes=1_230_000_000,
        num_samples=100,
        sample_shape=(1, 8, 8),
        compute=ComputeProfile(
            network="lenet",
            batch_size=16,
            forward_flop_per_s=7.65e9,
            backward_flop_per_s=4e9,
            relative_deviation=0.02,
            measured_at_unix_s=NOW_S - 30,
        ),
        link=LinkProfile(
            up_bps=43.2e6,
            up_deviation_bps=1e5,
            down_bps=98.7e6,
            down_deviation_bps=1e5,
            round_trip_s=0.012,
            round_trip_deviation_s=0.001,
            message_s=0.001,
            num_transfers=5,
            measured_at_unix_s=NOW_S - 240,
        ),
        measured_at_unix_s=NOW_S - age_s,
    )


def make_plan(*clusters: str, **changes: object) -> PlanReport:
    reports = tuple(
        ClusterReport(devices=tuple(names), shares=(1 / len(names),) * len(names))
        for names in clusters
    )
    plan = PlanReport(
        run=7, round=3, method="cpsl", cut=2, cut_layer="pool1", clusters=reports, left_out={},
        reason="given by hand",
    )  # fmt: skip
    return plan.model_copy(update=changes)


def make_round(number: int, **changes: object) -> RoundReport:
    report = RoundReport(
        run=7, round=number, cut_layer="pool1", num_clusters=2, num_devices=4,
        learning_rate=0.02, train_loss=0.5, round_s=3.3, elapsed_s=10, up_bytes=1000,
        down_bytes=2000,
    )  # fmt: skip
    return report.model_copy(update=changes)


def planned_round(number: int, clusters: Sequence[Sequence[str]], **changes: object) -> PlanReport:
    """Plan a round of 6 s for these clusters, equal shares of the link in each."""
    devices = [device for cluster in clusters for device in cluster]
    plan = make_plan("a", round=number, local_epochs=2, predicted_s=6.0, **changes)
    reports = tuple(
        plan.clusters[0].model_copy(
            update={"devices": tuple(names), "shares": (1 / len(names),) * len(names)}
        )
        for names in clusters
    )
    return plan.model_copy(update={"clusters": reports, "predicted": dict.fromkeys(devices, EPOCH)})


def with_shared_samples(plan: PlanReport) -> PlanReport:
    """Share samples out, in parts of which one is aggregated, and say what else could have been."""
    clusters = tuple(
        each.model_copy(
            update={
                "batch_sizes": tuple(range(1, 1 + len(each.devices))),
                "micro_batches": 4,
                "phi": 0.25,
            }
        )
        for each in plan.clusters
    )
    other = PlanAlternatives(
        best_other_cut=OtherCut(cut_layer="x", round_s=9.0),
        random_clusters_s=6.5,
        random_equal_shares_s=7.0,
        sorted_clusters_s=8.0,
    )
    return plan.model_copy(update={"clusters": clusters, "alternatives": other})


def measured_round(number: int, devices: Sequence[str], **changes: object) -> RoundReport:
    """Report a round that improved the model and took longer than it was planned."""
    measured = dict.fromkeys(devices, EPOCH.model_copy(update={"forward_s": 1.5}))
    return make_round(
        number,
        measured=measured,
        elapsed_s=10.0 * number,
        train_loss=1 / number,
        test_accuracy=1 - 0.5 / number,
        predicted_round_s=3.0,
        relative_error=-0.09,
        drawn_j={device: 1.5 * place for place, device in enumerate(devices, 1)},
        **changes,
    )


def standing_after(
    *scores: tuple[float | None, float | None], least_gain: float = 0.0
) -> tuple[Standing, RoundReport]:
    """Where a run stands after evaluations of these accuracies and losses, and its last round."""
    standing = BEGINNING
    for number, (accuracy, loss) in enumerate(scores, 1):
        report = make_round(number, test_accuracy=accuracy, test_loss=loss)
        standing = standing.after(report, least_gain=least_gain)
    return standing, report
