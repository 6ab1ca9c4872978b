"""Where and how the server side computes: the processor, an accelerator, or several at once."""
