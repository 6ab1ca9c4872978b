"""Dropout masks belong to a device's step, not to the side of the cut."""

import numpy as np
import pytest
import torch
from torch import nn

from runtime.errors import SettingsError
from runtime.models.attention import seeded_attention
from runtime.models.dropout import dropout_layers, seed_dropout, set_dropout_keys
from runtime.models.load import load_network, split
from runtime.models.recurrent import seeded_recurrent
from runtime.models.seeded import SeededDropout
from runtime.seeding import dropout_mask

pytestmark = pytest.mark.numerics

KEYS = [((7, device, 3, 0), num_samples) for device, num_samples in ((0, 4), (1, 3), (2, 5))]


def test_the_cut_does_not_change_the_masks() -> None:
    network = load_network("mlp", {"dropout": 0.5, "input_shape": [6]}, seed=0)
    seed_dropout(network).train()
    batches = [torch.randn(num, 6, generator=torch.Generator().manual_seed(num)) for _, num in KEYS]
    outputs = []
    for cut in range(len(network) + 1):
        device_side, server_side = split(network, cut)
        smashed = []
        for key, batch in zip(KEYS, batches, strict=True):
            set_dropout_keys(device_side, [key])
            smashed.append(device_side(batch))
        set_dropout_keys(server_side, KEYS)
        outputs.append(server_side(torch.cat(smashed)))
    for output in outputs[1:]:
        assert torch.allclose(output, outputs[0], atol=1e-6)


def test_steps_and_layers_have_masks_of_their_own() -> None:
    masks = [
        dropout_mask(key, layer, (100,), 0.5)
        for key in ((1, 2, 3, 4), (1, 2, 3, 5), (1, 23, 4))
        for layer in ("drop1", "drop2")
    ]
    assert len({mask.tobytes() for mask in masks}) == len(masks)
    assert np.array_equal(masks[0], dropout_mask((1, 2, 3, 4), "drop1", (100,), 0.5))


def test_masks_are_the_same_on_every_machine_and_for_good() -> None:
    mask = dropout_mask((0, 1, 2, 3), "block1.drop", (2, 4), 0.25)
    scale = np.float32(1 / 0.75)
    assert mask.dtype == np.float32
    assert (mask / scale).tolist() == [[1, 1, 1, 1], [0, 1, 0, 1]]


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_a_share_p_is_dropped_and_the_mean_is_kept(p: float) -> None:
    mask = dropout_mask((1,), "drop", (20_000,), p)
    assert abs(np.mean(mask == 0) - p) < 0.01
    assert np.unique(mask).tolist() == ([0.0] if p else []) + [np.float32(1 / (1 - p))]


def test_channel_wise_dropout_drops_whole_channels() -> None:
    network = seed_dropout(nn.Sequential(nn.Dropout2d(0.5))).train()
    set_dropout_keys(network, [((1,), 2), ((2,), 2)])
    output = network(torch.ones(4, 16, 3, 3))
    channels = output.flatten(start_dim=2)
    assert torch.equal(channels.amin(dim=2), channels.amax(dim=2))
    assert set(output.unique().tolist()) == {0.0, 2.0}


def test_inner_layers_are_replaced_and_know_their_full_names() -> None:
    block = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3))
    network = seed_dropout(nn.Sequential(nn.Linear(2, 2), block))
    (layer,) = dropout_layers(network)
    assert (layer.layer, layer.p) == ("1.1", 0.3)


def test_evaluation_drops_nothing_and_needs_no_keys() -> None:
    x = torch.ones(2, 3)
    assert SeededDropout(0.5, layer="drop", channel_wise=False).eval()(x) is x


def test_a_batch_that_the_keys_do_not_cover_is_refused() -> None:
    layer = SeededDropout(0.5, layer="drop", channel_wise=False)
    set_dropout_keys(layer, [((1,), 3)])
    with pytest.raises(ValueError, match="keys for 3 samples, not for 2"):
        layer(torch.ones(2, 3))


@pytest.mark.parametrize("layer", [nn.AlphaDropout(0.5), nn.RReLU(), nn.Dropout(1.0)])
def test_layers_whose_masks_cannot_be_seeded_are_refused(layer: nn.Module) -> None:
    with pytest.raises(SettingsError, match="layer 0"):
        seed_dropout(nn.Sequential(layer))


def _hidden(*, batch_first: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions that are hidden from others, of pairs and of whole samples (three of four)."""
    hidden = torch.zeros(3, 4, dtype=torch.bool)
    hidden[0, -1] = True
    return torch.ones(4, 4).triu(1).bool(), hidden if batch_first else torch.zeros(3, 4).bool()


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("options", [{}, {"kdim": 6, "vdim": 5}, {"bias": False}], ids=str)
def test_an_attention_whose_masks_are_seeded_is_torchs(
    options: dict[str, int], *, batch_first: bool
) -> None:
    plain = nn.MultiheadAttention(8, 2, batch_first=batch_first, **options)
    seeded = seeded_attention(plain, name="attention").train()
    sizes = (8, options.get("kdim", 8), options.get("vdim", 8))
    given = [torch.randn((3, 4, size) if batch_first else (4, 3, size)) for size in sizes]
    of_pairs, of_keys = _hidden(batch_first=batch_first)
    for masks in (
        {},
        {"attn_mask": of_pairs},
        {"attn_mask": of_pairs, "key_padding_mask": of_keys},
    ):
        expected, actual = plain(*given, **masks), seeded(*given, **masks)
        for theirs, ours in zip(expected, actual, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("is_bidirectional", [True, False])
def test_a_recurrent_layer_whose_masks_are_seeded_is_torchs_to_the_bit(
    kind: type[nn.LSTM | nn.GRU | nn.RNN], *, is_bidirectional: bool
) -> None:
    plain = kind(4, 5, num_layers=3, bidirectional=is_bidirectional, batch_first=True)
    seeded = seeded_recurrent(plain, name="rnn").train()
    x = torch.randn(6, 7, 4)
    (outputs, ends), (expected, theirs) = seeded(x), plain(x)
    pairs = zip(ends, theirs, strict=True) if kind is nn.LSTM else [(ends, theirs)]
    assert torch.equal(outputs, expected)
    assert all(torch.equal(ours, other) for ours, other in pairs)
    assert isinstance(seeded, kind)
    assert list(seeded.state_dict()) == list(plain.state_dict())


def test_what_drops_inside_a_layer_draws_by_its_address() -> None:
    lstm = nn.LSTM(4, 5, num_layers=2, dropout=0.5)
    network = nn.ModuleDict({"lstm": lstm, "attention": nn.MultiheadAttention(4, 2, dropout=0.5)})
    seed_dropout(network)  # type: ignore[arg-type]
    assert [layer.layer for layer in dropout_layers(network)] == ["lstm.1", "attention"]
