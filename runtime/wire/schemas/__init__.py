"""The shapes of what is published, for programs that are none of ours."""
