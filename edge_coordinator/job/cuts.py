"""Where a job has its network cut, as numbers of layers."""

from edge_coordinator.job.settings import JobSettings
from runtime.errors import SettingsError
from runtime.models.load import cut_index
from runtime.models.sequence import Network, layers_of


def given_cut(settings: JobSettings, network: Network) -> int | None:
    """Number of layers on each device, whatever the devices are; None if that is planned."""
    match settings.training.method:
        case "fl":
            return len(layers_of(network))
        case "cl":
            return 0
    is_given = not settings.plan.chooses_cut and settings.plan.replayed is None
    if not is_given and settings.plan.replayed is None and len(layers_of(network)) < 2:
        raise SettingsError(
            f"model {settings.model.name} has a single layer, and so no place to cut at; give "
            "training.method = 'fl' or 'cl', or a network of two layers or more"
        )
    return cut_index(network, settings.plan.cut) if is_given else None


def own_cuts(settings: JobSettings, network: Network) -> dict[str, int]:
    """Device id to the number of layers on it, of those that have a cut of their own."""
    if settings.plan.cuts and (method := settings.training.method) in {"fl", "cl"}:
        where = "after the last layer" if method == "fl" else "before the first layer"
        raise SettingsError(
            f"plan.cuts gives devices cuts of their own, and with training.method {method!r} all "
            f"cut {where}: take 'cpsl' or 'sl'"
        )
    if settings.plan.cuts and settings.training.given_phi:
        raise SettingsError(
            f"training.phi = {settings.training.phi} aggregates over smashed data of one layer, "
            "and plan.cuts has devices cut at different ones: take phi 0, 'auto' (where a whole "
            "cluster cuts alike), or no cuts of their own"
        )
    found = dict[str, int]()
    given = {} if isinstance(settings.plan.cuts, str) else settings.plan.cuts
    for device, cut in given.items():
        try:
            found[device] = cut_index(network, cut)
        except SettingsError as error:
            raise SettingsError(f"plan.cuts.{device}: {error}") from error
    return found


def deepest_cut(settings: JobSettings, network: Network) -> int | None:
    """How many layers a device may be given; None if nothing is known of that."""
    if settings.plan.replayed is not None:
        return None
    cut = given_cut(settings, network)
    inner = len(layers_of(network)) - 1
    return inner if cut is None else max(cut, *own_cuts(settings, network).values(), 0)
