"""Networks of Hugging Face's, small, made from their configurations."""

import importlib
from collections.abc import Callable
from typing import Any

from torch import nn

from benchmarks.networks.brought import Brought, Shape

NUM_TOKENS, VOCABULARY = 16, 100
BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
_DISTILBERT = {
    "vocab_size": VOCABULARY,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 64,
    "max_position_embeddings": 64,
}
_GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 64,
    "pad_token_id": 0,
}
_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 2,
}
_VIT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
WAV2VEC2 = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (32, 32, 32),
    "conv_stride": (5, 4, 4),
    "conv_kernel": (10, 8, 4),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 32,
    "apply_spec_augment": False,
}
_MODERNBERT = {
    **BERT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
_SEGFORMER = {
    "hidden_sizes": [8, 16, 16, 32],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 4],
    "decoder_hidden_size": 16,
}
TOKENS: dict[str, Shape] = {"input_ids": (NUM_TOKENS,), "attention_mask": (NUM_TOKENS,)}


def made(
    model: str, config: str, options: dict[str, Any], *, is_adapted: bool = False
) -> Callable[[], nn.Module]:
    """Build a model from its configuration, by peft's LoRA on a frozen one if so wanted."""

    def build() -> nn.Module:
        transformers = importlib.import_module("transformers")
        module: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**options))
        if is_adapted:
            peft = importlib.import_module("peft")
            targets = ["query", "value"]
            lora = peft.LoraConfig(r=4, target_modules=targets, modules_to_save=["classifier"])
            module = peft.get_peft_model(module, lora)
        return module

    return build


def of_text(name: str, model: str, config: str, options: dict[str, Any]) -> Brought:
    """Make one that takes token ids and their mask."""
    return Brought(name, "transformers", made(model, config, options), TOKENS, VOCABULARY)


def _pictures(name: str, model: str, config: str, options: dict[str, Any], size: int) -> Brought:
    return Brought(name, "transformers", made(model, config, options), (3, size, size))


TEXT = (
    of_text("bert", "BertForSequenceClassification", "BertConfig", BERT),
    of_text("distilbert", "DistilBertForSequenceClassification", "DistilBertConfig", _DISTILBERT),
    of_text("roberta", "RobertaForSequenceClassification", "RobertaConfig", BERT),
    of_text("gpt2", "GPT2ForSequenceClassification", "GPT2Config", _GPT2),
    of_text("t5 encoder", "T5EncoderModel", "T5Config", _T5),
    of_text("modernbert", "ModernBertForSequenceClassification", "ModernBertConfig", _MODERNBERT),
    _pictures("hf vit", "ViTForImageClassification", "ViTConfig", _VIT, 32),
    _pictures("vit mae", "ViTMAEModel", "ViTMAEConfig", _VIT, 32),
    _pictures("segformer", "SegformerForImageClassification", "SegformerConfig", _SEGFORMER, 64),
    Brought(
        "wav2vec2",
        "transformers",
        made("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", WAV2VEC2),
        (4000,),
    ),
    Brought(
        "bert with lora",
        "peft",
        made("BertForSequenceClassification", "BertConfig", BERT, is_adapted=True),
        TOKENS,
        VOCABULARY,
    ),
)
