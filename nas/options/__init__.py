"""Flags, the options they set, and the words and quantities they are made of."""
