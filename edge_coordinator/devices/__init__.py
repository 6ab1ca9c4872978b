"""The devices of a run: who is there, what each is asked, what is awaited."""
