"""Import networks that read text, on prompts whose text encoder outputs are given."""
