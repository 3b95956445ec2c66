"""Numbers and formulas of school problems: expressions, and numbers in English text."""
