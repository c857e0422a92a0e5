"""What methods share: interface, loop, adapters, prompts."""
