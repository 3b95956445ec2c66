"""What answers are: their grammar, from a text to a value (`reading.read`)."""
