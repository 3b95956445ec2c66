"""The paper's results for its own stages, beside which the report puts ours. Pass@1 in %: AIME 24, MATH-500, GPQA-Diamond.

Phi-4-Mini-Reasoning (arXiv 2504.21233), ablation; the later evaluation (AIME over 64 samples, the others over 8) is
Microsoft's own, from the model card of Phi-4-mini-flash-reasoning.
"""

ABLATION = (
    ("Phi-4-Mini", "10.0", 71.8, "36.9"),
    ("+ mid-training", "30.0", 82.9, "42.6"),
    ("+ fine-tuning", "43.3", 89.3, "48.3"),
    ("+ Rollout DPO", "50.0", 93.6, "49.0"),
    ("+ RL (final)", "57.5", 94.6, "52.0"),
)
LATER = ("48.1", "91.2", "44.5")
