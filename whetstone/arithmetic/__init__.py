"""Numbers and formulas of school problems: expressions, column arithmetic, numbers in English text, formula search."""
