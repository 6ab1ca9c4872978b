"""Where the repository lies: its documents, programs and schemas."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
