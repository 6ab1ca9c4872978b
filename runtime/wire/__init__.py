"""What travels: topics, messages, and tensors in frames."""
