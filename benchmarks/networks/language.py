"""More of Hugging Face's networks for text and sound, small, made from their configurations."""

from typing import Any

from benchmarks.networks.brought import Brought
from benchmarks.networks.text import BERT, VOCABULARY, WAV2VEC2, made, of_text

_CLASSIFIES = "ForSequenceClassification"
_DECODER = {**BERT, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1}
_OPT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "ffn_dim": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
_BLOOM = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "n_layer": 2,
    "n_head": 2,
    "pad_token_id": 0,
}
_FALCON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}
_XLNET = {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64}
_FUNNEL = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "block_sizes": [1, 1],
    "n_head": 2,
    "d_head": 16,
    "d_inner": 64,
}
_WHISPER = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_mel_bins": 16,
    "max_source_positions": 32,
    "classifier_proj_size": 16,
    "pad_token_id": 0,
}


def _classifier(name: str, family: str, options: dict[str, Any]) -> Brought:
    return of_text(name, f"{family}{_CLASSIFIES}", f"{family}Config", options)


LANGUAGE = (
    _classifier("llama", "Llama", _DECODER),
    _classifier("mistral", "Mistral", _DECODER),
    _classifier("qwen2", "Qwen2", _DECODER),
    _classifier("gemma", "Gemma", {**_DECODER, "head_dim": 16}),
    _classifier("phi", "Phi", _DECODER),
    _classifier("opt", "OPT", _OPT),
    _classifier("bloom", "Bloom", _BLOOM),
    _classifier("falcon", "Falcon", _FALCON),
    _classifier("gpt neox", "GPTNeoX", {**BERT, "pad_token_id": 0}),
    _classifier("electra", "Electra", {**BERT, "embedding_size": 32}),
    _classifier("albert", "Albert", {**BERT, "embedding_size": 16}),
    _classifier("xlnet", "XLNet", _XLNET),
    _classifier("longformer", "Longformer", {**BERT, "attention_window": 4, "pad_token_id": 0}),
    _classifier("mpnet", "MPNet", BERT),
    _classifier("funnel", "Funnel", _FUNNEL),
    _classifier("convbert", "ConvBert", BERT),
    Brought(
        "whisper",
        "transformers",
        made("WhisperForAudioClassification", "WhisperConfig", _WHISPER),
        (16, 64),
    ),
    Brought(
        "hubert",
        "transformers",
        made("HubertForSequenceClassification", "HubertConfig", WAV2VEC2),
        (4000,),
    ),
)
