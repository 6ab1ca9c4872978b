"""What a command line offers, by itself: help is printed before anything of weight is imported."""

ONNX_ENGINE = "onnxruntime"
ENGINES = ("torch", ONNX_ENGINE)
"""What can compute on a device."""
DEFAULT_CHUNK_BYTES = 256 * 1024
LEAST_CHUNK_BYTES, MOST_CHUNK_BYTES = 1024, 64 * 1024 * 1024
"""Tensors travel in chunks of this."""
TRACKERS = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
"""What can keep a run's figures, and the module that each needs; its extra has its name."""
FILE_SOURCES = ("mnist", "npz", "npy", "folder", "audio", "csv", "parquet", "windows")
"""Data from files are named `mnist:DIR` and so on; another word before a colon is a module's."""
KNOWN_SOURCES = (
    "digits, mnist:DIR, npz:FILE, npy:DIR, folder:DIR, audio:DIR, csv:FILE?target=COLUMN, "
    "parquet:FILE?target=COLUMN, windows:FILE?target=COLUMN or package.module:factory"
)
KNOWN_INPUTS = "inputs:FILE.npy, inputs:FILE.csv or inputs:DIR (images) without labels"
"""What a trained model may be asked of, beside the samples of a source."""


def is_factory(source: str) -> bool:
    """Whether a data source is code, `package.module:factory`, not files or a built-in name."""
    scheme, colon, _ = source.partition(":")
    return bool(colon) and scheme not in FILE_SOURCES
