"""The page."""


def add_page(app, runs):
    pass
