"""What streams share: sources, pictures, packs of text, tensors."""
