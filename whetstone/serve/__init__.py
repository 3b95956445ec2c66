"""`whetstone serve`: models behind HTTP as OpenAI's clients ask them, and a page to talk with them and to follow a run."""
