"""Whetstone sharpens a small language model into a maths reasoner (Phi-4-Mini-Reasoning, arXiv 2504.21233)."""

__version__ = "0.1.0"
