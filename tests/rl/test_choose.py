"""A recipe's words become an algorithm; what it cannot mean is an error with the remedy."""

from pathlib import Path
from typing import get_args

import pytest

from tests.scripted import problem, rollout
from whetstone.rl import choose, loop
from whetstone.rl.choose import build, most_accurate, stabilisers
from whetstone.rl.loop import Settings


def settings(**more) -> Settings:
    return Settings(kind="rl", **more)


PROBLEMS = [problem(name) for name in "abcdef"]


@pytest.mark.parametrize("name", get_args(choose.Name))
def test_naming_an_algorithm_is_enough_and_its_module_names_its_paper(name):
    algorithm = build(settings(algorithm=name, prompts_per_step=4, samples=3), PROBLEMS, 0)
    draw = algorithm.draw({}, 0, [])
    assert len(draw.problems) == 4 and draw.counts == [3] * 4
    assert algorithm.reward(problem(), rollout(tokens=1)) == 1.0
    text = (Path(choose.__file__).parent / f"{name}.py").read_text()
    assert "arXiv 2" in text.partition('"""')[2].partition('"""')[0]


def test_the_papers_stabilisers_come_with_grpo_and_with_no_other():
    assert stabilisers(settings()) == choose.PAPER and stabilisers(settings(algorithm="dapo")) == ()
    assert stabilisers(settings(algorithm="dapo", stabilisers=["clip_cov"])) == ("clip_cov",)
    assert most_accurate(settings()) == 0.5 and most_accurate(settings(algorithm="rloo")) == 1.0
    assert most_accurate(settings(stabilisers=[])) == 1.0 and most_accurate(settings(threshold=0.7)) == 0.7


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"algorithm": "gspo", "rounds": 3},
            r'rounds = 3 is an option of dapo; algorithm = "gspo" has clip_low, clip_high',
        ),
        ({"algorithm": "cispo", "clip_low": 0.1}, r'"cispo" has clip_high'),
        ({"baseline": "group"}, r"is an option of reinforce_pp"),
        ({"mask_overlong": False}, r"is an option of dapo"),
        ({"algorithm": "drgrpo"}, r"'grpo', 'dr_grpo'"),
    ],
)
def test_an_option_that_the_algorithm_has_not_is_refused(more, words):
    with pytest.raises(ValueError, match=words):
        settings(**more)


@pytest.mark.parametrize("name", loop.BIASED)
def test_sampling_that_is_not_the_policys_is_refused_with_the_reason(name):
    with pytest.raises(ValueError, match=rf"{name} = 0.9 is refused: .* the gradient are biased\. Leave it out"):
        settings(**{name: 0.9})


def test_every_option_belongs_to_an_algorithm_and_every_stabiliser_is_applied():
    import inspect

    known = {p for name in get_args(choose.Name) for p in inspect.signature(choose.function(name)).parameters}
    assert known - {"setup"} == set(choose.OPTIONS)
    assert set(get_args(choose.Stabiliser)) == set(choose.WRAPPERS) | {"prompt_optimization"}


@pytest.mark.parametrize("where", ["loss", "reward"])
def test_a_kl_asks_for_the_reference(where):
    assert not build(settings(), PROBLEMS, 0).reference
    assert build(settings(kl_coefficient=0.1, kl_in=where), PROBLEMS, 0).reference
    assert build(settings(tripwires={"kl": 0.5}), PROBLEMS, 0).reference
