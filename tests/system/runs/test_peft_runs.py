"""LoRA as peft makes it: only the adapters travel and learn, and peft takes them back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from edge_coordinator.job.file import load_job
from edge_coordinator.job.prepare import prepare_job
from edge_coordinator.run.model.files import save_weights
from runtime.bus.memory_bus import MemoryBroker
from runtime.datasets.samples import DataSet, Samples
from runtime.models.load import split
from tests.builders import run_job, weights_of
from tests.unit.runtime.models.adapted_network import frozen_bytes

peft = pytest.importorskip("peft", reason="LoRA is peft's: pip install peft transformers")
transformers = pytest.importorskip("transformers")

WIDTH, TOKENS, VOCABULARY, RANK, BATCH, CLASSES = 32, 8, 50, 2, 4, 3
CUT = "base_model.model.bert.encoder.layer.0"
ADAPTER_BYTES = 4 * 2 * (RANK * WIDTH + WIDTH * RANK)
"""Two of them, of query and value, each down and up, in the one layer on the device."""
POSITIONS_BYTES = 2 * 8 * TOKENS
"""BERT's two buffers of whole numbers."""
HEADERS = 1500
"""More than headers, padding and labels of this network's frames have in a round."""


def _base() -> nn.Module:
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=TOKENS,
        num_labels=CLASSES,
        initializer_range=0.3,
    )
    module: nn.Module = transformers.BertForSequenceClassification(config)
    return module


def adapted() -> nn.Module:
    """A frozen BERT whose queries and values have adapters, and whose head learns."""
    targets = ["query", "value"]
    lora = peft.LoraConfig(r=RANK, target_modules=targets, modules_to_save=["classifier"])
    module: nn.Module = peft.get_peft_model(_base(), lora)
    vars(module)["input_shape"] = {"input_ids": (TOKENS,), "attention_mask": (TOKENS,)}
    return module


def _sentences(count: int, *, seed: int) -> Samples:
    """Rows as tokenised batches travel: a mask, then token ids."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(1, VOCABULARY, (count, TOKENS))
    mask = np.arange(TOKENS) < generator.integers(3, TOKENS + 1, (count, 1))
    x = np.concatenate([mask, ids], axis=1).astype(np.float32)
    return Samples(x, ids[:, 0] % CLASSES)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
async def test_only_adapters_travel_and_peft_loads_them_again(engine: str, tmp_path: Path) -> None:
    test = _sentences(8, seed=9)
    settings = load_job(
        None,
        {
            "devices.count": 2,
            "model.name": f"{__name__}:adapted",
            "plan.mode": "by_hand",
            "plan.cut": CUT,
            "plan.clusters": 1,
            "training.rounds": 3,
            "training.local_epochs": 1,
            "training.batch_size": BATCH,
            "training.server_optimizer": {"momentum": 0.9, "learning_rate": 0.3},
        },
    )
    data = DataSet(train=test, test=test, num_classes=CLASSES, name="sentences")
    job, model = prepare_job(settings, run=7, base_dir=Path(), data=data)
    before = weights_of(model)
    own = {f"d{index}": _sentences(12, seed=index) for index in range(2)}
    trained, reports = await run_job(
        own, {}, broker=MemoryBroker(), prepared=(job, model), engines=(engine,)
    )
    after = weights_of(trained)
    assert job.cut is not None
    smashed_bytes = 2 * BATCH * 4 * int(np.prod(job.shapes[job.cut]))
    model_bytes = 2 * ADAPTER_BYTES + POSITIONS_BYTES  # With momentum.
    assert frozen_bytes(split(model.network, CUT)[0]) > 10 * HEADERS
    for report in reports:
        assert not report.lost
        up_bytes, down_bytes = smashed_bytes + 2 * model_bytes, smashed_bytes + model_bytes
        assert up_bytes < report.up_bytes < up_bytes + HEADERS
        if engine == "torch" or report.round > 1:  # Else graphs go down, and the base, once.
            assert down_bytes < report.down_bytes < down_bytes + HEADERS
    changed = {name for name in after if not np.array_equal(after[name], before[name])}
    assert changed == {name for name in after if "lora_" in name or "modules_to_save" in name}
    ours = adapted()
    save_weights(tmp_path / "model.safetensors", trained.network, round_=2)
    ours.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    _assert_peft_takes(ours, tmp_path, test)


def _assert_peft_takes(ours: nn.Module, folder: Path, test: Samples) -> None:
    """Save the adapters as peft does, and load them onto the base that it was."""
    assert isinstance(ours, peft.PeftModel)
    ours.save_pretrained(str(folder))
    again = peft.PeftModel.from_pretrained(_base(), str(folder))
    rows = torch.from_numpy(test.x).long()
    given = {"attention_mask": rows[:, :TOKENS], "input_ids": rows[:, TOKENS:]}
    with torch.no_grad():
        outputs = [module.eval()(**given).logits for module in (ours, again)]
    assert torch.equal(*outputs)
