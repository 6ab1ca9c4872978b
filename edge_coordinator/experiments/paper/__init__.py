"""The paper's comparison: its published figures beside ours."""
