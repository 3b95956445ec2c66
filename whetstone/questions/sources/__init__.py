"""The kinds of `[[stage.source]]`, one file each: a file NAME.py that ends with `SOURCE = …` is `kind = "NAME"`."""
